#include "speculate/scheduler.h"

#include <algorithm>
#include <charconv>
#include <numeric>

namespace dspark {

namespace {

constexpr std::string_view kPolicies = "off, fixed:K, threshold:T, causal or adaptive";

/// The whole of `text` as a number.
template <typename Number>
bool parse_number(std::string_view text, Number& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

/// Shortest text that reads back as the same number.
std::string number_text(float value) {
  char text[32];
  const auto [end, error] = std::to_chars(text, text + sizeof(text), value);
  return error == std::errc() ? std::string(text, end) : std::string("?");
}

}  // namespace

Result<VerifyPolicy> VerifyPolicy::parse(std::string_view text) {
  if (text == "off") return VerifyPolicy::off();
  const std::string_view name = text.substr(0, text.find(':'));
  const std::string_view number = text.substr(std::min(text.size(), name.size() + 1));
  const std::string found = ", found '" + std::string(text) + "'";
  if (name == "fixed") {
    VerifyPolicy policy = fixed(-1);
    if (parse_number(number, policy.k) && policy.validate().ok()) return policy;
    return invalid_argument("verify policy: want fixed:K with K from 0 to " +
                            std::to_string(kMaxDraftTokens) + found);
  }
  if (name == "threshold") {
    VerifyPolicy policy = from_threshold(-1.0f);
    if (parse_number(number, policy.threshold) && policy.validate().ok()) return policy;
    return invalid_argument("verify policy: want threshold:T with T from 0 to 1" + found);
  }
  if (text == "causal") return causal();
  if (text == "adaptive") return adaptive();
  return invalid_argument("verify policy: want " + std::string(kPolicies) + found);
}

Status VerifyPolicy::validate() const {
  if (kind == Kind::kFixed && (k < 0 || k > kMaxDraftTokens)) {
    return invalid_argument("verify policy: k: want 0 to " + std::to_string(kMaxDraftTokens) + ", found " +
                            std::to_string(k));
  }
  if (kind == Kind::kThreshold && !(threshold >= 0.0f && threshold <= 1.0f)) {
    return invalid_argument("verify policy: threshold: want 0 to 1, found " + number_text(threshold));
  }
  return ok_status();
}

std::string VerifyPolicy::to_string() const {
  switch (kind) {
    case Kind::kOff:
      return "off";
    case Kind::kFixed:
      return "fixed:" + std::to_string(k);
    case Kind::kThreshold:
      return "threshold:" + number_text(threshold);
    case Kind::kCausal:
      return "causal";
    case Kind::kAdaptive:
      return "adaptive";
  }
  return "?";
}

int32_t threshold_length(std::span<const float> confidence, float threshold) {
  const auto below =
      std::find_if(confidence.begin(), confidence.end(), [=](float c) { return c < threshold; });
  return static_cast<int32_t>(below - confidence.begin());
}

int32_t verify_length(const VerifyPolicy& policy, int32_t n_drafted, std::span<const float> confidence) {
  int32_t length = std::clamp(policy.draft_tokens(), 0, std::max(n_drafted, 0));
  if (policy.kind == VerifyPolicy::Kind::kThreshold && !confidence.empty()) {
    length = std::min(length, threshold_length(confidence, policy.threshold));
  }
  return length;
}

void cap_verify_rows(std::span<int32_t> lengths, int64_t max_rows) {
  int64_t rows = std::accumulate(lengths.begin(), lengths.end(), static_cast<int64_t>(lengths.size()));
  while (rows > max_rows) {
    const int32_t longest = *std::max_element(lengths.begin(), lengths.end());
    if (longest == 0) return;
    for (size_t i = lengths.size(); i-- > 0 && rows > max_rows;) {
      if (lengths[i] == longest) {
        --lengths[i];
        --rows;
      }
    }
  }
}

}  // namespace dspark
