#pragma once
// The transformer layer of a causal drafter, over rows of several sequences: keys into the cache, attention
// of the rows that are asked for, the rest of the layer.

#include <cstdint>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "draft/draft_config.h"
#include "draft/draft_weights.h"
#include "draft/float_buffer.h"
#include "kernels/attention.h"
#include "kernels/kv_cache.h"
#include "kernels/matmul.h"

namespace dspark {

/// Scratch and steps of one layer. Rows are dense; a row's bits depend on its own input and its own sequence
/// only. The input of the projections and the residual stream are apart: Eagle3 attends over something wider
/// than it adds to.
class DraftLayerPass {
 public:
  /// config and pool must outlive the pass.
  DraftLayerPass(const DraftConfig& config, ThreadPool& pool) : config_(config), pool_(pool) {}

  /// Makes room for `n_rows` rows. false when the memory could not be had.
  bool grow(int64_t n_rows);

  /// Keys and values of x (rows, w.k.n_in), normed input of the projections, at their positions.
  /// requires: runs cover the rows; positions are theirs, one by one.
  void write_keys(const DraftLayerWeights& w, KvPool& cache, std::span<const KvRun> runs,
                  std::span<const int32_t> positions, const float* x);

  /// The rows' attention over positions up to their own, and everything behind it, added to
  /// residual (rows, dim). requires: write_keys of every position the rows see.
  void add_layer(const DraftLayerWeights& w, const KvPool& cache, std::span<const KvRun> runs,
                 std::span<const int32_t> positions, const float* x, float* residual);

  void norm(float* y, int64_t y_stride, const float* x, const std::vector<float>& weight, int64_t n_rows);
  /// One product of dense rows; y (rows, w.n_out).
  void multiply(const float* x, int64_t n_rows, const PackedMatrix& w, float* y);

 private:
  void add_branch(const std::vector<float>& post_norm, float* residual, int64_t n_rows);
  void multiply(const float* x, int64_t n_in, int64_t n_rows, std::span<const MatmulJob> jobs);
  int64_t q_dim() const { return int64_t{config_.n_heads} * config_.head_dim; }
  int64_t kv_dim() const { return int64_t{config_.n_kv_heads} * config_.head_dim; }

  const DraftConfig& config_;
  ThreadPool& pool_;
  FloatBuffer q_, k_, v_, attended_, branch_, gate_, up_;
  Activations activations_;
  AttentionScratch scratch_;
};

}  // namespace dspark
