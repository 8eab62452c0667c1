#include "cli/train/progress.h"

#include <fmt/format.h>

#include <algorithm>

namespace dspark::cli {
namespace {

constexpr double kKeep = 0.95;  // of a running mean per step

}  // namespace

void TrainProgress::add(const TrainRecord& record) {
  if (n_++ == 0) first_ = mean_ = record;
  last_ = record;
  const auto mix = [](double& mean, double value) { mean = kKeep * mean + (1 - kKeep) * value; };
  mix(mean_.loss, record.loss);
  mix(mean_.ce, record.ce);
  mix(mean_.soft_ce, record.soft_ce);
  mix(mean_.l1, record.l1);
  mix(mean_.confidence, record.confidence);
  mix(mean_.tau, record.tau);
  const size_t n_slots = std::min(mean_.accept_rate.size(), record.accept_rate.size());
  for (size_t i = 0; i < n_slots; ++i) mix(mean_.accept_rate[i], record.accept_rate[i]);
}

std::string TrainProgress::line() const {
  const double seconds = last_.elapsed_s - first_.elapsed_s;
  const double rate = seconds > 0 ? static_cast<double>(last_.anchors - first_.anchors) / seconds : 0.0;
  const auto minutes = static_cast<int64_t>(seconds_left() / 60);
  return fmt::format(
      "step {}  {:.0f} anchors/s  epoch {:.2f}  lr {:.1e}  loss {:.3f} (ce {:.2f} soft-ce {:.2f} l1 {:.3f} "
      "conf {:.3f})  tau {:.3f}  accept {:.2f}  norm {:.2f}  left {}:{:02d} h",
      last_.step, rate, last_.epoch, last_.learning_rate, mean_.loss, mean_.ce, mean_.soft_ce, mean_.l1,
      mean_.confidence, mean_.tau, fmt::join(mean_.accept_rate, " "), last_.gradient_norm, minutes / 60,
      minutes % 60);
}

double TrainProgress::seconds_left() const {
  if (steps_ <= 0) return std::max(0.0, minutes_ * 60 - last_.elapsed_s);
  const auto done = static_cast<double>(last_.step - first_.step);
  const double per_step = done > 0 ? (last_.elapsed_s - first_.elapsed_s) / done : 0.0;
  return per_step * static_cast<double>(steps_ - last_.step);
}

}  // namespace dspark::cli
