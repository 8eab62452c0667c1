#include "server/access.h"

#include <algorithm>
#include <cmath>

namespace dspark {
namespace {

constexpr size_t kMaxKeyBytes = 512;
// Clients that are remembered before those with a full bucket are forgotten.
constexpr size_t kManyClients = 4096;

std::string_view trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

}  // namespace

Result<ApiKeys> ApiKeys::parse(std::string_view text, const std::string& name) {
  ApiKeys keys;
  int line_number = 0;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    ++line_number;
    const std::string_view key = trimmed(line);
    if (key.empty() || key.front() == '#') continue;
    if (key.size() > kMaxKeyBytes || key.find_first_of(" \t") != std::string_view::npos) {
      return invalid_argument(name + " line " + std::to_string(line_number) +
                              ": want one key without blanks, at most 512 bytes");
    }
    keys.add(std::string(key));
  }
  if (keys.empty()) return invalid_argument(name + ": holds no key");
  return keys;
}

int ApiKeys::find(std::string_view candidate) const {
  int found = -1;
  for (size_t k = 0; k < keys_.size(); ++k) {
    const std::string& key = keys_[k];
    // Every byte of the candidate is looked at, for every key.
    volatile unsigned difference = key.size() == candidate.size() ? 0u : 1u;
    for (size_t i = 0; i < candidate.size(); ++i) {
      const auto a = static_cast<unsigned char>(candidate[i]);
      const auto b = static_cast<unsigned char>(key[i % key.size()]);
      difference = difference | static_cast<unsigned>(a ^ b);
    }
    if (difference == 0u) found = static_cast<int>(k);
  }
  return found;
}

std::string_view key_of(std::string_view authorization, std::string_view x_api_key) {
  // Names of schemes know no case (RFC 9110).
  constexpr std::string_view kBearer = "bearer ";
  bool bearer = authorization.size() > kBearer.size();
  for (size_t i = 0; bearer && i < kBearer.size(); ++i)
    bearer = (authorization[i] | 0x20) == (kBearer[i] | 0x20);
  if (bearer) return trimmed(authorization.substr(kBearer.size()));
  return trimmed(x_api_key);
}

void RateLimiter::forget_full(Clock::time_point now) {
  std::erase_if(buckets_, [&](const auto& entry) {
    const double age_s = std::chrono::duration<double>(now - entry.second.filled).count();
    return entry.second.level + age_s * per_minute_ / 60.0 >= per_minute_;
  });
}

int RateLimiter::take(const std::string& client, Clock::time_point now) {
  if (per_minute_ <= 0.0) return 0;
  const std::lock_guard lock(mutex_);
  if (buckets_.size() >= kManyClients) forget_full(now);
  const double most = std::max(1.0, per_minute_);
  Bucket& bucket = buckets_.try_emplace(client, Bucket{most, now}).first->second;
  const double age_s = std::chrono::duration<double>(now - bucket.filled).count();
  bucket.level = std::min(most, bucket.level + age_s * per_minute_ / 60.0);
  bucket.filled = now;
  if (bucket.level < 1.0) {
    return std::max(1, static_cast<int>(std::ceil((1.0 - bucket.level) * 60.0 / per_minute_)));
  }
  bucket.level -= 1.0;
  return 0;
}

size_t RateLimiter::n_clients() const {
  const std::lock_guard lock(mutex_);
  return buckets_.size();
}

}  // namespace dspark
