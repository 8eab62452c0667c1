#pragma once
// Experts in a file: their names per family and format, and how they are stored (one tensor per expert, or
// all experts of a layer stacked).

#include <cstdint>
#include <string>

#include "base/status.h"
#include "models/config.h"
#include "models/moe.h"
#include "models/weight_reader.h"

namespace dspark {

/// Names of one layer's experts; an empty name: the family has no such tensor.
struct MoeNames {
  std::string router;         // [n_experts, dim]
  std::string router_scale;   // (dim)
  std::string choice_bias;    // (n_experts)
  std::string expert_scale;   // (n_experts)
  std::string token_experts;  // (vocab_size, n_used) whole numbers
  // Experts. Stacked: [n_experts, out, in]. Else one tensor per expert: expert_prefix + id + "." + gate ...
  bool stacked = false;
  std::string expert_prefix;
  std::string gate, up, down;
  std::string gate_up;  // [n_experts, 2 * expert_dim, dim], gate first, instead of gate and up
  std::string shared_gate, shared_up, shared_down;
  std::string in_norm, out_norm, dense_norm;  // (dim)
};

/// `arch`: as in ModelConfig. `prefix`: what stands before the names of this layer, "blk.3." for example.
MoeNames moe_names(const std::string& arch, const MoeConfig& config, bool gguf, const std::string& prefix);

/// Asks `finder` for all tensors of a layer's experts. vocab_size: rows of a hash table.
void expect_moe(TensorFinder& finder, const MoeNames& names, const MoeConfig& config, int64_t dim,
                int64_t vocab_size);

/// errors: out_of_memory, invalid_argument (a hash table that names an expert that does not exist).
Status load_moe(WeightReader& reader, const MoeNames& names, const MoeConfig& config, int64_t dim,
                MoeWeights& weights);

}  // namespace dspark
