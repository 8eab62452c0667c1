#include "server/metrics.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace dspark {
namespace {

constexpr double kSeconds[] = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5,
                               0.75,  1,     2.5,  5,    7.5,  10,   20,   40,  80};
constexpr double kTokens[] = {1,   2,    5,    10,   20,    50,    100,   200,
                              500, 1000, 2000, 5000, 10000, 20000, 50000, 100000};
constexpr double kStepTokens[] = {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};
constexpr double kAnswers[] = {1, 2, 5, 10, 20, 50, 100};

// vLLM's word for an end, where it has one.
std::string vllm_reason(const std::string& reason) {
  return reason == finish_reason_name(FinishReason::kCancelled) ? "abort" : reason;
}

std::string number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
  char text[40];
  std::snprintf(text, sizeof(text), "%.17g", value);
  char shorter[40];
  std::snprintf(shorter, sizeof(shorter), "%.9g", value);
  double back = 0.0;
  return std::sscanf(shorter, "%lf", &back) == 1 && back == value ? shorter : text;
}

std::string escaped(const std::string& value) {
  std::string out;
  for (const char c : value) {
    if (c == '\\' || c == '"') out += '\\';
    if (c == '\n') {
      out += "\\n";
    } else {
      out += c;
    }
  }
  return out;
}

std::string label_text(const PrometheusText::Labels& labels, const std::string& bound = {}) {
  std::string text;
  for (const auto& [key, value] : labels) {
    text += (text.empty() ? "{" : ",") + std::string(key) + "=\"" + escaped(value) + "\"";
  }
  if (!bound.empty()) text += (text.empty() ? "{le=\"" : ",le=\"") + bound + "\"";
  return text.empty() ? text : text + "}";
}

void add_load(PrometheusText& out, const PrometheusText::Labels& model, const EngineSnapshot& engine) {
  const EngineLoad& load = engine.load;
  const EngineStats& stats = engine.stats;
  out.add("vllm:num_requests_running", "gauge", "Sequences in the batch.", model, load.n_running);
  out.add("vllm:num_requests_waiting", "gauge", "Sequences waiting to start or to go on.", model,
          load.n_waiting);
  const double pages = std::max(1, load.n_pages);
  out.add("vllm:kv_cache_usage_perc", "gauge", "Cache pages in use, 1 is all of them.", model,
          load.n_pages_used / pages);
  out.add("dspark_kv_cache_pages", "gauge", "Cache pages.", model, load.n_pages);
  out.add("dspark_kv_cache_idle_pages", "gauge", "Cache pages kept for prefixes, in nobody's use.", model,
          load.n_pages_idle);
  out.add("vllm:num_preemptions_total", "counter", "Sequences that lost their pages.", model,
          static_cast<double>(stats.preemptions));
  out.add("vllm:prompt_tokens_total", "counter", "Prompt tokens computed.", model,
          static_cast<double>(stats.prompt_tokens));
  out.add("vllm:generation_tokens_total", "counter", "Tokens generated.", model,
          static_cast<double>(stats.output_tokens));
  out.add("vllm:prefix_cache_queries_total", "counter", "Prompt tokens looked up in the cache.", model,
          static_cast<double>(stats.prompt_tokens + stats.cached_tokens));
  out.add("vllm:prefix_cache_hits_total", "counter", "Prompt tokens found in the cache.", model,
          static_cast<double>(stats.cached_tokens));
  out.add("dspark_idle_seconds_total", "counter", "Time without any request.", model, engine.idle_s);
  out.add("dspark_steps_total", "counter", "Steps of the engine.", model, static_cast<double>(stats.steps));
  const std::pair<const char*, double> parts[] = {{"draft", stats.draft_s},
                                                  {"forward", stats.forward_s},
                                                  {"commit", stats.commit_s},
                                                  {"all", stats.step_s}};
  for (const auto& [part, seconds] : parts) {
    PrometheusText::Labels labels = model;
    labels.emplace_back("part", part);
    out.add("dspark_step_seconds_total", "counter", "Time spent in steps, by part.", labels, seconds);
  }
}

void add_speculation(PrometheusText& out, const PrometheusText::Labels& model,
                     const SpeculationStats& stats) {
  const auto value = [](int64_t count) { return static_cast<double>(count); };
  out.add("vllm:spec_decode_num_drafts_total", "counter", "Verifications.", model, value(stats.rounds));
  out.add("vllm:spec_decode_num_draft_tokens_total", "counter", "Drafted tokens.", model,
          value(stats.drafted));
  out.add("vllm:spec_decode_num_accepted_tokens_total", "counter", "Drafted tokens that became text.", model,
          value(stats.accepted));
  out.add("dspark_spec_decode_num_verified_tokens_total", "counter", "Drafted tokens the target checked.",
          model, value(stats.verified));
  out.add("dspark_spec_decode_num_trimmed_tokens_total", "counter", "Drafted tokens left out of the check.",
          model, value(stats.trimmed));
  for (size_t j = 0; j < stats.proposed_at.size() && stats.proposed_at[j] > 0; ++j) {
    PrometheusText::Labels labels = model;
    labels.emplace_back("position", std::to_string(j));
    out.add("vllm:spec_decode_num_accepted_tokens_per_pos_total", "counter",
            "Drafted tokens that became text, by position in the draft.", labels,
            value(stats.accepted_at[j]));
    out.add("dspark_spec_decode_num_verified_tokens_per_pos_total", "counter",
            "Drafted tokens checked, by position in the draft.", labels, value(stats.proposed_at[j]));
  }
}

void add_scheduler(PrometheusText& out, const PrometheusText::Labels& model, const EngineSnapshot& engine) {
  const SchedulerStats& stats = engine.stats.scheduler;
  const auto value = [](int64_t count) { return static_cast<double>(count); };
  out.add("dspark_verify_budget", "gauge", "Drafts to check in the newest planned step.", model,
          stats.last_budget);
  out.add("dspark_verify_budget_total", "counter", "Sum of planned budgets.", model,
          value(stats.budget_tokens));
  out.add("dspark_draft_length", "gauge", "Drafts per sequence in the newest planned step.", model,
          stats.last_draft_length);
  out.add("dspark_planned_steps_total", "counter", "Steps with a plan.", model, value(stats.planned_steps));
  out.add("dspark_paused_steps_total", "counter", "Planned steps without drafts because they did not pay.",
          model, value(stats.paused_steps));
  out.add("dspark_step_predicted_seconds", "gauge", "Newest step by the cost model.", model,
          stats.last_predicted_s);
  out.add("dspark_step_measured_seconds", "gauge", "Newest step as measured.", model, stats.last_measured_s);
  out.add("dspark_step_predicted_seconds_total", "counter", "Steps by the cost model.", model,
          stats.predicted_s);
  out.add("dspark_step_measured_seconds_total", "counter", "Steps as measured.", model, stats.measured_s);
  out.add("dspark_cost_correction", "gauge", "Measured over tabled time of the target's pass.", model,
          stats.verify_correction);
  out.add("dspark_cost_draft_correction", "gauge", "Measured over tabled time of the drafter's pass.", model,
          stats.draft_correction);
  for (const CostPoint& point : engine.verify_costs) {
    PrometheusText::Labels labels = model;
    labels.emplace_back("rows", std::to_string(point.n));
    out.add("dspark_cost_verify_seconds", "gauge", "Cost of a pass by rows.", labels, point.seconds);
  }
  const size_t n_positions =
      std::min(static_cast<size_t>(std::max(0, stats.n_positions)), stats.drift.size());
  for (size_t j = 0; j < n_positions; ++j) {
    PrometheusText::Labels labels = model;
    labels.emplace_back("position", std::to_string(j));
    out.add("dspark_calibration_predicted_survival", "gauge", "Predicted survival of a draft.", labels,
            stats.drift[j].predicted);
    out.add("dspark_calibration_observed_survival", "gauge", "Observed survival of a draft.", labels,
            stats.drift[j].observed);
    out.add("dspark_calibration_error", "gauge", "Expected calibration error.", labels, stats.drift[j].ece);
  }
  for (size_t b = 0; b < stats.bins.size(); ++b) {
    const CalibrationBin& bin = stats.bins[b];
    if (bin.count == 0) continue;
    PrometheusText::Labels labels = model;
    labels.emplace_back("bin", std::to_string(b));
    out.add("dspark_calibration_bin_drafts", "gauge", "Recent drafts by bin of predicted survival.", labels,
            static_cast<double>(bin.count));
    out.add("dspark_calibration_bin_predicted_survival", "gauge", "Mean prediction in the bin.", labels,
            bin.predicted);
    out.add("dspark_calibration_bin_observed_survival", "gauge", "Share of accepted drafts in the bin.",
            labels, bin.observed);
  }
}

}  // namespace

void Histogram::observe(double value, int64_t times) {
  const auto place = std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin();
  counts_[static_cast<size_t>(place)] += times;
  count_ += times;
  sum_ += value * static_cast<double>(times);
}

RequestMetrics::RequestMetrics()
    : ttft_(kSeconds),
      itl_(kSeconds),
      e2e_(kSeconds),
      queue_(kSeconds),
      prefill_(kSeconds),
      decode_(kSeconds),
      inference_(kSeconds),
      prompt_tokens_(kTokens),
      output_tokens_(kTokens),
      max_tokens_(kTokens),
      longest_(kTokens),
      n_(kAnswers),
      step_tokens_(kStepTokens) {}

void RequestMetrics::first_token(double seconds) {
  const std::lock_guard lock(mutex_);
  ttft_.observe(seconds);
}

void RequestMetrics::more_tokens(double seconds, int64_t tokens) {
  if (tokens <= 0) return;
  const std::lock_guard lock(mutex_);
  itl_.observe(seconds / static_cast<double>(tokens), tokens);
}

void RequestMetrics::finished(const std::string& reason, double seconds, int64_t max_tokens,
                              const GenerateStats& stats) {
  const std::lock_guard lock(mutex_);
  ++finished_[reason];
  e2e_.observe(seconds);
  queue_.observe(stats.queue_s);
  prefill_.observe(stats.prompt_s);
  decode_.observe(stats.decode_s);
  inference_.observe(stats.prompt_s + stats.decode_s);
  prompt_tokens_.observe(stats.prompt_tokens);
  output_tokens_.observe(stats.output_tokens);
  max_tokens_.observe(static_cast<double>(max_tokens));
}

void RequestMetrics::prompt_finished(int64_t n, int64_t longest) {
  const std::lock_guard lock(mutex_);
  n_.observe(static_cast<double>(n));
  longest_.observe(static_cast<double>(longest));
}

void RequestMetrics::stepped(const StepStats& step) {
  const int32_t tokens = step.prefill_rows + step.committed_tokens;
  if (tokens == 0) return;  // a step that only let somebody go
  const std::lock_guard lock(mutex_);
  step_tokens_.observe(tokens);
}

RequestMetrics::Snapshot RequestMetrics::snapshot() const {
  const std::lock_guard lock(mutex_);
  Snapshot copy;
  copy.finished = finished_;
  copy.histograms = {
      {"vllm:time_to_first_token_seconds", ttft_},          {"vllm:inter_token_latency_seconds", itl_},
      {"vllm:e2e_request_latency_seconds", e2e_},           {"vllm:request_queue_time_seconds", queue_},
      {"vllm:request_prefill_time_seconds", prefill_},      {"vllm:request_decode_time_seconds", decode_},
      {"vllm:request_inference_time_seconds", inference_},  {"vllm:request_prompt_tokens", prompt_tokens_},
      {"vllm:request_generation_tokens", output_tokens_},   {"vllm:request_params_max_tokens", max_tokens_},
      {"vllm:request_max_num_generation_tokens", longest_}, {"vllm:request_params_n", n_},
      {"vllm:iteration_tokens_total", step_tokens_}};
  return copy;
}

PrometheusText::Family& PrometheusText::family(std::string_view name, const char* type, const char* help) {
  for (Family& known : families_) {
    if (known.name == name) return known;
  }
  families_.push_back({std::string(name), type, help, {}});
  return families_.back();
}

void PrometheusText::add(std::string_view name, const char* type, const char* help, const Labels& labels,
                         double value) {
  family(name, type, help).lines += std::string(name) + label_text(labels) + " " + number(value) + "\n";
}

void PrometheusText::add(std::string_view name, const char* help, const Labels& labels,
                         const Histogram& histogram) {
  std::string& lines = family(name, "histogram", help).lines;
  int64_t below = 0;
  for (size_t i = 0; i < histogram.counts().size(); ++i) {
    below += histogram.counts()[i];
    const std::string bound = i < histogram.bounds().size() ? number(histogram.bounds()[i]) : "+Inf";
    lines += std::string(name) + "_bucket" + label_text(labels, bound) + " " + std::to_string(below) + "\n";
  }
  lines += std::string(name) + "_sum" + label_text(labels) + " " + number(histogram.sum()) + "\n";
  lines += std::string(name) + "_count" + label_text(labels) + " " + std::to_string(histogram.count()) + "\n";
}

std::string PrometheusText::text() const {
  std::string text;
  for (const Family& family : families_) {
    text +=
        "# HELP " + family.name + " " + family.help + "\n# TYPE " + family.name + " " + family.type + "\n";
    text += family.lines;
  }
  return text;
}

void add_model_metrics(PrometheusText& out, const std::string& model, const EngineSnapshot& engine,
                       const RequestMetrics::Snapshot& requests) {
  const PrometheusText::Labels labels = {{"model_name", model}};
  add_load(out, labels, engine);
  add_speculation(out, labels, engine.stats.speculation);
  add_scheduler(out, labels, engine);
  for (const auto& [reason, count] : requests.finished) {
    PrometheusText::Labels more = labels;
    more.emplace_back("finished_reason", vllm_reason(reason));
    out.add("vllm:request_success_total", "counter", "Requests that ended, by reason.", more,
            static_cast<double>(count));
  }
  for (const auto& [name, histogram] : requests.histograms) {
    out.add(name, "Of requests; see the name.", labels, histogram);
  }
}

}  // namespace dspark
