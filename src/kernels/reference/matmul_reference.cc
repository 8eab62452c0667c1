#include "kernels/reference/matmul_reference.h"

#include <algorithm>
#include <cmath>

#include "tensor/quantize.h"

namespace dspark::reference {
namespace {

template <typename Fn>
std::vector<double> reduce_rows(const TensorView& w, const float* x, Fn term) {
  const int64_t n_out = w.n_rows(), n_in = w.row_elements();
  std::vector<float> row(static_cast<size_t>(n_in));
  std::vector<double> y(static_cast<size_t>(n_out));
  for (int64_t o = 0; o < n_out; ++o) {
    decode_row(w.dtype, w.data + static_cast<size_t>(o) * w.row_bytes(), row.data(), n_in);
    double sum = 0;
    for (int64_t k = 0; k < n_in; ++k) sum += term(static_cast<double>(x[k]) * row[static_cast<size_t>(k)]);
    y[static_cast<size_t>(o)] = sum;
  }
  return y;
}

}  // namespace

std::vector<double> matvec(const TensorView& w, const float* x) {
  return reduce_rows(w, x, [](double v) { return v; });
}

std::vector<double> matvec_magnitude(const TensorView& w, const float* x) {
  return reduce_rows(w, x, [](double v) { return std::abs(v); });
}

std::vector<float> through_int8(const float* x, int64_t n) {
  std::vector<float> out(static_cast<size_t>(n));
  for (int64_t first = 0; first < n; first += 32) {
    const int64_t last = std::min(n, first + 32);
    float max = 0;
    for (int64_t k = first; k < last; ++k) max = std::max(max, std::fabs(x[k]));
    const float inverse = max > 1e-35f ? 127.0f / max : 0.0f;
    for (int64_t k = first; k < last; ++k) {
      out[static_cast<size_t>(k)] = std::nearbyint(x[k] * inverse) * (max / 127.0f);
    }
  }
  return out;
}

}  // namespace dspark::reference
