#pragma once
// Inverse frequencies of the rotary embedding under the scaling rules that released models use.

#include <cstdint>
#include <optional>
#include <string>

#include "base/status.h"
#include "kernels/rows.h"

namespace dspark {

/// kNone: theta^(-2j/d). kLinear: divided by factor. kLlama3: low frequencies divided, high ones kept, a ramp
/// between. kYarn: the same idea with the ramp in rotations per original context, and larger scores.
/// kProportional (Gemma 4): only the first pairs rotate, divided by factor.
enum class RopeScaling : uint8_t { kNone, kLinear, kLlama3, kYarn, kProportional };

/// One rotary embedding as a config describes it. The field names are those of a Hugging Face config.json.
struct RopeParams {
  double theta = 10000.0;
  RopeScaling scaling = RopeScaling::kNone;
  double factor = 1.0;
  double rotated_share = 1.0;     // proportional: partial_rotary_factor, the share of pairs that rotate
  double original_context = 0.0;  // original_max_position_embeddings; llama3 and yarn
  double low_freq_factor = 1.0;   // llama3
  double high_freq_factor = 4.0;  // llama3
  double beta_fast = 32.0;        // yarn
  double beta_slow = 1.0;         // yarn
  bool truncate = true;           // yarn: the ramp starts and ends at whole pairs
  std::optional<double> mscale;
  std::optional<double> mscale_all_dim;
  std::optional<double> attention_factor;  // yarn: replaces the default that follows from factor
};

/// "default", "linear", "llama3", "yarn", "proportional" (and GGUF's "none"); nothing for other names.
std::optional<RopeScaling> rope_scaling_from_name(const std::string& name);

/// Checks that the numbers make sense (positive, finite, ramp ends in order). `where` starts the message.
Status check_rope_params(const RopeParams& params, const std::string& where);

/// requires: check_rope_params passed; head_dim even. Computed in double, rounded once.
RopeTable make_rope_table(const RopeParams& params, int32_t head_dim);

}  // namespace dspark
