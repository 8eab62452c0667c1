#include "speculate/logits_processor.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "speculate/row_mass.h"
#include "speculate/row_max.h"
#include "speculate/row_scan.h"

namespace dspark {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();

/// The k-th largest logit; tokens below it are dropped by top_k. NaN is ignored.
/// Works on a short list of large values instead of sorting the row.
float kth_largest(std::span<const float> logits, size_t k, std::vector<float>& heads) {
  const size_t room = 2 * k + 256;
  const auto keep_k = [&heads, k] {
    std::nth_element(heads.begin(), heads.begin() + static_cast<std::ptrdiff_t>(k - 1), heads.end(),
                     std::greater<>());
    heads.resize(k);
    return heads[k - 1];
  };
  heads.clear();
  heads.reserve(std::min(room, logits.size()));
  const CountFn count = count_reaching_fn();
  float threshold = kLowest;
  for (size_t begin = 0; begin < logits.size(); begin += kScanBlock) {
    const std::span<const float> block = logits.subspan(begin, std::min(kScanBlock, logits.size() - begin));
    // The threshold only rises, so a block without such a value has nothing to say.
    if (block.size() == kScanBlock && count(block.data(), threshold) == 0) continue;
    for (float logit : block) {
      if (!(logit >= threshold)) continue;
      heads.push_back(logit);
      if (heads.size() == room) threshold = keep_k();
    }
  }
  return heads.size() < k ? kLowest : keep_k();
}

/// Gathers tokens with logit >= lowest and above -infinity, ids ascending, weights still unset.
void gather(std::span<const float> logits, double lowest, std::vector<Candidate>& out) {
  out.clear();
  out.reserve(logits.size());  // once for all rows to come; what is not used stays untouched memory
  for_each_reaching(logits, scan_threshold(lowest), [&out](size_t v, float logit) {
    out.push_back({static_cast<int32_t>(v), logit, 0.0});
  });
}

void set_weights(std::vector<Candidate>& candidates, float max_logit, float temperature) {
  for (Candidate& c : candidates) c.weight = coupled_weight(c.logit, max_logit, temperature);
}

/// Step 8 on a list that min_p already shortened.
void keep_top_k(std::vector<Candidate>& candidates, size_t k, std::vector<float>& values) {
  if (k >= candidates.size()) return;
  values.clear();
  for (const Candidate& c : candidates) values.push_back(c.logit);
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(k - 1), values.end(),
                   std::greater<>());
  const float threshold = values[k - 1];
  std::erase_if(candidates, [threshold](const Candidate& c) { return c.logit < threshold; });
}

/// Weight below which step 9 keeps nothing: a token that stays has more than (1 - top_p) of the mass at and
/// behind it, all in tokens no larger than itself. The slack covers the rounding of the mass.
double top_p_floor(double top_p, double mass, size_t n_tokens) {
  return (1.0 - top_p - 1e-5) * mass / static_cast<double>(n_tokens);
}

/// Step 9 over candidates whose row has this mass (candidates below the floor may be missing). Sorts only as
/// much of the head as the answer needs.
void keep_top_p(std::vector<Candidate>& candidates, double top_p, double mass) {
  const auto larger = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
  };
  size_t n_kept = 0, n_sorted = 0;
  double before = 0.0;
  while (n_kept < candidates.size() && (n_kept == 0 || before < top_p * mass)) {
    if (n_kept == n_sorted) {
      n_sorted = std::min(candidates.size(), n_sorted == 0 ? 64 : 8 * n_sorted);
      const auto from = candidates.begin() + static_cast<std::ptrdiff_t>(n_kept);
      const auto to = candidates.begin() + static_cast<std::ptrdiff_t>(n_sorted);
      if (to != candidates.end()) std::nth_element(from, to, candidates.end(), larger);
      std::sort(from, to, larger);
    }
    before += candidates[n_kept++].weight;
  }
  candidates.resize(n_kept);
  std::sort(candidates.begin(), candidates.end(),
            [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
}

/// The row after step 5: `logits` itself when steps 2-5 do nothing.
std::span<const float> penalised_row(std::span<const float> logits, const SamplingParams& params,
                                     const TokenCounts* counts, SamplerScratch& scratch) {
  if (params.logit_bias.empty() && !params.has_penalties()) return logits;
  scratch.row.assign(logits.begin(), logits.end());
  apply_bias_and_penalties(scratch.row, params, counts);
  return scratch.row;
}

void set_one_hot(std::span<float> out, int32_t id) {
  std::fill(out.begin(), out.end(), 0.0f);
  out[static_cast<size_t>(id)] = 1.0f;
}

}  // namespace

void apply_bias_and_penalties(std::span<float> logits, const SamplingParams& params,
                              const TokenCounts* counts) {
  for (const auto& [id, bias] : params.logit_bias) logits[static_cast<size_t>(id)] += bias;
  if (counts == nullptr || !params.has_penalties()) return;
  const double repetition = params.repetition_penalty;
  for (const TokenCounts::Entry& entry : counts->entries()) {
    if (!entry.in_prompt && entry.in_output == 0) continue;
    double logit = logits[static_cast<size_t>(entry.token)];
    if (repetition != 1.0) logit = logit > 0.0 ? logit / repetition : logit * repetition;
    if (entry.in_output > 0) {
      logit -= static_cast<double>(params.frequency_penalty) * entry.in_output;
      logit -= static_cast<double>(params.presence_penalty);
    }
    logits[static_cast<size_t>(entry.token)] = static_cast<float>(logit);
  }
}

void filter_candidates(std::span<const float> logits, const SamplingParams& params, SamplerScratch& scratch) {
  std::vector<Candidate>& out = scratch.candidates;
  const float max_logit = row_max(logits);
  const double temperature = params.temperature, top_p = params.top_p;
  const auto k = static_cast<size_t>(std::max(params.top_k, 0));
  const bool cuts_by_k = k > 0 && k < logits.size();
  // Logit of a weight, for cuts that only save exponentials; where it matters the weight decides.
  const auto logit_of = [&](double weight) {
    return static_cast<double>(max_logit) + temperature * (std::log(weight) - 1e-6);
  };
  double mass = 0.0;  // of what steps 7 and 8 leave
  if (params.min_p > 0.0f) {
    gather(logits, logit_of(params.min_p), out);
    set_weights(out, max_logit, params.temperature);
    std::erase_if(out, [&](const Candidate& c) { return c.weight < static_cast<double>(params.min_p); });
    if (cuts_by_k) keep_top_k(out, k, scratch.heads);
  } else if (!cuts_by_k && top_p < 1.0 && std::isfinite(max_logit)) {
    mass = row_mass(logits, max_logit, params.temperature);
    const double floor = top_p_floor(top_p, mass, logits.size());
    gather(logits, floor > 0.0 ? logit_of(floor) : static_cast<double>(kLowest), out);
    set_weights(out, max_logit, params.temperature);
  } else {
    gather(logits, cuts_by_k ? kth_largest(logits, k, scratch.heads) : kLowest, out);
    set_weights(out, max_logit, params.temperature);
  }
  std::erase_if(out, [](const Candidate& c) { return !(c.weight > 0.0); });
  if (top_p >= 1.0 || out.empty()) return;
  if (mass == 0.0) {
    for (const Candidate& c : out) mass += c.weight;
  }
  keep_top_p(out, top_p, mass);
}

int32_t argmax(std::span<const float> logits) {
  const RowPeak peak = row_peak(logits);
  return peak.index == logits.size() ? 0 : static_cast<int32_t>(peak.index);
}

int32_t choose_token(std::span<const float> logits, const SamplingParams& params, const TokenCounts* counts,
                     int64_t position, SamplerScratch& scratch) {
  const std::span<const float> row = penalised_row(logits, params, counts, scratch);
  if (params.greedy()) return argmax(row);
  const auto key_position = static_cast<uint64_t>(position);
  int32_t pick = -1;
  if (params.has_filters()) {
    filter_candidates(row, params, scratch);
    pick = coupled_pick(scratch.candidates, params.seed, key_position);
  } else {
    pick = coupled_pick_row(row, params.temperature, params.seed, key_position);
  }
  return pick >= 0 ? pick : argmax(row);  // a row of -infinity or NaN only
}

void target_probabilities(std::span<const float> logits, const SamplingParams& params,
                          const TokenCounts* counts, SamplerScratch& scratch, std::span<float> out) {
  const std::span<const float> row = penalised_row(logits, params, counts, scratch);
  if (params.greedy()) return set_one_hot(out, argmax(row));
  if (!params.has_filters() && row_probabilities(row, params.temperature, out)) return;
  // With filters, or tokens at +infinity: the same survivors and weights the coupled pick sees.
  filter_candidates(row, params, scratch);
  if (scratch.candidates.empty()) return set_one_hot(out, argmax(row));
  double mass = 0.0;
  for (const Candidate& c : scratch.candidates) mass += c.weight;
  std::fill(out.begin(), out.end(), 0.0f);
  for (const Candidate& c : scratch.candidates) {
    out[static_cast<size_t>(c.id)] = static_cast<float>(c.weight / mass);
  }
}

}  // namespace dspark
