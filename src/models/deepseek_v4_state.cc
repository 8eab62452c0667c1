#include "models/deepseek_v4_state.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "tensor/half.h"

namespace dspark {
namespace {

constexpr int32_t kScaleBlock = 32;  // of Q8_0 rows

float make_finite(float x) {
  constexpr float kLargest = 3.3e38f;  // below the largest bf16
  if (std::isnan(x)) return 0.0f;
  return std::clamp(x, -kLargest, kLargest);
}

int32_t padded(int32_t width) {
  return (width + kScaleBlock - 1) / kScaleBlock * kScaleBlock;
}

size_t row_bytes(KvDType dtype, int32_t width) {
  const auto n = static_cast<size_t>(padded(width));
  switch (dtype) {
    case KvDType::kF32:
      return n * sizeof(float);
    case KvDType::kBF16:
      return n * sizeof(uint16_t);
    case KvDType::kQ8_0:
      return n + n / kScaleBlock * sizeof(uint16_t);
  }
  return 0;
}

void encode_q8(const float* src, int32_t width, uint8_t* dst) {
  const int32_t n = padded(width);
  for (int32_t block = 0; block < n; block += kScaleBlock) {
    const int32_t end = std::min(width, block + kScaleBlock);
    float top = 0.0f;
    for (int32_t i = block; i < end; ++i) top = std::max(top, std::fabs(make_finite(src[i])));
    const uint16_t scale_bits = f32_to_bf16(top / 127.0f);
    const float scale = bf16_to_f32(scale_bits);
    std::memcpy(dst + n + block / kScaleBlock * 2, &scale_bits, sizeof scale_bits);
    for (int32_t i = block; i < block + kScaleBlock; ++i) {
      float q = i < end && scale > 0.0f ? std::nearbyint(make_finite(src[i]) / scale) : 0.0f;
      q = std::clamp(q, -127.0f, 127.0f);
      dst[i] = static_cast<uint8_t>(static_cast<int8_t>(q));
    }
  }
}

void decode_q8(const uint8_t* src, int32_t width, float* dst) {
  const int32_t n = padded(width);
  for (int32_t i = 0; i < width; ++i) {
    uint16_t bits = 0;
    std::memcpy(&bits, src + n + i / kScaleBlock * 2, sizeof bits);
    dst[i] = static_cast<float>(static_cast<int8_t>(src[i])) * bf16_to_f32(bits);
  }
}

}  // namespace

V4LayerLayout v4_layout(const ModelConfig& config, V4Attention attention, KvDType dtype) {
  V4LayerLayout layout;
  const auto add = [&](V4Field field, int32_t n, int32_t width) {
    V4LayerLayout::Rows& rows = layout.rows[static_cast<size_t>(field)];
    rows = {n, width, layout.bytes, row_bytes(dtype, width)};
    layout.bytes += static_cast<size_t>(n) * rows.row_bytes;
  };
  const int32_t c = config.head_dim, ci = config.v4.index_dim;
  add(V4Field::kKey, kKvPageSize, c);
  if (attention == V4Attention::kSliding) return layout;
  const bool sparse = attention == V4Attention::kSparse;
  const int32_t rate = sparse ? config.v4.sparse_rate : config.v4.heavy_rate;
  const int32_t n_entries = (kKvPageSize + rate - 1) / rate;
  add(V4Field::kKv, kKvPageSize, sparse ? 2 * c : c);
  add(V4Field::kGate, kKvPageSize, sparse ? 2 * c : c);
  add(V4Field::kEntry, n_entries, c);
  if (!sparse) return layout;
  add(V4Field::kIndexKv, kKvPageSize, 2 * ci);
  add(V4Field::kIndexGate, kKvPageSize, 2 * ci);
  add(V4Field::kIndexEntry, n_entries, ci);
  return layout;
}

KvLayerShape v4_kv_shape(const ModelConfig& config, V4Attention attention) {
  // A page gives 2 * head_dim elements (a key and a value) per position in every element type.
  const size_t elements = v4_layout(config, attention, KvDType::kF32).bytes / sizeof(float);
  const size_t per_position = (elements + 2 * kKvPageSize - 1) / (2 * kKvPageSize);
  return {1, padded(static_cast<int32_t>(per_position))};
}

void v4_encode_row(KvDType dtype, const float* src, int32_t width, uint8_t* dst) {
  if (dtype == KvDType::kQ8_0) return encode_q8(src, width, dst);
  for (int32_t i = 0; i < width; ++i) {
    const float value = make_finite(src[i]);
    if (dtype == KvDType::kF32) {
      std::memcpy(dst + static_cast<size_t>(i) * sizeof value, &value, sizeof value);
    } else {
      const uint16_t bits = f32_to_bf16(value);
      std::memcpy(dst + static_cast<size_t>(i) * sizeof bits, &bits, sizeof bits);
    }
  }
}

void v4_decode_row(KvDType dtype, const uint8_t* src, int32_t width, float* dst) {
  if (dtype == KvDType::kQ8_0) return decode_q8(src, width, dst);
  if (dtype == KvDType::kF32) {
    std::memcpy(dst, src, static_cast<size_t>(width) * sizeof(float));
    return;
  }
  for (int32_t i = 0; i < width; ++i) {
    uint16_t bits = 0;
    std::memcpy(&bits, src + static_cast<size_t>(i) * sizeof bits, sizeof bits);
    dst[i] = bf16_to_f32(bits);
  }
}

}  // namespace dspark
