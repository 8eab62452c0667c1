#pragma once
// Log-probabilities of tokens in the model's own distribution (temperature 1, nothing applied to the row).

#include <cstdint>
#include <span>

namespace dspark {

/// One token and the natural logarithm of its probability.
struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0.0f;
};

/// The log-probability of a token, and the log-sum-exp of its row.
struct RowLogprob {
  float logprob = 0.0f;
  float log_sum_exp = 0.0f;
};

/// The log-probability of `token` in softmax(row), and of the row's likeliest tokens into `top`, likeliest
/// first, lower ids first among equals. Every bit follows from the row alone. -infinity in a row without a
/// finite maximum. requires: token inside the row, top.size() <= row.size().
RowLogprob token_logprobs(std::span<const float> row, int32_t token, std::span<TokenLogprob> top);

}  // namespace dspark
