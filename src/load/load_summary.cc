#include "load/load_summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace dspark {
namespace {

bool in_window(const LoadStep& step, const LoadResult& result) {
  return step.end_s - step.step_s >= result.begin_s - 1e-9 && step.end_s <= result.end_s + 1e-9;
}

void add_requests(const LoadResult& result, LoadSummary& summary) {
  std::vector<double> ttft, speeds;
  for (const RequestRecord& request : result.requests) {
    if (!request.measured || request.first_token_s < 0.0) continue;
    ttft.push_back(request.first_token_s - request.submitted_s);
    const double decode_s = request.last_token_s - request.first_token_s;
    if (request.tokens.size() > 1 && decode_s > 0.0) {
      speeds.push_back(static_cast<double>(request.tokens.size() - 1) / decode_s);
    }
    summary.answers += request.whole ? 1 : 0;
  }
  summary.ttft_s = summarize_quantiles(std::move(ttft));
  summary.user_tokens_per_s = median_of(std::move(speeds));
}

/// Measured over predicted times of some steps.
PredictionSummary summarize_predictions(const std::vector<double>& ratios) {
  std::vector<double> errors;
  for (const double ratio : ratios) errors.push_back(std::abs(ratio - 1.0));
  return {std::ssize(ratios), median_of(ratios), median_of(std::move(errors))};
}

void add_steps(const LoadResult& result, LoadSummary& summary) {
  int64_t decode_sequences = 0, verified = 0;
  double steps_s = 0.0;
  std::vector<double> decode_ratios, prompt_ratios;
  for (const LoadStep& step : result.steps) {
    if (!in_window(step, result)) continue;
    ++summary.steps;
    summary.tokens += step.committed;
    summary.prompt_tokens += step.prefill_rows;
    decode_sequences += step.decode_sequences;
    verified += step.verified;
    summary.draft_s += step.draft_s;
    summary.forward_s += step.forward_s;
    summary.commit_s += step.commit_s;
    steps_s += step.step_s;
    if (!(step.predicted_s > 0.0)) continue;
    (step.prefill_rows > 0 ? prompt_ratios : decode_ratios).push_back(step.step_s / step.predicted_s);
  }
  summary.loop_s = steps_s - summary.draft_s - summary.forward_s - summary.commit_s;
  summary.outside_s = summary.seconds - steps_s;
  if (summary.steps > 0) {
    summary.mean_decode_sequences =
        static_cast<double>(decode_sequences) / static_cast<double>(summary.steps);
  }
  if (decode_sequences > 0) {
    summary.verified_per_sequence = static_cast<double>(verified) / static_cast<double>(decode_sequences);
  }
  summary.decode_steps = summarize_predictions(decode_ratios);
  summary.prompt_steps = summarize_predictions(prompt_ratios);
}

}  // namespace

LoadSummary summarize_load(const LoadResult& result) {
  LoadSummary summary;
  summary.seconds = result.end_s - result.begin_s;
  summary.cut = result.cut;
  add_requests(result, summary);
  add_steps(result, summary);
  summary.inter_token_s = summarize_quantiles(result.inter_token_s);
  summary.gap_s = summarize_quantiles(result.gap_s);
  summary.speculation = result.speculation;
  summary.prefix_tokens = result.engine.cached_tokens;
  summary.preemptions = result.engine.preemptions;
  summary.turns = window_curve(result);
  if (summary.seconds > 0.0) {
    summary.tokens_per_s = static_cast<double>(summary.tokens) / summary.seconds;
    summary.answers_per_s = static_cast<double>(summary.answers) / summary.seconds;
  }
  return summary;
}

std::vector<PhaseSummary> summarize_phases(const LoadResult& result, std::span<const int32_t> phases,
                                           double phase_s) {
  constexpr size_t kWindow = 5;
  std::vector<PhaseSummary> summaries;
  for (size_t i = 0; i < phases.size() && i < result.phase_begin_s.size(); ++i) {
    PhaseSummary phase;
    phase.clients = phases[i];
    const double begin_s = result.phase_begin_s[i];
    const double end_s = i + 1 < result.phase_begin_s.size() ? result.phase_begin_s[i + 1] : result.end_s;
    phase.seconds = end_s - begin_s;
    phase.turns = phase_curve(result, begin_s, end_s);
    if (i < result.phase_longest_wait_s.size()) phase.longest_wait_s = result.phase_longest_wait_s[i];
    int64_t tokens = 0;
    std::vector<double> with_all, second_half;  // verified per sequence
    for (const LoadStep& step : result.steps) {
      if (step.end_s < begin_s || step.end_s > end_s) continue;
      tokens += step.committed;
      if (step.decode_sequences == 0 || step.decode_sequences != phases[i]) continue;
      const double verified = static_cast<double>(step.verified) / step.decode_sequences;
      with_all.push_back(verified);
      if (step.end_s > begin_s + phase_s / 2) second_half.push_back(verified);
    }
    phase.tokens_per_s = phase.seconds > 0.0 ? static_cast<double>(tokens) / phase.seconds : 0.0;
    phase.verified_per_sequence = median_of(second_half);
    const double close = std::max(0.5, 0.25 * phase.verified_per_sequence);
    for (size_t s = 0; s + kWindow <= with_all.size() && !second_half.empty(); ++s) {
      double mean = 0.0;
      for (size_t k = 0; k < kWindow; ++k) mean += with_all[s + k] / kWindow;
      if (std::abs(mean - phase.verified_per_sequence) > close) continue;
      phase.steps_to_follow = static_cast<int32_t>(s);
      break;
    }
    summaries.push_back(phase);
  }
  return summaries;
}

void TextCheck::add(const LoadResult& result, const std::string& label) {
  for (const RequestRecord& request : result.requests) {
    const auto at = static_cast<size_t>(request.index);
    if (texts_.size() <= at) texts_.resize(at + 1);
    Text& known = texts_[at];
    if (known.label.empty()) {
      known = {request.tokens, request.whole, label};
      continue;
    }
    ++compared_;
    const size_t n = std::min(known.tokens.size(), request.tokens.size());
    compared_tokens_ += static_cast<int64_t>(n);
    size_t same = 0;
    while (same < n && known.tokens[same] == request.tokens[same]) ++same;
    const bool ends_early = (known.whole && request.tokens.size() > known.tokens.size()) ||
                            (request.whole && known.tokens.size() > request.tokens.size());
    if (same < n || ends_early) {
      ++different_;
      if (first_difference_.empty()) {
        first_difference_ = fmt::format("request {}: token {} differs between {} and {}", request.index + 1,
                                        same + 1, known.label, label);
      }
    }
    if ((request.whole && !known.whole) || (!known.whole && request.tokens.size() > known.tokens.size())) {
      known = {request.tokens, request.whole, label};
    }
  }
}

}  // namespace dspark
