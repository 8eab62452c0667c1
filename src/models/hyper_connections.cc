#include "models/hyper_connections.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/row_math.h"
#include "kernels/rows.h"

namespace dspark {
namespace {

float sigmoid(float x) {
  return 1.0f / (1.0f + std::exp(-x));
}

void softmax_in_place(float* x, int32_t n) {
  const float top = *std::max_element(x, x + n);
  float sum = 0.0f;
  for (int32_t i = 0; i < n; ++i) sum += x[i] = std::exp(x[i] - top);
  for (int32_t i = 0; i < n; ++i) x[i] /= sum;
}

void divide_columns(float* c, int32_t n, float eps) {
  for (int32_t k = 0; k < n; ++k) {
    float sum = 0.0f;
    for (int32_t j = 0; j < n; ++j) sum += c[j * n + k];
    for (int32_t j = 0; j < n; ++j) c[j * n + k] /= sum + eps;
  }
}

void divide_rows(float* c, int32_t n, float eps) {
  for (int32_t j = 0; j < n; ++j) {
    float sum = 0.0f;
    for (int32_t k = 0; k < n; ++k) sum += c[j * n + k];
    for (int32_t k = 0; k < n; ++k) c[j * n + k] /= sum + eps;
  }
}

// One row of fn's products to pre, post and C, in place.
void make_mix(const HyperShape& shape, const HyperWeights& w, float* p) {
  const int32_t n = shape.n_streams;
  for (int32_t i = 0; i < n; ++i) {
    p[i] = sigmoid(p[i] * w.scale[0] + w.base[static_cast<size_t>(i)]) + shape.hc_eps;
    p[n + i] = 2.0f * sigmoid(p[n + i] * w.scale[1] + w.base[static_cast<size_t>(n + i)]);
  }
  float* c = p + 2 * n;
  for (int32_t i = 0; i < n * n; ++i) c[i] = c[i] * w.scale[2] + w.base[static_cast<size_t>(2 * n + i)];
  for (int32_t j = 0; j < n; ++j) softmax_in_place(c + j * n, n);
  for (int32_t i = 0; i < n * n; ++i) c[i] += shape.hc_eps;
  divide_columns(c, n, shape.hc_eps);
  for (int32_t iter = 1; iter < shape.sinkhorn_iters; ++iter) {
    divide_rows(c, n, shape.hc_eps);
    divide_columns(c, n, shape.hc_eps);
  }
}

// out = sum over streams of a[n] * x[n].
void weigh_streams(float* out, const float* a, const float* x, const HyperShape& shape) {
  for (int64_t i = 0; i < shape.dim; ++i) out[i] = a[0] * x[i];
  for (int32_t s = 1; s < shape.n_streams; ++s) {
    const float* stream = x + s * shape.dim;
    for (int64_t i = 0; i < shape.dim; ++i) out[i] += a[s] * stream[i];
  }
}

}  // namespace

bool HyperMixer::grow(const HyperShape& shape, int64_t n_rows) {
  const int64_t wide = n_rows * shape.n_streams * shape.dim;
  return normed_.grow(wide) && streams_.grow(wide) &&
         mix_.grow(n_rows * (2 + shape.n_streams) * shape.n_streams);
}

// mix_ = fn * URMS(X), rows of fn.n_out.
void HyperMixer::project(ThreadPool& pool, const HyperShape& shape, const HyperWeights& weights,
                         const float* streams, int64_t n_rows) {
  const int64_t wide = shape.n_streams * shape.dim;
  rms_norm(pool, normed_.data(), wide, streams, wide, nullptr, shape.norm_eps, n_rows, wide);
  activations_.assign(pool, normed_.data(), n_rows, wide, wide, uses_int8_activations(weights.fn.kind));
  const MatmulJob job{&weights.fn, mix_.data(), weights.fn.n_out, nullptr};
  matmul(pool, {&job, 1}, activations_);
}

void HyperMixer::enter(ThreadPool& pool, const HyperShape& shape, const HyperWeights& weights,
                       const float* streams, int64_t n_rows, float* u) {
  project(pool, shape, weights, streams, n_rows);
  const int64_t wide = shape.n_streams * shape.dim;
  pool.parallel_for(n_rows, [&](int64_t row, int) {
    float* mix = mix_.data() + row * weights.fn.n_out;
    make_mix(shape, weights, mix);
    weigh_streams(u + row * shape.dim, mix, streams + row * wide, shape);
  });
}

void HyperMixer::leave(ThreadPool& pool, const HyperShape& shape, const float* y, int64_t n_rows,
                       float* streams) {
  const int32_t n = shape.n_streams;
  const int64_t wide = n * shape.dim;
  pool.parallel_for(n_rows, [&](int64_t row, int) {
    const float* post = mix_.data() + row * (2 + n) * n + n;
    const float* c = post + n;
    float* old = streams_.data() + row * wide;
    float* x = streams + row * wide;
    std::memcpy(old, x, static_cast<size_t>(wide) * sizeof(float));
    const float* from = y + row * shape.dim;
    for (int32_t k = 0; k < n; ++k) {
      float* out = x + k * shape.dim;
      for (int64_t i = 0; i < shape.dim; ++i) out[i] = post[k] * from[i];
      for (int32_t j = 0; j < n; ++j) {
        const float weight = c[j * n + k];
        const float* stream = old + j * shape.dim;
        for (int64_t i = 0; i < shape.dim; ++i) out[i] += weight * stream[i];
      }
    }
  });
}

void HyperMixer::collapse(ThreadPool& pool, const HyperShape& shape, const HyperWeights& weights,
                          const float* streams, int64_t n_rows, float* h) {
  project(pool, shape, weights, streams, n_rows);
  pool.parallel_for(n_rows, [&](int64_t row, int) {
    float* a = mix_.data() + row * shape.n_streams;
    for (int32_t s = 0; s < shape.n_streams; ++s) {
      a[s] = sigmoid(a[s] * weights.scale[0] + weights.base[static_cast<size_t>(s)]) + shape.hc_eps;
    }
    weigh_streams(h + row * shape.dim, a, streams + row * shape.n_streams * shape.dim, shape);
  });
}

}  // namespace dspark
