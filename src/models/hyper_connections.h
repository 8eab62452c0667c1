#pragma once
// Hyper-connections of DeepSeek V4: N residual streams, mixed by matrices that depend on the streams
// themselves.

#include <cstdint>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/matmul.h"
#include "models/float_buffer.h"

namespace dspark {

/// Weights of one mixing: of a block (fn has (2 + N) N rows, scale 3) or of the head (fn has N rows, scale
/// 1).
struct HyperWeights {
  PackedMatrix fn;           // [.., N * dim]
  std::vector<float> base;   // one per row of fn
  std::vector<float> scale;  // (3) or (1)
};

/// Sizes and constants.
struct HyperShape {
  int64_t dim = 0;
  int32_t n_streams = 0;
  int32_t sinkhorn_iters = 0;
  float hc_eps = 0.0f;
  float norm_eps = 0.0f;
};

/// Scratch of the mixing of one batch. Streams are (n_rows, N, dim), dense.
class HyperMixer {
 public:
  /// returns: false when memory is short.
  bool grow(const HyperShape& shape, int64_t n_rows);
  /// u[r] = sum over streams of pre[n] * X[n]; keeps the row's post and C for leave().
  void enter(ThreadPool& pool, const HyperShape& shape, const HyperWeights& weights, const float* streams,
             int64_t n_rows, float* u);
  /// X[k] = post[k] * y + sum over j of C[j, k] * X[j], with what enter() computed for these rows.
  void leave(ThreadPool& pool, const HyperShape& shape, const float* y, int64_t n_rows, float* streams);
  /// The head: h[r] = sum of a[n] * X[n].
  void collapse(ThreadPool& pool, const HyperShape& shape, const HyperWeights& weights, const float* streams,
                int64_t n_rows, float* h);

 private:
  void project(ThreadPool& pool, const HyperShape& shape, const HyperWeights& weights, const float* streams,
               int64_t n_rows);

  FloatBuffer normed_;   // (n_rows, N * dim)
  FloatBuffer mix_;      // (n_rows, (2 + N) * N): pre, post, C
  FloatBuffer streams_;  // (n_rows, N * dim): X before leave()
  Activations activations_;
};

}  // namespace dspark
