#pragma once
// Multi-head latent attention (DeepSeek V3), with the up-projections absorbed into query and output.
//
// k of a head is [K_h latent | rope key], v is V_h latent. Because q . (K_h latent) = (K_h^T q) . latent, all
// heads attend to one shared row [latent | rope key] per position, and V_h is applied to what they bring
// back. The cache therefore holds one head of kv_rank + rope_dim numbers (stored as key and as value).

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "base/thread_pool.h"
#include "kernels/attention.h"
#include "kernels/matmul.h"
#include "models/config.h"
#include "models/float_buffer.h"
#include "models/weight_reader.h"

namespace dspark {

/// Weights of one layer. Rotary rows stand in half-split order.
struct MlaWeights {
  PackedMatrix q_a;               // [q_rank, dim]; empty when q_rank is 0
  std::vector<float> q_a_norm;    // (q_rank)
  PackedMatrix q_nope;            // [n_heads * nope_dim, q_rank or dim]
  PackedMatrix q_rope;            // [n_heads * rope_dim, q_rank or dim]
  PackedMatrix latent;            // [kv_rank, dim]
  PackedMatrix k_rope;            // [rope_dim, dim]
  std::vector<float> kv_norm;     // (kv_rank)
  std::vector<PackedMatrix> k_t;  // per head [kv_rank, nope_dim]: K_h transposed
  std::vector<PackedMatrix> v;    // per head [v_dim, kv_rank]
};

/// Asks `finder` for a layer's tensors; `prefix` stands before their names.
void expect_mla(TensorFinder& finder, const ModelConfig& config, bool gguf, const std::string& prefix);
/// errors: out_of_memory.
Status load_mla(WeightReader& reader, const ModelConfig& config, bool gguf, const std::string& prefix,
                MlaWeights& weights);

/// Rows of one call.
struct MlaArgs {
  const float* x = nullptr;  // (n_rows, dim) normed
  float* out = nullptr;      // (n_rows, n_heads * v_dim)
  std::span<const int32_t> positions;
  std::span<const KvRun> runs;
  int layer = 0;  // of the cache
};

/// Scratch and computation. thread: one call at a time.
class MlaBlock {
 public:
  /// returns: false when memory is short.
  bool grow(const ModelConfig& config, int64_t n_rows);
  /// See AttentionScratch::reserve.
  bool reserve_attention(int n_threads, const AttentionCapacity& capacity) {
    return scratch_.reserve(n_threads, capacity);
  }
  /// From normed rows to what the output product reads; writes the cache. requires: grow for these rows.
  void run(ThreadPool& pool, const ModelConfig& config, const MlaWeights& weights, KvPool& cache,
           const MlaArgs& args);

 private:
  void make_keys(ThreadPool& pool, const ModelConfig& config, const MlaWeights& weights, KvPool& cache,
                 const MlaArgs& args);
  void make_queries(ThreadPool& pool, const ModelConfig& config, const MlaWeights& weights,
                    const MlaArgs& args);
  void per_head(ThreadPool& pool, std::span<const PackedMatrix> weights, int64_t n_rows, const float* x);
  void multiply(ThreadPool& pool, const float* x, int64_t n_rows, std::span<const MatmulJob> jobs);

  FloatBuffer q_latent_, q_nope_, q_rope_, latent_, k_rope_, key_, query_, attended_;
  FloatBuffer head_in_, head_out_;   // (n_heads, n_rows, ..)
  std::vector<int32_t> group_rows_;  // n_rows for every head
  std::vector<GroupJob> jobs_;
  Activations activations_;
  AttentionScratch scratch_;
};

}  // namespace dspark
