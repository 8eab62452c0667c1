#include "speculate/sampling_params.h"

#include <algorithm>
#include <cmath>
#include <string>

namespace dspark {
namespace {

Status check_range(const char* field, float value, double low, double high) {
  if (std::isfinite(value) && value >= low && value <= high) return ok_status();
  return invalid_argument(std::string(field) + ": want a number from " + std::to_string(low) + " to " +
                          std::to_string(high) + ", found " + std::to_string(value));
}

Status check_bias(const std::vector<std::pair<int32_t, float>>& bias, int32_t vocab_size) {
  std::vector<int32_t> ids;
  ids.reserve(bias.size());
  for (const auto& [id, value] : bias) {
    if (id < 0 || id >= vocab_size) {
      return invalid_argument("logit_bias: want token ids from 0 to " + std::to_string(vocab_size - 1) +
                              ", found " + std::to_string(id));
    }
    if (!std::isfinite(value)) {
      return invalid_argument("logit_bias: want a finite number for token " + std::to_string(id) +
                              ", found " + std::to_string(value));
    }
    ids.push_back(id);
  }
  std::sort(ids.begin(), ids.end());
  if (const auto twice = std::adjacent_find(ids.begin(), ids.end()); twice != ids.end()) {
    return invalid_argument("logit_bias: want each token id once, found " + std::to_string(*twice) +
                            " twice");
  }
  return ok_status();
}

}  // namespace

Status SamplingParams::validate(int32_t vocab_size) const {
  DSPARK_RETURN_IF_ERROR(check_range("temperature", temperature, 0.0, 1000.0));
  if (top_k < -1) {
    return invalid_argument("top_k: want -1 or 0 (off) or a positive count, found " + std::to_string(top_k));
  }
  DSPARK_RETURN_IF_ERROR(check_range("top_p", top_p, 0.0, 1.0));
  DSPARK_RETURN_IF_ERROR(check_range("min_p", min_p, 0.0, 1.0));
  DSPARK_RETURN_IF_ERROR(check_range("repetition_penalty", repetition_penalty, 0.001, 1000.0));
  DSPARK_RETURN_IF_ERROR(check_range("presence_penalty", presence_penalty, -100.0, 100.0));
  DSPARK_RETURN_IF_ERROR(check_range("frequency_penalty", frequency_penalty, -100.0, 100.0));
  return check_bias(logit_bias, vocab_size);
}

}  // namespace dspark
