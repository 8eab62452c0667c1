#pragma once
// When requests come, if nobody waits for answers before asking again (open loop).

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace dspark {

/// Poisson: independent arrivals. Bursty: groups that arrive at once, the groups Poisson, their sizes
/// geometric with a given mean; the rate of requests is the same.
struct ArrivalProcess {
  enum class Kind : uint8_t { kClosed, kPoisson, kBursty };
  Kind kind = Kind::kClosed;  // kClosed: clients that ask again when they were answered; no arrival times
  double mean_burst = 1.0;    // kBursty: requests of a group in the mean, at least 1

  /// "closed", "poisson", "bursty" (groups of 8) or "bursty:B". errors: invalid_argument.
  static Result<ArrivalProcess> parse(std::string_view text);
  std::string to_string() const;
};

/// Seconds of the first n arrivals, ascending from the first group at 0: a pure function of its arguments.
/// `rate`: requests per second. requires: not closed, rate > 0.
std::vector<double> arrival_times(const ArrivalProcess& process, double rate, int64_t n, uint64_t seed);

}  // namespace dspark
