#pragma once
// Mixture of experts: a router chooses experts row by row, rows are grouped by expert, each chosen expert's
// weights are read once.
//
// Contract (batch invariance): the bits of a row depend on that row only. Ties of the router go to the lower
// expert id; a row's experts are summed in ascending order of their ids, the shared expert last.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "base/thread_pool.h"
#include "kernels/matmul.h"
#include "kernels/rows.h"
#include "models/config.h"
#include "models/float_buffer.h"

namespace dspark {

/// One expert: down(act(gate x) * up x).
struct ExpertWeights {
  PackedMatrix gate;  // [expert_dim, dim]
  PackedMatrix up;    // [expert_dim, dim]
  PackedMatrix down;  // [dim, expert_dim]
};

/// Weights of one layer's experts. What a family does not have stays empty.
struct MoeWeights {
  PackedMatrix router;                 // [n_experts, dim]
  std::vector<float> choice_bias;      // (n_experts) joins the scores for choosing
  std::vector<float> expert_scale;     // (n_experts) multiplies the weights: Gemma 4
  std::vector<int32_t> token_experts;  // (vocab_size, n_used) hash routing: experts of a token, DeepSeek V4
  std::vector<ExpertWeights> experts;  // (n_experts)
  ExpertWeights shared;                // every row's expert
  std::vector<float> router_norm;      // (dim) Gemma 4: before the router, 1 / sqrt(dim) folded in
  std::vector<float> in_norm;          // (dim) Gemma 4: before the experts
  std::vector<float> out_norm;         // (dim) Gemma 4: after the experts
  std::vector<float> dense_norm;       // (dim) Gemma 4: after the dense MLP
};

/// Rows of one call; all dense.
struct MoeArgs {
  const float* router_in = nullptr;  // (n_rows, dim)
  const float* x = nullptr;          // (n_rows, dim)
  const int32_t* tokens = nullptr;   // (n_rows) for hash routing
  float* out = nullptr;              // (n_rows, dim); may be x or router_in
  int64_t n_rows = 0;
  GateActivation activation = GateActivation::kSilu;
};

/// Chooses the experts of one row. `scores`: (n_experts) router logits, overwritten. `fixed` (or nullptr):
/// the experts are given, only their weights are asked for. Fills n_used ids in ascending order and weights.
void route_row(const MoeConfig& config, const MoeWeights& weights, float* scores, const int32_t* fixed,
               float* scratch, int32_t* ids, float* row_weights);

/// Scratch and computation of one model's mixtures. thread: one call at a time.
class MoeBlock {
 public:
  /// Makes room for `n_rows` rows. returns: false when memory is short.
  bool grow(const MoeConfig& config, int64_t dim, int64_t n_rows);
  /// out = sum of the chosen experts' results times their weights (+ the shared expert's).
  /// requires: grow for at least this many rows.
  void run(ThreadPool& pool, const MoeConfig& config, const MoeWeights& weights, const MoeArgs& args);

 private:
  void route(ThreadPool& pool, const MoeConfig& config, const MoeWeights& weights, const MoeArgs& args);
  void group_rows(const MoeConfig& config, int64_t n_rows);
  void run_experts(ThreadPool& pool, const MoeConfig& config, const MoeWeights& weights, const MoeArgs& args);
  void run_shared(ThreadPool& pool, const MoeConfig& config, const ExpertWeights& shared,
                  const MoeArgs& args);

  FloatBuffer scores_;               // (n_rows, 2 * n_experts): logits, scratch of the choice
  FloatBuffer weight_;               // (n_rows, n_used)
  FloatBuffer gathered_, pair_out_;  // (pairs, dim); a pair is a row with one of its experts
  FloatBuffer gate_, up_;            // (pairs, expert_dim)
  FloatBuffer shared_gate_, shared_up_, shared_out_;
  std::vector<int32_t> ids_;          // (n_rows, n_used)
  std::vector<int32_t> place_;        // (n_rows, n_used) the pair's row in gathered_
  std::vector<int32_t> first_place_;  // (n_experts + 1)
  std::vector<int32_t> used_;         // experts that have rows, ascending
  std::vector<int32_t> group_rows_;   // rows of each used expert
  std::vector<GroupJob> jobs_;
  Activations activations_;
};

/// Weights of experts gate <= clamp, |up| <= clamp, in place, over n floats each.
void clamp_gate_up(float* gate, float* up, int64_t n, float clamp);

}  // namespace dspark
