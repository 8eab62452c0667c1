#include "speculate/scheduler.h"

#include <algorithm>
#include <charconv>
#include <numeric>

namespace dspark {

Result<VerifyPolicy> VerifyPolicy::parse(std::string_view text) {
  if (text == "off") return VerifyPolicy::off();
  const std::string_view name = text.substr(0, text.find(':'));
  if (name == "fixed") {
    const std::string_view number = text.substr(std::min(text.size(), name.size() + 1));
    int32_t k = -1;
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), k);
    if (error != std::errc() || end != number.data() + number.size() || k < 0 || k > kMaxDraftTokens) {
      return invalid_argument("verify policy: want fixed:K with K from 0 to " +
                              std::to_string(kMaxDraftTokens) + ", found '" + std::string(text) + "'");
    }
    return VerifyPolicy::fixed(k);
  }
  if (name == "threshold" || name == "causal" || name == "adaptive") {
    return unsupported("verify policy: '" + std::string(name) +
                       "' is not supported yet; want off or fixed:K");
  }
  return invalid_argument("verify policy: want off or fixed:K, found '" + std::string(text) + "'");
}

std::string VerifyPolicy::to_string() const {
  return kind == Kind::kOff ? "off" : "fixed:" + std::to_string(k);
}

int32_t verify_length(const VerifyPolicy& policy, int32_t n_drafted) {
  return std::clamp(policy.draft_tokens(), 0, std::max(n_drafted, 0));
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
