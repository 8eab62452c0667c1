#include "server/metrics.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <utility>

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

// One model's lines with their labels. vLLM numbers the engines behind a name; here a name has one.
class ModelText {
 public:
  using Labels = PrometheusText::Labels;
  ModelText(PrometheusText& out, std::string model) : out_(out), model_(std::move(model)) {}
  void gauge(std::string_view name, const char* help, double value, const Labels& more = {}) {
    out_.add(name, "gauge", help, labels(name, more), value);
  }
  void counter(std::string_view name, const char* help, double value, const Labels& more = {}) {
    out_.add(name, "counter", help, labels(name, more), value);
  }
  void counter(std::string_view name, const char* help, int64_t value, const Labels& more = {}) {
    counter(name, help, static_cast<double>(value), more);
  }
  void histogram(const RequestMetrics::Named& named) {
    out_.add(named.name, named.help, labels(named.name, {}), named.histogram);
  }

 private:
  Labels labels(std::string_view name, const Labels& more) const {
    Labels all = {{"model_name", model_}};
    if (name.starts_with("vllm:")) all.emplace_back("engine", "0");
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }

  PrometheusText& out_;
  std::string model_;
};

void add_load(ModelText& out, const EngineLoad& load) {
  out.gauge("vllm:num_requests_running", "Sequences with a place in the batch, held ones too.",
            load.n_running);
  out.gauge("vllm:num_requests_waiting", "Sequences waiting to start or to go on.", load.n_waiting);
  const std::pair<const char*, int32_t> reasons[] = {{"capacity", load.n_waiting}, {"deferred", 0}};
  for (const auto& [reason, n] : reasons) {
    out.gauge("vllm:num_requests_waiting_by_reason",
              "Waiting sequences by reason: all wait for a place in the batch or for cache pages (capacity).",
              n, {{"reason", reason}});
  }
  out.gauge("dspark_requests_held", "Sequences that pause because their readers are slow.", load.n_held);
  const double usage = load.n_pages_used / static_cast<double>(std::max(1, load.n_pages));
  out.gauge("vllm:kv_cache_usage_perc", "Cache pages in use, 1 is all of them.", usage);
  out.gauge("vllm:gpu_cache_usage_perc", "Old name of vllm:kv_cache_usage_perc.", usage);
  out.gauge("dspark_kv_cache_pages", "Cache pages.", load.n_pages);
  out.gauge("dspark_kv_cache_idle_pages", "Cache pages kept for prefixes, in nobody's use.",
            load.n_pages_idle);
}

void add_engine(ModelText& out, const EngineSnapshot& engine) {
  const EngineStats& stats = engine.stats;
  const int64_t prompt_tokens = stats.prompt_tokens + stats.cached_tokens;
  out.counter("vllm:num_preemptions_total", "Sequences that lost their pages.", stats.preemptions);
  out.counter("vllm:prompt_tokens_total",
              "Prompt tokens, computed and cached; a preempted text counts again when it goes on.",
              prompt_tokens);
  out.counter("vllm:prompt_tokens_cached_total", "Of vllm:prompt_tokens_total, those found in the cache.",
              stats.cached_tokens);
  out.counter("vllm:generation_tokens_total", "Tokens generated.", stats.output_tokens);
  out.counter("vllm:prefix_cache_queries_total", "Prompt tokens looked up in the cache.", prompt_tokens);
  out.counter("vllm:prefix_cache_hits_total", "Prompt tokens found in the cache.", stats.cached_tokens);
  out.counter("dspark_idle_seconds_total", "Time in which the engine had nothing to do.", engine.idle_s);
  out.counter("dspark_steps_total", "Steps of the engine.", stats.steps);
  const std::pair<const char*, double> parts[] = {{"draft", stats.draft_s},
                                                  {"forward", stats.forward_s},
                                                  {"commit", stats.commit_s},
                                                  {"all", stats.step_s}};
  for (const auto& [part, seconds] : parts) {
    out.counter("dspark_step_seconds_total", "Time spent in steps, by part.", seconds, {{"part", part}});
  }
}

// vLLM counts what it sends through the target: a draft is a sequence's step with at least one drafted token
// to verify, and tokens that were proposed but left out are not drafted ones.
void add_speculation(ModelText& out, const SpeculationStats& stats) {
  out.counter("vllm:spec_decode_num_drafts_total", "Steps of sequences in which a draft was verified.",
              stats.verified_rounds);
  out.counter("vllm:spec_decode_num_draft_tokens_total", "Drafted tokens that the target verified.",
              stats.verified);
  out.counter("vllm:spec_decode_num_accepted_tokens_total", "Drafted tokens that became text.",
              stats.accepted);
  out.counter("dspark_spec_decode_num_rounds_total", "Decoding steps of sequences, with and without a draft.",
              stats.rounds);
  out.counter("dspark_spec_decode_num_drafted_tokens_total", "Tokens the drafter proposed, verified or not.",
              stats.drafted);
  out.counter("dspark_spec_decode_num_verified_tokens_total", "Drafted tokens the target checked.",
              stats.verified);
  out.counter("dspark_spec_decode_num_trimmed_tokens_total", "Drafted tokens left out of the check.",
              stats.trimmed);
  for (size_t j = 0; j < stats.proposed_at.size() && stats.proposed_at[j] > 0; ++j) {
    const ModelText::Labels position = {{"position", std::to_string(j)}};
    out.counter("vllm:spec_decode_num_accepted_tokens_per_pos_total",
                "Drafted tokens that became text, by position in the draft.", stats.accepted_at[j], position);
    out.counter("dspark_spec_decode_num_verified_tokens_per_pos_total",
                "Drafted tokens checked, by position in the draft.", stats.proposed_at[j], position);
  }
}

void add_scheduler(ModelText& out, const EngineSnapshot& engine) {
  const SchedulerStats& stats = engine.stats.scheduler;
  out.gauge("dspark_verify_budget", "Drafts to check in the newest planned step.", stats.last_budget);
  out.counter("dspark_verify_budget_total", "Sum of planned budgets.", stats.budget_tokens);
  out.gauge("dspark_draft_length", "Drafts per sequence in the newest planned step.",
            stats.last_draft_length);
  out.counter("dspark_planned_steps_total", "Steps with a plan.", stats.planned_steps);
  out.counter("dspark_paused_steps_total", "Planned steps without drafts because they did not pay.",
              stats.paused_steps);
  out.gauge("dspark_step_predicted_seconds", "Newest step by the cost model.", stats.last_predicted_s);
  out.gauge("dspark_step_measured_seconds", "Newest step as measured.", stats.last_measured_s);
  out.counter("dspark_step_predicted_seconds_total", "Steps by the cost model.", stats.predicted_s);
  out.counter("dspark_step_measured_seconds_total", "Steps as measured.", stats.measured_s);
  out.gauge("dspark_cost_correction", "Measured over tabled time of the target's pass.",
            stats.verify_correction);
  out.gauge("dspark_cost_draft_correction", "Measured over tabled time of the drafter's pass.",
            stats.draft_correction);
  for (const CostPoint& point : engine.verify_costs) {
    out.gauge("dspark_cost_verify_seconds", "Cost of a pass by rows.", point.seconds,
              {{"rows", std::to_string(point.n)}});
  }
}

void add_calibration(ModelText& out, const SchedulerStats& stats) {
  const size_t n_positions =
      std::min(static_cast<size_t>(std::max(0, stats.n_positions)), stats.drift.size());
  for (size_t j = 0; j < n_positions; ++j) {
    const ModelText::Labels position = {{"position", std::to_string(j)}};
    const DriftPosition& drift = stats.drift[j];
    out.gauge("dspark_calibration_predicted_survival", "Predicted survival of a draft.", drift.predicted,
              position);
    out.gauge("dspark_calibration_observed_survival", "Observed survival of a draft.", drift.observed,
              position);
    out.gauge("dspark_calibration_error", "Expected calibration error.", drift.ece, position);
  }
  for (size_t b = 0; b < stats.bins.size(); ++b) {
    const CalibrationBin& bin = stats.bins[b];
    if (bin.count == 0) continue;
    const ModelText::Labels label = {{"bin", std::to_string(b)}};
    out.gauge("dspark_calibration_bin_drafts", "Recent drafts by bin of predicted survival.",
              static_cast<double>(bin.count), label);
    out.gauge("dspark_calibration_bin_predicted_survival", "Mean prediction in the bin.", bin.predicted,
              label);
    out.gauge("dspark_calibration_bin_observed_survival", "Share of accepted drafts in the bin.",
              bin.observed, label);
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
      tpot_(kSeconds),
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
  tpot_.observe(stats.output_tokens > 1 ? stats.decode_s / (stats.output_tokens - 1) : 0.0);
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
  const auto add = [&copy](const char* name, const char* help, const Histogram& histogram) {
    copy.histograms.push_back({name, help, histogram});
  };
  add("vllm:time_to_first_token_seconds", "Time from a request's arrival to an answer's first token.", ttft_);
  add("vllm:inter_token_latency_seconds", "Time between tokens; tokens that came together share it.", itl_);
  add("vllm:time_per_output_token_seconds", "Old name of vllm:inter_token_latency_seconds.", itl_);
  add("vllm:request_time_per_output_token_seconds",
      "Mean time per token of an answer after its first one; 0 where there is no other.", tpot_);
  add("vllm:e2e_request_latency_seconds", "Time from a request's arrival to the end of an answer.", e2e_);
  add("vllm:request_queue_time_seconds", "Time an answer waited to start.", queue_);
  add("vllm:request_prefill_time_seconds", "Time from an answer's start to its first token.", prefill_);
  add("vllm:request_decode_time_seconds", "Time from an answer's first token to its last.", decode_);
  add("vllm:request_inference_time_seconds", "Time from an answer's start to its last token.", inference_);
  add("vllm:request_prompt_tokens", "Tokens of an answer's prompt.", prompt_tokens_);
  add("vllm:request_generation_tokens", "Tokens of an answer.", output_tokens_);
  add("vllm:request_params_max_tokens", "Tokens an answer was allowed to have at most.", max_tokens_);
  add("vllm:request_max_num_generation_tokens", "Tokens of the longest answer to a prompt.", longest_);
  add("vllm:request_params_n", "Answers asked for to a prompt.", n_);
  add("vllm:iteration_tokens_total", "Prompt tokens computed and tokens generated in a step.", step_tokens_);
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
  ModelText lines(out, model);
  add_load(lines, engine.load);
  add_engine(lines, engine);
  add_speculation(lines, engine.stats.speculation);
  add_scheduler(lines, engine);
  add_calibration(lines, engine.stats.scheduler);
  for (const auto& [reason, count] : requests.finished) {
    lines.counter("vllm:request_success_total", "Answers that ended, by reason.", count,
                  {{"finished_reason", vllm_reason(reason)}});
  }
  for (const RequestMetrics::Named& named : requests.histograms) lines.histogram(named);
}

}  // namespace dspark
