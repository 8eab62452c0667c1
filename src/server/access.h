#pragma once
// Who may ask, who is asking, and how often: API keys, clients behind proxies, rate limits.

#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace dspark {

/// Keys that clients send as "Authorization: Bearer KEY" or "x-api-key: KEY". thread: const, any.
class ApiKeys {
 public:
  /// From the lines of a file: empty ones and those that start with # do not count. name: for messages.
  /// errors: invalid_argument naming the line (a key with blanks or longer than 512 bytes, no key at all).
  static Result<ApiKeys> parse(std::string_view text, const std::string& name);

  void add(std::string key) { keys_.push_back(std::move(key)); }
  /// Nobody needs a key.
  bool empty() const { return keys_.empty(); }
  /// The number of the key, or -1. Takes the same time whatever the candidate has in common with a key: the
  /// time depends on the candidate's length and the number of keys alone.
  int find(std::string_view candidate) const;

 private:
  std::vector<std::string> keys_;
};

/// The key in the headers' values, "" when there is none.
std::string_view key_of(std::string_view authorization, std::string_view x_api_key);

/// Proxies that are believed when they say for whom they ask. thread: const, any.
class TrustedProxies {
 public:
  /// address: a peer's, IPv4 or IPv6 without port, or "unix": whoever connects to the unix socket. errors:
  /// invalid_argument: neither.
  Status add(std::string_view address);
  /// Whose turn and bucket a request counts for when there are no keys. peer: address of the other end of the
  /// connection, or "unix". forwarded_for: value of the last X-Forwarded-For header, "" when there is none.
  /// returns: its last entry, which the proxy itself wrote, in the usual spelling, when the peer is a trusted
  /// proxy and the entry an address without port; else `peer`.
  std::string client_of(const std::string& peer, std::string_view forwarded_for) const;

 private:
  std::vector<std::string> addresses_;  // in the usual spelling
};

/// Lets every client start `per_minute` requests a minute, as many at once (token buckets). thread: any.
class RateLimiter {
 public:
  using Clock = std::chrono::steady_clock;
  /// per_minute: 0: no limit.
  explicit RateLimiter(double per_minute) : per_minute_(per_minute) {}

  /// Takes one. returns: 0, or the seconds (at least 1) after which the client may ask again.
  int take(const std::string& client, Clock::time_point now = Clock::now());
  size_t n_clients() const;

 private:
  struct Bucket {
    double level = 0.0;
    Clock::time_point filled;
  };
  void forget_full(Clock::time_point now);

  const double per_minute_;
  mutable std::mutex mutex_;
  std::map<std::string, Bucket> buckets_;
};

}  // namespace dspark
