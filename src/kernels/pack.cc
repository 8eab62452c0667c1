// Repacking of stored rows into panels (layout: kernels/panels.h). Values keep their bits; only their order
// changes.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "kernels/matmul.h"
#include "kernels/panels.h"
#include "tensor/blocks.h"
#include "tensor/half.h"
#include "tensor/quantize.h"

namespace dspark {
namespace {

// Tensor bytes packed between two calls of on_read.
constexpr size_t kPackSliceBytes = size_t{16} << 20;

// One row's block of 32 as unsigned integers (stored value + bias) with its scales.
struct RowBlock {
  uint8_t q[32];
  uint16_t d = 0, m = 0;  // f16 bits, of the block or of the super-block
  uint8_t bytes[4] = {};  // byte scales in the order of ScaleMode
};

void unpack_nibbles(const uint8_t* qs, uint8_t* q) {
  for (int j = 0; j < 16; ++j) {
    q[j] = qs[j] & 0x0f;
    q[j + 16] = qs[j] >> 4;
  }
}

void add_fifth_bits(const uint8_t* qh, uint8_t* q) {
  uint32_t bits;
  std::memcpy(&bits, qh, 4);
  for (int j = 0; j < 32; ++j) q[j] = static_cast<uint8_t>(q[j] | (((bits >> j) & 1u) << 4));
}

RowBlock read_q4_0(const uint8_t* row, int64_t b) {
  const auto& block = reinterpret_cast<const BlockQ4_0*>(row)[b];
  RowBlock out;
  unpack_nibbles(block.qs, out.q);
  out.d = block.d;
  return out;
}

RowBlock read_q4_1(const uint8_t* row, int64_t b) {
  const auto& block = reinterpret_cast<const BlockQ4_1*>(row)[b];
  RowBlock out;
  unpack_nibbles(block.qs, out.q);
  out.d = block.d;
  out.m = block.m;
  return out;
}

RowBlock read_q5_0(const uint8_t* row, int64_t b) {
  const auto& block = reinterpret_cast<const BlockQ5_0*>(row)[b];
  RowBlock out;
  unpack_nibbles(block.qs, out.q);
  add_fifth_bits(block.qh, out.q);
  out.d = block.d;
  return out;
}

RowBlock read_q5_1(const uint8_t* row, int64_t b) {
  const auto& block = reinterpret_cast<const BlockQ5_1*>(row)[b];
  RowBlock out;
  unpack_nibbles(block.qs, out.q);
  add_fifth_bits(block.qh, out.q);
  out.d = block.d;
  out.m = block.m;
  return out;
}

RowBlock read_q8_0(const uint8_t* row, int64_t b) {
  const auto& block = reinterpret_cast<const BlockQ8_0*>(row)[b];
  RowBlock out;
  for (int j = 0; j < 32; ++j) out.q[j] = static_cast<uint8_t>(static_cast<uint8_t>(block.qs[j]) ^ 0x80u);
  out.d = block.d;
  return out;
}

RowBlock read_q4_k(const uint8_t* row, int64_t b) {
  const auto& block = reinterpret_cast<const BlockQ4_K*>(row)[b / 8];
  const int j = static_cast<int>(b % 8);
  RowBlock out;
  const uint8_t* qs = block.qs + 32 * (j / 2);
  for (int i = 0; i < 32; ++i) out.q[i] = j % 2 == 0 ? qs[i] & 0x0f : qs[i] >> 4;
  unpack_scale_min_k4(block.scales, j, &out.bytes[0], &out.bytes[1]);
  out.d = block.d;
  out.m = block.dmin;
  return out;
}

RowBlock read_q5_k(const uint8_t* row, int64_t b) {
  const auto& block = reinterpret_cast<const BlockQ5_K*>(row)[b / 8];
  const int j = static_cast<int>(b % 8);
  RowBlock out;
  const uint8_t* qs = block.qs + 32 * (j / 2);
  for (int i = 0; i < 32; ++i) {
    const int nibble = j % 2 == 0 ? qs[i] & 0x0f : qs[i] >> 4;
    out.q[i] = static_cast<uint8_t>(nibble | (((block.qh[i] >> j) & 1) << 4));
  }
  unpack_scale_min_k4(block.scales, j, &out.bytes[0], &out.bytes[1]);
  out.d = block.d;
  out.m = block.dmin;
  return out;
}

RowBlock read_q6_k(const uint8_t* row, int64_t b) {
  const auto& block = reinterpret_cast<const BlockQ6_K*>(row)[b / 8];
  const int j = static_cast<int>(b % 8);
  const int half = j / 4, part = j % 4;  // 128 elements a half, 32 a part
  const uint8_t* ql = block.ql + 64 * half + 32 * (part % 2);
  const uint8_t* qh = block.qh + 32 * half;
  RowBlock out;
  for (int i = 0; i < 32; ++i) {
    const int low = part < 2 ? ql[i] & 0x0f : ql[i] >> 4;
    out.q[i] = static_cast<uint8_t>(low | (((qh[i] >> (2 * part)) & 3) << 4));
  }
  out.bytes[0] = static_cast<uint8_t>(block.scales[2 * j]);
  out.bytes[1] = static_cast<uint8_t>(block.scales[2 * j + 1]);
  out.d = block.d;
  return out;
}

RowBlock read_q2_k(const uint8_t* row, int64_t b) {
  const auto& block = reinterpret_cast<const BlockQ2_K*>(row)[b / 8];
  const int j = static_cast<int>(b % 8);
  RowBlock out;
  for (int i = 0; i < 32; ++i) out.q[i] = (block.qs[32 * (j / 4) + i] >> (2 * (j % 4))) & 3;
  for (int half = 0; half < 2; ++half) {
    out.bytes[half] = block.scales[2 * j + half] & 0x0f;
    out.bytes[2 + half] = block.scales[2 * j + half] >> 4;
  }
  out.d = block.d;
  out.m = block.dmin;
  return out;
}

RowBlock read_q3_k(const uint8_t* row, int64_t b) {
  const auto& block = reinterpret_cast<const BlockQ3_K*>(row)[b / 8];
  const int j = static_cast<int>(b % 8);
  RowBlock out;
  for (int i = 0; i < 32; ++i) {
    const int low = (block.qs[32 * (j / 4) + i] >> (2 * (j % 4))) & 3;
    out.q[i] = static_cast<uint8_t>((low | (((block.hmask[i] >> j) & 1) << 2)) + 4);
  }
  for (int half = 0; half < 2; ++half) {
    const int g = 2 * j + half;
    const int low = g < 8 ? block.scales[g] & 0x0f : block.scales[g - 8] >> 4;
    const int high = (block.scales[8 + g % 4] >> (2 * (g / 4))) & 3;
    out.bytes[half] = static_cast<uint8_t>((low | (high << 4)) - 32);
  }
  out.d = block.d;
  return out;
}

RowBlock read_iq4_nl(const uint8_t* row, int64_t b) {
  const auto& block = reinterpret_cast<const BlockIQ4_NL*>(row)[b];
  RowBlock out;
  unpack_nibbles(block.qs, out.q);
  out.d = block.d;
  return out;
}

RowBlock read_iq4_xs(const uint8_t* row, int64_t b) {
  const auto& block = reinterpret_cast<const BlockIQ4_XS*>(row)[b / 8];
  const int j = static_cast<int>(b % 8);
  RowBlock out;
  unpack_nibbles(block.qs + 16 * j, out.q);
  const int low = (block.scales_l[j / 2] >> (4 * (j % 2))) & 0x0f;
  const int high = (block.scales_h >> (2 * j)) & 3;
  out.bytes[0] = static_cast<uint8_t>((low | (high << 4)) - 32);
  out.d = block.d;
  return out;
}

RowBlock read_mxfp4(const uint8_t* row, int64_t b) {
  const auto& block = reinterpret_cast<const BlockMXFP4*>(row)[b];
  RowBlock out;
  unpack_nibbles(block.qs, out.q);
  out.bytes[0] = block.e;
  return out;
}

struct KindInfo {
  DType dtype;
  PackKind kind;
  RowBlock (*read)(const uint8_t* row, int64_t b);
  int quant_bytes;
  ScaleMode mode;
  uint8_t zero;  // quant that stands for zero: padding rows must give 0 even with an exponent for a scale
  PanelLayout layout() const { return panel_layout(quant_bytes, mode); }
};

constexpr std::array kIntKinds = {
    KindInfo{DType::kQ4_0, PackKind::kQ4_0, read_q4_0, 256, ScaleMode::kF16, 8},
    KindInfo{DType::kQ4_1, PackKind::kQ4_1, read_q4_1, 256, ScaleMode::kF16Min, 0},
    KindInfo{DType::kQ5_0, PackKind::kQ5_0, read_q5_0, 320, ScaleMode::kF16, 16},
    KindInfo{DType::kQ5_1, PackKind::kQ5_1, read_q5_1, 320, ScaleMode::kF16Min, 0},
    KindInfo{DType::kQ8_0, PackKind::kQ8_0, read_q8_0, 512, ScaleMode::kF16, 128},
    KindInfo{DType::kQ2_K, PackKind::kQ2_K, read_q2_k, 256, ScaleMode::kByteHalvesMin, 0},
    KindInfo{DType::kQ3_K, PackKind::kQ3_K, read_q3_k, 256, ScaleMode::kByteHalves, 8},
    KindInfo{DType::kQ4_K, PackKind::kQ4_K, read_q4_k, 256, ScaleMode::kByteMin, 0},
    KindInfo{DType::kQ5_K, PackKind::kQ5_K, read_q5_k, 320, ScaleMode::kByteMin, 0},
    KindInfo{DType::kQ6_K, PackKind::kQ6_K, read_q6_k, 384, ScaleMode::kByteHalves, 32},
    KindInfo{DType::kIQ4_NL, PackKind::kIQ4_NL, read_iq4_nl, 256, ScaleMode::kF16, 0},
    KindInfo{DType::kIQ4_XS, PackKind::kIQ4_XS, read_iq4_xs, 256, ScaleMode::kByte, 0},
    KindInfo{DType::kMXFP4, PackKind::kMXFP4, read_mxfp4, 256, ScaleMode::kE8M0, 0},
};

const KindInfo* int_kind(DType dtype) {
  for (const KindInfo& info : kIntKinds) {
    if (info.dtype == dtype) return &info;
  }
  return nullptr;
}

size_t round_up(size_t n, size_t unit) {
  return (n + unit - 1) / unit * unit;
}

// Writes the quants of one block: 16 rows of 32 values into groups of [16 lanes][4].
void write_quants(const KindInfo& kind, const RowBlock* rows, uint8_t* out) {
  alignas(64) uint8_t groups[8][64];
  for (int lane = 0; lane < kPanelRows; ++lane) {
    for (int g = 0; g < 8; ++g) std::memcpy(&groups[g][lane * 4], rows[lane].q + 4 * g, 4);
  }
  if (kind.quant_bytes == 512) {
    std::memcpy(out, groups, 512);
    return;
  }
  for (int z = 0; z < 4; ++z) {
    for (int i = 0; i < 64; ++i) {
      out[64 * z + i] = static_cast<uint8_t>((groups[2 * z][i] & 0x0f) | (groups[2 * z + 1][i] << 4));
    }
  }
  if (kind.quant_bytes == 320) {
    for (int i = 0; i < 64; ++i) {
      uint32_t bits = 0;
      for (int g = 0; g < 8; ++g) bits |= static_cast<uint32_t>((groups[g][i] >> 4) & 1) << g;
      out[256 + i] = static_cast<uint8_t>(bits);
    }
  } else if (kind.quant_bytes == 384) {
    for (int half = 0; half < 2; ++half) {
      for (int i = 0; i < 64; ++i) {
        uint32_t bits = 0;
        for (int g = 0; g < 4; ++g) bits |= static_cast<uint32_t>(groups[4 * half + g][i] >> 4) << (2 * g);
        out[256 + 64 * half + i] = static_cast<uint8_t>(bits);
      }
    }
  }
}

void put_f16(uint8_t* lanes, int lane, uint16_t bits) {
  std::memcpy(lanes + 2 * lane, &bits, 2);
}

void put_scales(const KindInfo& kind, const RowBlock& block, int lane, uint8_t* scales, uint8_t* super) {
  const PanelLayout layout = kind.layout();
  if (kind.mode == ScaleMode::kF16 || kind.mode == ScaleMode::kF16Min) {
    put_f16(scales, lane, block.d);
    if (kind.mode == ScaleMode::kF16Min) put_f16(scales + 32, lane, block.m);
    return;
  }
  for (int i = 0; i < layout.scale_bytes / kPanelRows; ++i) scales[kPanelRows * i + lane] = block.bytes[i];
  if (layout.super_bytes >= 32) put_f16(super, lane, block.d);
  if (layout.super_bytes >= 64) put_f16(super + 32, lane, block.m);
}

// Writes one block of 16 rows: quants at `quants`, scales at `scales`, the chunk's super-scales at `super`.
void pack_block(const KindInfo& kind, const uint8_t* const* rows, int64_t b, uint8_t* quants, uint8_t* scales,
                uint8_t* super) {
  RowBlock blocks[kPanelRows];
  for (int lane = 0; lane < kPanelRows; ++lane) {
    RowBlock& block = blocks[lane];
    if (rows[lane] != nullptr) {
      block = kind.read(rows[lane], b);
    } else {
      std::memset(block.q, kind.zero, sizeof(block.q));
    }
    put_scales(kind, block, lane, scales, super);
  }
  write_quants(kind, blocks, quants);
}

void pack_int_panel(const KindInfo& kind, const uint8_t* const* rows, int64_t n_blocks, uint8_t* panel) {
  const PanelLayout layout = kind.layout();
  uint8_t* chunk = panel;
  for (int64_t first = 0; first < n_blocks; first += kChunkBlocks) {
    const int64_t n = std::min<int64_t>(kChunkBlocks, n_blocks - first);
    uint8_t* scales = chunk + n * layout.quant_bytes;
    uint8_t* super = chunk + super_offset(layout, n);
    for (int64_t i = 0; i < n; ++i) {
      pack_block(kind, rows, first + i, chunk + i * layout.quant_bytes, scales + i * layout.scale_bytes,
                 super);
    }
    chunk += chunk_bytes(layout, n);
  }
}

void pack_float_panel(PackKind kind, const uint8_t* const* rows, DType dtype, int64_t n_in, uint8_t* panel) {
  if (kind == PackKind::kF32) {
    std::vector<float> values(static_cast<size_t>(n_in));
    for (int lane = 0; lane < kPanelRows; ++lane) {
      if (rows[lane] == nullptr) continue;  // the buffer starts zeroed
      decode_row(dtype, rows[lane], values.data(), n_in);
      float* out = reinterpret_cast<float*>(panel) + lane;
      for (int64_t k = 0; k < n_in; ++k) out[k * kPanelRows] = values[static_cast<size_t>(k)];
    }
    return;
  }
  uint16_t* out = reinterpret_cast<uint16_t*>(panel);
  for (int lane = 0; lane < kPanelRows; ++lane) {
    if (rows[lane] == nullptr) continue;
    for (int64_t k = 0; k < n_in; ++k) {
      uint16_t bits;
      std::memcpy(&bits, rows[lane] + 2 * k, 2);
      const int64_t at = kind == PackKind::kBF16 ? (k / 2) * 32 + lane * 2 + k % 2 : k * kPanelRows + lane;
      out[at] = bits;
    }
  }
}

PackKind choose_kind(DType dtype, bool float_activations) {
  if (float_activations) return PackKind::kF32;
  if (const KindInfo* info = int_kind(dtype)) return info->kind;
  if (dtype == DType::kBF16) return PackKind::kBF16;
  if (dtype == DType::kF16) return PackKind::kF16;
  return PackKind::kF32;
}

size_t panel_bytes_of(const PackedMatrix& m) {
  const auto n_in = static_cast<size_t>(m.n_in);
  switch (m.kind) {
    case PackKind::kF32:
      return round_up(n_in, 2) * 64;
    case PackKind::kBF16:
    case PackKind::kF16:
      return round_up(n_in, 2) * 32;
    default:
      break;
  }
  const PanelLayout layout = int_kind(m.source)->layout();
  const int64_t n_blocks = m.n_in / kActBlock, tail = n_blocks % kChunkBlocks;
  return static_cast<size_t>(n_blocks / kChunkBlocks * chunk_bytes(layout, kChunkBlocks) +
                             (tail > 0 ? chunk_bytes(layout, tail) : 0));
}

}  // namespace

bool uses_int8_activations(PackKind kind) {
  return kind != PackKind::kF32 && kind != PackKind::kBF16 && kind != PackKind::kF16;
}

Result<PackedMatrix> pack_matrix(ThreadPool& pool, const TensorView& tensor, bool float_activations,
                                 std::span<const int32_t> row_order, Arena* arena,
                                 const std::function<void(std::span<const uint8_t>)>& on_read) {
  if (tensor.shape.size() != 2 || tensor.n_elements() == 0) {
    return invalid_argument(fmt::format("{}: want a non-empty matrix [out, in], found {} dimensions",
                                        tensor.name, tensor.shape.size()));
  }
  if (!can_decode(tensor.dtype)) {
    return unsupported(
        fmt::format("{}: tensor type {} cannot be computed with", tensor.name, dtype_name(tensor.dtype)));
  }
  PackedMatrix m;
  m.kind = choose_kind(tensor.dtype, float_activations);
  m.source = tensor.dtype;
  m.n_out = row_order.empty() ? tensor.shape[0] : static_cast<int64_t>(row_order.size());
  m.n_in = tensor.shape[1];
  m.n_panels = (m.n_out + kPanelRows - 1) / kPanelRows;
  m.panel_bytes = panel_bytes_of(m);
  Arena own;
  ArenaBlock block =
      (arena != nullptr ? *arena : own).allocate(m.panel_bytes * static_cast<size_t>(m.n_panels));
  m.data = block.bytes;
  m.owner = std::move(block.owner);
  if (m.data.data() == nullptr) return out_of_memory(tensor.name + ": cannot allocate packed weights");

  const size_t row_bytes = tensor.row_bytes();
  const auto pack_panel = [&](int64_t p, int) {
    const uint8_t* rows[kPanelRows] = {};
    for (int lane = 0; lane < kPanelRows; ++lane) {
      const int64_t out = p * kPanelRows + lane;
      if (out >= m.n_out) break;
      const int64_t stored = row_order.empty() ? out : row_order[static_cast<size_t>(out)];
      rows[lane] = tensor.data + static_cast<size_t>(stored) * row_bytes;
    }
    uint8_t* panel = m.data.data() + static_cast<size_t>(p) * m.panel_bytes;
    if (uses_int8_activations(m.kind)) {
      pack_int_panel(*int_kind(m.source), rows, m.n_in / kActBlock, panel);
    } else {
      pack_float_panel(m.kind, rows, tensor.dtype, m.n_in, panel);
    }
  };
  const auto panel_source = static_cast<size_t>(kPanelRows) * row_bytes;
  const auto slice = static_cast<int64_t>(std::max<size_t>(1, kPackSliceBytes / panel_source));
  for (int64_t first = 0; first < m.n_panels; first += slice) {
    const int64_t n = std::min(slice, m.n_panels - first);
    pool.parallel_for(n, [&](int64_t p, int thread) { pack_panel(first + p, thread); });
    if (!on_read || m.n_out != tensor.shape[0]) continue;  // chosen rows say nothing about their neighbours
    const size_t begin = static_cast<size_t>(first) * panel_source;
    const size_t length = std::min(static_cast<size_t>(n) * panel_source, tensor.n_bytes - begin);
    on_read({tensor.data + begin, length});
  }
  return m;
}

}  // namespace dspark
