#pragma once
// The transformer layer that learned drafters share, over rows of several sequences.

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

/// Scratch and steps of a layer. Rows are dense; a row's bits depend on its own input and its own sequence
/// only. The input of the projections and the residual stream are apart: Eagle3 attends over something wider
/// than it adds to.
class DraftLayerPass {
 public:
  /// config and pool must outlive the pass.
  DraftLayerPass(const DraftConfig& config, ThreadPool& pool) : config_(config), pool_(pool) {}

  /// Makes room for `n_rows` rows of finish. false when the memory could not be had.
  bool grow_finish(int64_t n_rows);
  /// Makes room for `n_rows` rows of everything here.
  bool grow(int64_t n_rows);
  /// Makes room for add_layer of that many rows that see up to `context_length` positions each. false when
  /// the memory could not be had.
  bool reserve_attention(int64_t n_rows, int64_t context_length);

  // Parts, for all kinds.
  /// Norms of keys and values in front of the rotation (Gemma 4 norms V, and makes it of K where it has no
  /// projection of its own). k, v: (rows, n_kv_heads * head_dim).
  void norm_keys(const DraftLayerWeights& w, float* k, float* v, int64_t n_rows);
  /// Everything behind attention: attended (rows, n_heads * head_dim), residual (rows, dim).
  void finish(const DraftLayerWeights& w, const float* attended, float* residual, int64_t n_rows);
  void norm(float* y, int64_t y_stride, const float* x, const std::vector<float>& weight, int64_t n_rows);
  /// One product of dense rows; y (rows, w.n_out).
  void multiply(const float* x, int64_t n_rows, const PackedMatrix& w, float* y);
  /// Several products of the same dense rows in one parallel phase.
  void multiply(const float* x, int64_t n_in, int64_t n_rows, std::span<const MatmulJob> jobs);

  // The whole layer of a drafter that has one, and is causal.
  /// Keys and values of x (rows, w.k.n_in), normed input of the projections, at their positions.
  /// requires: runs cover the rows; positions are theirs, one by one.
  void write_keys(const DraftLayerWeights& w, KvPool& cache, std::span<const KvRun> runs,
                  std::span<const int32_t> positions, const float* x);

  /// The rows' attention over positions up to their own, and everything behind it, added to
  /// residual (rows, dim). requires: write_keys of every position the rows see.
  void add_layer(const DraftLayerWeights& w, const KvPool& cache, std::span<const KvRun> runs,
                 std::span<const int32_t> positions, const float* x, float* residual);

 private:
  void add_branch(const std::vector<float>& post_norm, float* residual, int64_t n_rows);
  int64_t q_dim() const { return int64_t{config_.n_heads} * config_.head_dim; }
  int64_t kv_dim() const { return int64_t{config_.n_kv_heads} * config_.head_dim; }

  const DraftConfig& config_;
  ThreadPool& pool_;
  FloatBuffer q_, k_, v_, attended_, branch_, gate_, up_;
  Activations activations_;
  AttentionScratch scratch_;
};

}  // namespace dspark
