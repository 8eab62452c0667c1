#include "server/access.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cmath>
#include <cstring>

namespace dspark {
namespace {

constexpr size_t kMaxKeyBytes = 512;
// Clients that are remembered before those with a full bucket are forgotten.
constexpr size_t kManyClients = 4096;
// What HttpRequest::peer says of clients of a unix socket.
constexpr std::string_view kUnixPeer = "unix";

std::string_view trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

// An address as it is usually written, so that one client has one name; "" for what is none. IPv4 inside IPv6
// ("::ffff:127.0.0.1", as a server that listens on "::" sees it) counts as IPv4.
std::string usual_spelling(std::string_view address) {
  char text[INET6_ADDRSTRLEN] = {};
  if (address.size() >= sizeof(text)) return {};
  const std::string terminated(address);
  in6_addr v6{};
  in_addr v4{};
  bool is_v4 = inet_pton(AF_INET, terminated.c_str(), &v4) == 1;
  if (!is_v4 && inet_pton(AF_INET6, terminated.c_str(), &v6) != 1) return {};
  constexpr unsigned char kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  if (!is_v4 && std::memcmp(v6.s6_addr, kMapped, sizeof(kMapped)) == 0) {
    std::memcpy(&v4, v6.s6_addr + sizeof(kMapped), sizeof(v4));
    is_v4 = true;
  }
  const void* bytes = &v6;
  if (is_v4) bytes = &v4;
  inet_ntop(is_v4 ? AF_INET : AF_INET6, bytes, text, sizeof(text));
  return text;
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

Status TrustedProxies::add(std::string_view address) {
  std::string usual = address == kUnixPeer ? std::string(address) : usual_spelling(address);
  if (usual.empty()) {
    return invalid_argument("want an address without port or 'unix', found '" + std::string(address) + "'");
  }
  addresses_.push_back(std::move(usual));
  return ok_status();
}

std::string TrustedProxies::client_of(const std::string& peer, std::string_view forwarded_for) const {
  if (addresses_.empty() || forwarded_for.empty()) return peer;
  const std::string usual_peer = peer == kUnixPeer ? peer : usual_spelling(peer);
  if (std::find(addresses_.begin(), addresses_.end(), usual_peer) == addresses_.end()) return peer;
  // What stands before the last comma is what the client itself said.
  const size_t comma = forwarded_for.rfind(',');
  const std::string_view last =
      comma == std::string_view::npos ? forwarded_for : forwarded_for.substr(comma + 1);
  std::string client = usual_spelling(trimmed(last));
  return client.empty() ? peer : client;
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
