#include "load/arrivals.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>

#include "base/philox.h"

namespace dspark {
namespace {

constexpr double kDefaultBurst = 8.0;
constexpr double kLargestBurst = 1e6;

// Streams of numbers of one seed.
enum Stream : uint32_t { kGap = 0, kGroupSize = 1 };

double uniform(uint64_t seed, int64_t i, Stream stream) {
  return uniform_of_word(noise_word(seed, static_cast<uint64_t>(i), stream));
}

}  // namespace

Result<ArrivalProcess> ArrivalProcess::parse(std::string_view text) {
  ArrivalProcess process;
  if (text == "closed") return process;
  if (text == "poisson") {
    process.kind = Kind::kPoisson;
    return process;
  }
  process.kind = Kind::kBursty;
  process.mean_burst = kDefaultBurst;
  if (text == "bursty") return process;
  constexpr std::string_view kPrefix = "bursty:";
  if (text.starts_with(kPrefix)) {
    const std::string_view number = text.substr(kPrefix.size());
    const auto [end, error] =
        std::from_chars(number.data(), number.data() + number.size(), process.mean_burst);
    if (error == std::errc() && end == number.data() + number.size() && process.mean_burst >= 1.0 &&
        process.mean_burst <= kLargestBurst) {
      return process;
    }
  }
  return invalid_argument("want closed, poisson, bursty or bursty:B with a mean of B >= 1 requests, found '" +
                          std::string(text) + "'");
}

std::string ArrivalProcess::to_string() const {
  if (kind == Kind::kClosed) return "closed";
  if (kind == Kind::kPoisson) return "poisson";
  return fmt::format("bursty:{:g}", mean_burst);
}

std::vector<double> arrival_times(const ArrivalProcess& process, double rate, int64_t n, uint64_t seed) {
  std::vector<double> times;
  const double mean = process.kind == ArrivalProcess::Kind::kBursty ? process.mean_burst : 1.0;
  double now = 0.0;
  for (int64_t group = 0; static_cast<int64_t>(times.size()) < n; ++group) {
    if (group > 0) now += -std::log(uniform(seed, group, kGap)) * mean / rate;
    // Geometric on 1, 2, ... with that mean: P(size > s) = (1 - 1 / mean)^s.
    int64_t size = 1;
    if (mean > 1.0) {
      size += static_cast<int64_t>(std::log(uniform(seed, group, kGroupSize)) / std::log(1.0 - 1.0 / mean));
    }
    for (; size > 0 && static_cast<int64_t>(times.size()) < n; --size) times.push_back(now);
  }
  return times;
}

}  // namespace dspark
