#include "speculate/token_logprobs.h"

#include <cmath>
#include <limits>

#include "speculate/row_mass.h"
#include "speculate/row_max.h"

namespace dspark {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();

/// The largest logits, by insertion into a short list; ids ascend, so an equal one stays behind.
void keep_largest(std::span<const float> row, std::span<TokenLogprob> top) {
  size_t n = 0;
  for (size_t id = 0; id < row.size(); ++id) {
    const float logit = std::isnan(row[id]) ? kLowest : row[id];
    if (n == top.size() && !(logit > top[n - 1].logprob)) continue;
    size_t at = n < top.size() ? n++ : n - 1;
    for (; at > 0 && top[at - 1].logprob < logit; --at) top[at] = top[at - 1];
    top[at] = {static_cast<int32_t>(id), logit};
  }
}

}  // namespace

RowLogprob token_logprobs(std::span<const float> row, int32_t token, std::span<TokenLogprob> top) {
  if (!top.empty()) keep_largest(row, top);
  const float largest = row_max(row);
  if (!std::isfinite(largest)) {
    for (TokenLogprob& entry : top) entry.logprob = kLowest;
    return {kLowest, kLowest};
  }
  const double log_mass = std::log(row_mass(row, largest, 1.0f));
  const auto logprob_of = [&](float logit) {
    return static_cast<float>(static_cast<double>(logit) - static_cast<double>(largest) - log_mass);
  };
  for (TokenLogprob& entry : top) entry.logprob = logprob_of(entry.logprob);
  const float logit = row[static_cast<size_t>(token)];
  return {std::isnan(logit) ? kLowest : logprob_of(logit),
          static_cast<float>(static_cast<double>(largest) + log_mass)};
}

}  // namespace dspark
