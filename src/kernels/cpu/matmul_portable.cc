// Panel kernels in plain C++: any CPU, no intrinsics. Same layout and order as the SIMD kernels; a multiply
// and an add are two roundings here, so results may differ from theirs in the last bits.
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "kernels/matmul.h"
#include "kernels/panels.h"
#include "tensor/half.h"

namespace dspark {
namespace {

constexpr int kLanes = kPanelRows;

float f16_at(const uint8_t* p, int lane) {
  uint16_t bits;
  __builtin_memcpy(&bits, p + 2 * lane, 2);
  return f16_to_f32(bits);
}

// Byte i of group g of a block, unpacked.
struct Nibbles {
  static constexpr int kQuantBytes = 256;
  static int at(const uint8_t* q, int g, int i) { return (q[64 * (g / 2) + i] >> (4 * (g % 2))) & 0x0f; }
};
struct FiveBits {
  static constexpr int kQuantBytes = 320;
  static int at(const uint8_t* q, int g, int i) {
    return Nibbles::at(q, g, i) | (((q[256 + i] >> g) & 1) << 4);
  }
};
struct SixBits {
  static constexpr int kQuantBytes = 384;
  static int at(const uint8_t* q, int g, int i) {
    return Nibbles::at(q, g, i) | (((q[256 + 64 * (g / 4) + i] >> (2 * (g % 4))) & 3) << 4);
  }
};
struct Bytes {
  static constexpr int kQuantBytes = 512;
  static int at(const uint8_t* q, int g, int i) { return q[64 * g + i]; }
};

template <const int8_t (&kTable)[16]>
struct TableNibbles {
  static constexpr int kQuantBytes = 256;
  static int at(const uint8_t* q, int g, int i) { return kTable[Nibbles::at(q, g, i)]; }
};

template <class BitsT, int kBiasT, ScaleMode kModeT>
struct Kind {
  using Bits = BitsT;
  static constexpr int kBias = kBiasT;
  static constexpr ScaleMode kMode = kModeT;
  static constexpr bool kHalves = kMode == ScaleMode::kByteHalves || kMode == ScaleMode::kByteHalvesMin;
  static constexpr bool kMin =
      kMode == ScaleMode::kF16Min || kMode == ScaleMode::kByteMin || kMode == ScaleMode::kByteHalvesMin;
  static constexpr PanelLayout kLayout = panel_layout(Bits::kQuantBytes, kMode);
};

// The block's weights as integers, and the scales of the two halves and minimum of every lane.
struct Unpacked {
  int16_t w[8][64];
  float scale[2][kLanes];
  float min[2][kLanes];
};

template <class K>
void unpack_scales(const uint8_t* s, const uint8_t* super, int lane, Unpacked& u) {
  constexpr int kParts = K::kHalves ? 2 : 1;
  if constexpr (K::kMode == ScaleMode::kF16 || K::kMode == ScaleMode::kF16Min) {
    u.scale[0][lane] = f16_at(s, lane);
    if constexpr (K::kMin) u.min[0][lane] = f16_at(s + 32, lane);
  } else if constexpr (K::kMode == ScaleMode::kE8M0) {
    const uint32_t bits = half_e8m0_bits(s[lane]);
    __builtin_memcpy(&u.scale[0][lane], &bits, 4);
  } else {
    for (int i = 0; i < kParts; ++i) {
      const uint8_t byte = s[16 * i + lane];
      const int sc = K::kMin ? byte : static_cast<int8_t>(byte);
      u.scale[i][lane] = f16_at(super, lane) * static_cast<float>(sc);
      if constexpr (K::kMin) {
        u.min[i][lane] = -f16_at(super + 32, lane) * static_cast<float>(s[16 * (kParts + i) + lane]);
      }
    }
  }
}

template <class K>
void unpack(const uint8_t* q, const uint8_t* s, const uint8_t* super, Unpacked& u) {
  for (int g = 0; g < 8; ++g) {
    for (int i = 0; i < 64; ++i) u.w[g][i] = static_cast<int16_t>(K::Bits::at(q, g, i) - K::kBias);
  }
  for (int lane = 0; lane < kLanes; ++lane) unpack_scales<K>(s, super, lane, u);
}

// Integer dot products of groups [first, last) with one activation block.
void dot_groups(const Unpacked& u, const ActBlock& a, int first, int last, int32_t* sum) {
  for (int lane = 0; lane < kLanes; ++lane) sum[lane] = 0;
  for (int g = first; g < last; ++g) {
    for (int lane = 0; lane < kLanes; ++lane) {
      for (int j = 0; j < 4; ++j) sum[lane] += u.w[g][4 * lane + j] * a.q[4 * g + j];
    }
  }
}

template <class K>
void add_block(const Unpacked& u, const ActBlock& a, float* acc) {
  int32_t sum0[kLanes], sum1[kLanes];
  if constexpr (K::kHalves) {
    dot_groups(u, a, 0, 4, sum0);
    dot_groups(u, a, 4, 8, sum1);
    for (int lane = 0; lane < kLanes; ++lane) {
      const float t = static_cast<float>(sum0[lane]) * u.scale[0][lane] +
                      static_cast<float>(sum1[lane]) * u.scale[1][lane];
      acc[lane] += t * a.scale;
      if constexpr (K::kMin) {
        acc[lane] += u.min[0][lane] * a.sum_half[0];
        acc[lane] += u.min[1][lane] * a.sum_half[1];
      }
    }
  } else {
    dot_groups(u, a, 0, 8, sum0);
    for (int lane = 0; lane < kLanes; ++lane) {
      acc[lane] += static_cast<float>(sum0[lane]) * (u.scale[0][lane] * a.scale);
      if constexpr (K::kMin) acc[lane] += u.min[0][lane] * a.sum;
    }
  }
}

void store_row(const float* acc, const TileOut& out, int r) {
  for (int lane = 0; lane < out.n_lanes; ++lane) {
    out.y[r * out.y_stride + lane] = out.bias != nullptr ? acc[lane] + out.bias[lane] : acc[lane];
  }
}

template <class K, int M>
void int_tile(const uint8_t* panel, const ActBlock* a, int64_t n_blocks, const TileOut& out) {
  float acc[M][kLanes] = {};
  Unpacked u;
  for (int64_t first = 0; first < n_blocks; first += kChunkBlocks) {
    const int64_t n = n_blocks - first < kChunkBlocks ? n_blocks - first : kChunkBlocks;
    const uint8_t* scales = panel + n * K::kLayout.quant_bytes;
    const uint8_t* super = panel + super_offset(K::kLayout, n);
    for (int64_t i = 0; i < n; ++i, a += M) {
      unpack<K>(panel + i * K::kLayout.quant_bytes, scales + i * K::kLayout.scale_bytes, super, u);
      for (int r = 0; r < M; ++r) add_block<K>(u, a[r], acc[r]);
    }
    panel += chunk_bytes(K::kLayout, n);
  }
  for (int r = 0; r < M; ++r) store_row(acc[r], out, r);
}

struct PanelF32 {
  static float at(const uint8_t* p, int64_t k, int lane) {
    return reinterpret_cast<const float*>(p)[k * kLanes + lane];
  }
};
struct PanelBf16 {
  static float at(const uint8_t* p, int64_t k, int lane) {
    return bf16_to_f32(reinterpret_cast<const uint16_t*>(p)[(k / 2) * 2 * kLanes + 2 * lane + k % 2]);
  }
};
struct PanelF16 {
  static float at(const uint8_t* p, int64_t k, int lane) {
    return f16_to_f32(reinterpret_cast<const uint16_t*>(p)[k * kLanes + lane]);
  }
};

template <class P, int M>
void float_tile(const uint8_t* panel, const float* x, int64_t x_stride, int64_t n_in, const TileOut& out) {
  float even[M][kLanes] = {}, odd[M][kLanes] = {};
  for (int64_t k = 0; k < n_in; ++k) {
    float w[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) w[lane] = P::at(panel, k, lane);
    for (int r = 0; r < M; ++r) {
      float* acc = k % 2 == 0 ? even[r] : odd[r];
      for (int lane = 0; lane < kLanes; ++lane) acc[lane] += w[lane] * x[r * x_stride + k];
    }
  }
  for (int r = 0; r < M; ++r) {
    for (int lane = 0; lane < kLanes; ++lane) even[r][lane] += odd[r][lane];
    store_row(even[r], out, r);
  }
}

void quantize_row(const float* x, int64_t n, ActBlock* acts, int64_t block_stride) {
  for (int64_t first = 0; first < n; first += 32, acts += block_stride) {
    const int count = static_cast<int>(n - first < 32 ? n - first : 32);
    float max = 0.0f;
    for (int j = 0; j < count; ++j) max = std::fabs(x[first + j]) > max ? std::fabs(x[first + j]) : max;
    const float inverse = max > 1e-35f ? 127.0f / max : 0.0f;
    int32_t sums[2] = {0, 0};
    for (int j = 0; j < 32; ++j) {
      const float v = j < count ? x[first + j] * inverse : 0.0f;
      acts->q[j] = static_cast<int8_t>(std::nearbyintf(v));
      sums[j / 16] += acts->q[j];
    }
    acts->scale = max / 127.0f;
    acts->sum = acts->scale * static_cast<float>(sums[0] + sums[1]);
    acts->bias8 = -8 * (sums[0] + sums[1]);
    for (int half = 0; half < 2; ++half) {
      acts->bias8_half[half] = -8 * sums[half];
      acts->sum_half[half] = acts->scale * static_cast<float>(sums[half]);
    }
  }
}

using KindQ4_0 = Kind<Nibbles, 8, ScaleMode::kF16>;
using KindQ4_1 = Kind<Nibbles, 0, ScaleMode::kF16Min>;
using KindQ5_0 = Kind<FiveBits, 16, ScaleMode::kF16>;
using KindQ5_1 = Kind<FiveBits, 0, ScaleMode::kF16Min>;
using KindQ8_0 = Kind<Bytes, 128, ScaleMode::kF16>;
using KindQ2_K = Kind<Nibbles, 0, ScaleMode::kByteHalvesMin>;
using KindQ3_K = Kind<Nibbles, 8, ScaleMode::kByteHalves>;
using KindQ4_K = Kind<Nibbles, 0, ScaleMode::kByteMin>;
using KindQ5_K = Kind<FiveBits, 0, ScaleMode::kByteMin>;
using KindQ6_K = Kind<SixBits, 32, ScaleMode::kByteHalves>;
using KindIQ4_NL = Kind<TableNibbles<kIq4Values>, 0, ScaleMode::kF16>;
using KindIQ4_XS = Kind<TableNibbles<kIq4Values>, 0, ScaleMode::kByte>;
using KindMXFP4 = Kind<TableNibbles<kE2m1Doubled>, 0, ScaleMode::kE8M0>;

#define DSPARK_ROW(FN, K) \
  { FN<K, 1>, FN<K, 2>, FN<K, 3>, FN<K, 4>, FN<K, 5>, FN<K, 6>, FN<K, 7>, FN<K, 8> }
#define DSPARK_NONE \
  { nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr }

}  // namespace

// clang-format off
const MatmulKernels kMatmulPortable = {
    {DSPARK_NONE, DSPARK_NONE, DSPARK_NONE,
     DSPARK_ROW(int_tile, KindQ4_0), DSPARK_ROW(int_tile, KindQ4_1), DSPARK_ROW(int_tile, KindQ5_0),
     DSPARK_ROW(int_tile, KindQ5_1), DSPARK_ROW(int_tile, KindQ8_0), DSPARK_ROW(int_tile, KindQ2_K),
     DSPARK_ROW(int_tile, KindQ3_K), DSPARK_ROW(int_tile, KindQ4_K), DSPARK_ROW(int_tile, KindQ5_K),
     DSPARK_ROW(int_tile, KindQ6_K), DSPARK_ROW(int_tile, KindIQ4_NL), DSPARK_ROW(int_tile, KindIQ4_XS),
     DSPARK_ROW(int_tile, KindMXFP4)},
    {DSPARK_ROW(float_tile, PanelF32), DSPARK_ROW(float_tile, PanelBf16), DSPARK_ROW(float_tile, PanelF16),
     DSPARK_NONE, DSPARK_NONE, DSPARK_NONE, DSPARK_NONE, DSPARK_NONE, DSPARK_NONE, DSPARK_NONE, DSPARK_NONE,
     DSPARK_NONE, DSPARK_NONE, DSPARK_NONE, DSPARK_NONE, DSPARK_NONE},
    quantize_row,
    nullptr,
};
// clang-format on

}  // namespace dspark
