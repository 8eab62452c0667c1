#include "kernels/reference/attention_reference.h"

#include <algorithm>
#include <cmath>

#include "tensor/half.h"

namespace dspark::reference {

AttentionResult attention(const float* q, const float* k, const float* v, int64_t stride, int32_t first,
                          int32_t last, int32_t head_dim, double scale, double softcap) {
  AttentionResult result;
  std::vector<double> scores;
  for (int32_t t = first; t <= last; ++t) {
    double dot = 0.0, magnitude = 0.0;
    for (int32_t d = 0; d < head_dim; ++d) {
      const double product = static_cast<double>(q[d]) * static_cast<double>(k[t * stride + d]);
      dot += product;
      magnitude += std::fabs(product);
    }
    const double score = dot * scale;
    scores.push_back(softcap > 0.0 ? softcap * std::tanh(score / softcap) : score);
    result.score_magnitude = std::max(result.score_magnitude, magnitude * scale);
  }
  const double largest = *std::max_element(scores.begin(), scores.end());
  double sum = 0.0;
  for (double& s : scores) sum += s = std::exp(s - largest);
  for (int32_t d = 0; d < head_dim; ++d) {
    double out = 0.0, magnitude = 0.0;
    for (int32_t t = first; t <= last; ++t) {
      const double term =
          scores[static_cast<size_t>(t - first)] / sum * static_cast<double>(v[t * stride + d]);
      out += term;
      magnitude += std::fabs(term);
    }
    result.out.push_back(out);
    result.magnitude.push_back(magnitude);
  }
  return result;
}

std::vector<float> through_cache(KvDType dtype, const float* x, int64_t n) {
  std::vector<float> y(x, x + n);
  if (dtype == KvDType::kBF16) {
    for (float& value : y) value = bf16_to_f32(f32_to_bf16(value));
  }
  if (dtype == KvDType::kQ8_0) {
    for (int64_t block = 0; block < n; block += kKvScaleBlock) {
      double largest = 0.0;
      for (int64_t i = 0; i < kKvScaleBlock; ++i) {
        largest = std::max(largest, std::fabs(static_cast<double>(x[block + i])));
      }
      // Smallest bf16 number not below largest / 127.
      const float exact = static_cast<float>(largest) / 127.0f;
      float step = bf16_to_f32(f32_to_bf16(exact));
      if (step < exact) step = bf16_to_f32(static_cast<uint16_t>(f32_to_bf16(exact) + 1));
      for (int64_t i = 0; i < kKvScaleBlock; ++i) {
        y[static_cast<size_t>(block + i)] =
            step > 0.0f ? std::nearbyint(x[block + i] * (1.0f / step)) * step : 0.0f;
      }
    }
  }
  return y;
}

}  // namespace dspark::reference
