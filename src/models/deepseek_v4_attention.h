#pragma once
// Attention of DeepSeek V4: one shared key/value head, a window, compressed entries, sinks, grouped output.

#include <cstdint>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/kv_cache.h"
#include "kernels/matmul.h"
#include "models/config.h"
#include "models/deepseek_v4_state.h"
#include "models/deepseek_v4_weights.h"
#include "models/float_buffer.h"

namespace dspark {

/// Cosines and sines of the rotation at a position, pairs (2j, 2j + 1): rope_dim floats, first half cosines,
/// second half sines.
void v4_position_angles(const RopeTable& table, int32_t position, float* cos_sin);
/// The same of the rows of a pass, (n, rope_dim); all layers share them. Valid until other positions come.
const float* v4_row_angles(const RopeTable& table, std::span<const int32_t> positions);
/// Turns the last rope_dim of `width` channels; `sign` -1 turns back.
void v4_rotate(float* row, int32_t width, int32_t rope_dim, const float* cos_sin, float sign);

/// One row of queries over given keys. keys: (n_keys, head_dim), values are the same; scores: scratch of
/// n_keys + 1. out: (n_heads, head_dim), not yet turned back. Each head by itself, keys in the order given.
void v4_attend_row(const ModelConfig& config, const float* q, const float* sinks, const float* keys,
                   int32_t n_keys, int32_t first_head, int32_t end_head, float* scores, float* out);

/// Rows of one call.
struct V4AttentionArgs {
  const float* x = nullptr;  // (n_rows, dim) normed input of the block
  float* out = nullptr;      // (n_rows, dim)
  std::span<const int32_t> positions;
  std::span<const KvRun> runs;
  int layer = 0;  // of the cache
  V4Attention kind = V4Attention::kSliding;
};

/// Scratch and computation. thread: one call at a time.
class V4AttentionBlock {
 public:
  /// returns: false when memory is short.
  bool grow(const ModelConfig& config, int64_t n_rows, int n_threads);
  /// The whole attention block: writes the cache, attends, projects. returns: false when memory is short.
  bool run(ThreadPool& pool, const ModelConfig& config, const V4LayerWeights& weights, KvPool& cache,
           const V4AttentionArgs& args);

  // Parts, for drafters whose keys come from elsewhere.

  /// q_ = rotated queries of x at `positions`; q_latent_ stays for the indexer.
  void make_queries(ThreadPool& pool, const ModelConfig& config, const V4LayerWeights& weights,
                    const RopeTable& rope, const float* x, std::span<const int32_t> positions);
  /// key = rotated key rows of x at `positions`, (n_rows, head_dim).
  void make_keys(ThreadPool& pool, const ModelConfig& config, const V4LayerWeights& weights,
                 const RopeTable& rope, const float* x, std::span<const int32_t> positions, float* key);
  /// out = output projections of attended() after turning it back by the angles of the rows.
  void project_out(ThreadPool& pool, const ModelConfig& config, const V4LayerWeights& weights, int64_t n_rows,
                   const float* angles, float* out);
  float* queries() { return q_.data(); }
  float* attended() { return attended_.data(); }

 private:
  struct Call;
  void write_rows(ThreadPool& pool, const Call& call);
  void close_windows(ThreadPool& pool, const Call& call);
  void close_window(const Call& call, const KvRun& run, int32_t window, bool of_indexer,
                    float* scratch) const;
  void choose_entries(ThreadPool& pool, const Call& call);
  void attend(ThreadPool& pool, const Call& call);
  bool grow_threads(const Call& call, int n_threads);
  void multiply(ThreadPool& pool, const float* x, int64_t n_rows, std::span<const MatmulJob> jobs);

  FloatBuffer q_latent_, q_, key_, kv_, gate_, index_kv_, index_gate_, index_q_, index_weights_;
  FloatBuffer attended_, group_in_, group_out_, wide_;
  std::vector<FloatBuffer> thread_;          // scratch per thread
  std::vector<int32_t> chosen_;              // (n_rows, index_topk) entries of each row, ascending
  std::vector<int32_t> n_chosen_;            // (n_rows)
  std::vector<std::vector<int32_t>> order_;  // per thread: entries to choose from
  std::vector<int32_t> group_rows_;
  std::vector<GroupJob> jobs_;
  Activations activations_;
};

}  // namespace dspark
