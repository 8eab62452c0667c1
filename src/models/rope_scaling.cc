#include "models/rope_scaling.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace dspark {
namespace {

constexpr double kTwoPi = 2.0 * std::numbers::pi;

// llama3: by wavelength. Short waves keep their frequency, waves longer than the original context are
// stretched by `factor`, and between the two the inverse frequencies are mixed.
double llama3_frequency(const RopeParams& p, double inv_freq) {
  const double wavelength = kTwoPi / inv_freq;
  if (wavelength < p.original_context / p.high_freq_factor) return inv_freq;
  if (wavelength > p.original_context / p.low_freq_factor) return inv_freq / p.factor;
  const double mix =
      (p.original_context / wavelength - p.low_freq_factor) / (p.high_freq_factor - p.low_freq_factor);
  return inv_freq * ((1.0 - mix) / p.factor + mix);
}

// yarn: the (fractional) pair that turns `rotations` times within the original context.
double yarn_pair(const RopeParams& p, double head_dim, double rotations) {
  return head_dim * std::log(p.original_context / (kTwoPi * rotations)) / (2.0 * std::log(p.theta));
}

struct YarnRamp {
  double low;
  double high;
};

YarnRamp yarn_ramp(const RopeParams& p, int32_t head_dim) {
  double low = yarn_pair(p, head_dim, p.beta_fast);
  double high = yarn_pair(p, head_dim, p.beta_slow);
  if (p.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(head_dim - 1));
  if (low == high) high += 0.001;
  return {low, high};
}

double yarn_mscale(double factor, double mscale) {
  return factor <= 1.0 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

double yarn_attention_factor(const RopeParams& p) {
  if (p.attention_factor) return *p.attention_factor;
  if (p.mscale && p.mscale_all_dim && *p.mscale != 0.0 && *p.mscale_all_dim != 0.0) {
    return yarn_mscale(p.factor, *p.mscale) / yarn_mscale(p.factor, *p.mscale_all_dim);
  }
  return yarn_mscale(p.factor, 1.0);
}

bool positive(double value) {
  return std::isfinite(value) && value > 0.0;
}

}  // namespace

std::optional<RopeScaling> rope_scaling_from_name(const std::string& name) {
  if (name == "default" || name == "none") return RopeScaling::kNone;
  if (name == "linear") return RopeScaling::kLinear;
  if (name == "llama3") return RopeScaling::kLlama3;
  if (name == "yarn") return RopeScaling::kYarn;
  if (name == "proportional") return RopeScaling::kProportional;
  return std::nullopt;
}

Status check_rope_params(const RopeParams& p, const std::string& where) {
  const auto bad = [&](const char* key, double value, const char* expected) {
    return invalid_argument(fmt::format("{}: rope {} is {}, expected {}", where, key, value, expected));
  };
  if (!positive(p.theta)) return bad("base", p.theta, "a positive number");
  if (p.scaling == RopeScaling::kNone) return ok_status();
  if (!positive(p.factor)) return bad("scaling factor", p.factor, "a positive number");
  if (p.scaling == RopeScaling::kLinear) return ok_status();
  if (p.scaling == RopeScaling::kProportional) {
    if (positive(p.rotated_share) && p.rotated_share <= 1.0) return ok_status();
    return bad("partial_rotary_factor", p.rotated_share, "more than 0 and at most 1");
  }
  if (!positive(p.original_context)) {
    return bad("original_max_position_embeddings", p.original_context, "a positive number");
  }
  if (p.scaling == RopeScaling::kLlama3) {
    if (!positive(p.low_freq_factor)) return bad("low_freq_factor", p.low_freq_factor, "a positive number");
    if (!std::isfinite(p.high_freq_factor) || p.high_freq_factor <= p.low_freq_factor) {
      return bad("high_freq_factor", p.high_freq_factor, "more than low_freq_factor");
    }
    return ok_status();
  }
  if (p.theta <= 1.0) return bad("base", p.theta, "more than 1 for yarn");
  if (!positive(p.beta_slow)) return bad("beta_slow", p.beta_slow, "a positive number");
  if (!positive(p.beta_fast)) return bad("beta_fast", p.beta_fast, "a positive number");
  if (!positive(yarn_attention_factor(p))) {
    return bad("attention_factor", yarn_attention_factor(p), "a positive number");
  }
  return ok_status();
}

RopeTable make_rope_table(const RopeParams& p, int32_t head_dim) {
  RopeTable table;
  table.inv_freq.resize(static_cast<size_t>(head_dim / 2));
  const double n_rotated = std::floor(p.rotated_share * head_dim / 2.0);
  const YarnRamp ramp = p.scaling == RopeScaling::kYarn ? yarn_ramp(p, head_dim) : YarnRamp{0.0, 1.0};
  for (size_t j = 0; j < table.inv_freq.size(); ++j) {
    const double pair = static_cast<double>(j);
    double inv_freq = std::pow(p.theta, -2.0 * pair / head_dim);
    switch (p.scaling) {
      case RopeScaling::kNone:
        break;
      case RopeScaling::kLinear:
        inv_freq /= p.factor;
        break;
      case RopeScaling::kProportional:
        inv_freq = pair < n_rotated ? inv_freq / p.factor : 0.0;
        break;
      case RopeScaling::kLlama3:
        inv_freq = llama3_frequency(p, inv_freq);
        break;
      case RopeScaling::kYarn: {
        const double stretched = std::clamp((pair - ramp.low) / (ramp.high - ramp.low), 0.0, 1.0);
        inv_freq = inv_freq / p.factor * stretched + inv_freq * (1.0 - stretched);
        break;
      }
    }
    table.inv_freq[j] = static_cast<float>(inv_freq);
  }
  if (p.scaling == RopeScaling::kYarn) table.attention_factor = static_cast<float>(yarn_attention_factor(p));
  return table;
}

}  // namespace dspark
