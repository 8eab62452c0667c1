#include "models/weight_reader.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "models/block_scales.h"
#include "tensor/blocks.h"
#include "tensor/half.h"
#include "tensor/quantize.h"

namespace dspark {
namespace {

constexpr size_t kNamesInMessage = 8;  // enough to recognise the mistake
constexpr int64_t kFp4Block = 32;      // columns that share a scale

bool is_integer(DType dtype) {
  switch (dtype) {
    case DType::kI8:
    case DType::kI16:
    case DType::kI32:
    case DType::kI64:
    case DType::kBool:
    case DType::kU8:
    case DType::kU16:
    case DType::kU32:
    case DType::kU64:
      return true;
    default:
      return false;
  }
}

std::string list_names(const std::vector<std::string>& names) {
  const size_t shown = std::min(names.size(), kNamesInMessage);
  std::string text =
      fmt::format("{}", fmt::join(names.begin(), names.begin() + static_cast<ptrdiff_t>(shown), ", "));
  if (names.size() > shown) text += fmt::format(" and {} more", names.size() - shown);
  return text;
}

bool is_fp8(const TensorView& tensor) {
  return tensor.dtype == DType::kF8_E4M3 && tensor.shape.size() == 2;
}

bool is_fp4(const TensorView& tensor) {
  return (tensor.dtype == DType::kI8 || tensor.dtype == DType::kU8) && tensor.shape.size() == 2;
}

int64_t blocks_of(int64_t n, int64_t block) {
  return (n + block - 1) / block;
}

std::vector<float> decode_all(const TensorView& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.n_elements()));
  if (!values.empty()) decode_row(tensor.dtype, tensor.data, values.data(), tensor.n_elements());
  return values;
}

/// A matrix in another form than the file's.
struct Converted {
  TensorView view;
  std::vector<uint8_t> bytes;
};

Converted store(std::string name, std::span<const float> values, int64_t n_out, int64_t n_in) {
  const bool exact =
      std::all_of(values.begin(), values.end(), [](float v) { return bf16_to_f32(f32_to_bf16(v)) == v; });
  Converted out;
  out.view.name = std::move(name);
  out.view.dtype = exact ? DType::kBF16 : DType::kF32;
  out.view.shape = {n_out, n_in};
  out.bytes.resize(values.size() * (exact ? sizeof(uint16_t) : sizeof(float)));
  for (size_t i = 0; i < values.size(); ++i) {
    if (exact) {
      const uint16_t v = f32_to_bf16(values[i]);
      std::memcpy(out.bytes.data() + i * sizeof v, &v, sizeof v);
    } else {
      std::memcpy(out.bytes.data() + i * sizeof(float), &values[i], sizeof(float));
    }
  }
  out.view.data = out.bytes.data();
  out.view.n_bytes = out.bytes.size();
  return out;
}

// Rows [first, first + n) of an FP8 matrix, times the scales of their blocks.
std::vector<float> decode_fp8(const TensorView& tensor, const TensorView& scale, int64_t first, int64_t n) {
  const int64_t n_in = tensor.shape[1];
  const std::vector<float> scales = decode_all(scale);
  std::vector<float> values(static_cast<size_t>(n * n_in));
  for (int64_t row = 0; row < n; ++row) {
    float* out = values.data() + row * n_in;
    decode_row(tensor.dtype, tensor.data + (first + row) * n_in, out, n_in);
    const float* row_scales = scales.data() + (first + row) / kFp8Block * blocks_of(n_in, kFp8Block);
    for (int64_t i = 0; i < n_in; ++i) out[i] *= row_scales[i / kFp8Block];
  }
  return values;
}

// Rows of a packed FP4 matrix as MXFP4 blocks: there byte j holds elements j and j + 16 of its 32.
Converted convert_fp4(const TensorView& tensor, const TensorView& scale, int64_t first, int64_t n) {
  const int64_t n_blocks = tensor.shape[1] * 2 / kFp4Block;
  Converted out;
  out.view.name = tensor.name;
  out.view.dtype = DType::kMXFP4;
  out.view.shape = {n, n_blocks * kFp4Block};
  out.bytes.resize(static_cast<size_t>(n * n_blocks) * sizeof(BlockMXFP4));
  const auto nibble = [](const uint8_t* src, int64_t i) {
    return static_cast<uint8_t>(i % 2 == 0 ? src[i / 2] & 15 : src[i / 2] >> 4);
  };
  for (int64_t b = 0; b < n * n_blocks; ++b) {
    const uint8_t* src = tensor.data + (first * n_blocks + b) * (kFp4Block / 2);
    uint8_t* dst = out.bytes.data() + static_cast<size_t>(b) * sizeof(BlockMXFP4);
    dst[0] = scale.data[first * n_blocks + b];
    for (int64_t j = 0; j < kFp4Block / 2; ++j) {
      dst[1 + j] = static_cast<uint8_t>(nibble(src, j) | nibble(src, j + kFp4Block / 2) << 4);
    }
  }
  out.view.data = out.bytes.data();
  out.view.n_bytes = out.bytes.size();
  return out;
}

}  // namespace

const TensorView* find_scale(const Checkpoint& checkpoint, const std::string& name) {
  constexpr std::string_view kWeight = ".weight";
  if (const TensorView* scale = checkpoint.find(name + "_scale_inv")) return scale;
  if (!name.ends_with(kWeight)) return nullptr;
  return checkpoint.find(name.substr(0, name.size() - kWeight.size()) + ".scale");
}

void TensorFinder::check_shape(const TensorView& tensor, const std::vector<int64_t>& shape) {
  if (tensor.shape == shape) return;
  misshapen_.push_back(fmt::format("{} is [{}], expected [{}]", tensor.name, fmt::join(tensor.shape, ", "),
                                   fmt::join(shape, ", ")));
}

// FP8 and FP4 matrices with their scales. returns: false when the tensor is neither.
bool TensorFinder::check_quantised(const TensorView& tensor, const std::vector<int64_t>& shape) {
  if (shape.size() != 2 || checkpoint_.format() != Checkpoint::Format::kSafetensors) return false;
  const bool fp4 = is_fp4(tensor) && shape[1] % kFp4Block == 0;
  if (!fp4 && !is_fp8(tensor)) return false;
  check_shape(tensor, fp4 ? std::vector<int64_t>{shape[0], shape[1] / 2} : shape);
  const TensorView* scale = find_scale(checkpoint_, tensor.name);
  if (scale == nullptr) {
    missing_.push_back("the block scales of " + tensor.name);
    return true;
  }
  known_.insert(scale->name);
  if (fp4) {
    check_shape(*scale, {shape[0], shape[1] / kFp4Block});
    if (scale->dtype != DType::kF8_E8M0 && scale->dtype != DType::kU8) {
      undecodable_.push_back(fmt::format("{} ({})", scale->name, dtype_name(scale->dtype)));
    }
    return true;
  }
  check_shape(*scale, {blocks_of(shape[0], kFp8Block), blocks_of(shape[1], kFp8Block)});
  if (scale->dtype != DType::kF32 && scale->dtype != DType::kF8_E8M0 && scale->dtype != DType::kBF16) {
    undecodable_.push_back(fmt::format("{} ({})", scale->name, dtype_name(scale->dtype)));
  }
  return true;
}

void TensorFinder::expect(const std::string& name, const std::vector<int64_t>& shape) {
  known_.insert(name);
  expected_.emplace_back(name, shape);
  const TensorView* tensor = checkpoint_.find(name);
  if (tensor == nullptr) {
    missing_.push_back(name);
  } else if (check_quantised(*tensor, shape)) {
    return;
  } else if (tensor->shape != shape) {
    check_shape(*tensor, shape);
  } else if (!can_decode(tensor->dtype) || is_integer(tensor->dtype)) {
    undecodable_.push_back(fmt::format("{} ({})", name, dtype_name(tensor->dtype)));
  }
}

void TensorFinder::expect_integers(const std::string& name, const std::vector<int64_t>& shape) {
  known_.insert(name);
  expected_.emplace_back(name, shape);
  const TensorView* tensor = checkpoint_.find(name);
  if (tensor == nullptr) {
    missing_.push_back(name);
  } else if (tensor->shape != shape) {
    check_shape(*tensor, shape);
  } else if (tensor->dtype != DType::kI32 && tensor->dtype != DType::kI64) {
    undecodable_.push_back(fmt::format("{} ({}, expected I32 or I64)", name, dtype_name(tensor->dtype)));
  }
}

Status TensorFinder::finish(const std::string& arch,
                            const std::function<bool(std::string_view)>& is_ignorable) const {
  std::vector<std::string> unknown;
  for (const TensorView& tensor : checkpoint_.tensors()) {
    if (known_.contains(tensor.name) || is_ignorable(tensor.name)) continue;
    unknown.push_back(tensor.name);
  }
  const auto error = [&](const std::string& what, const std::vector<std::string>& list) {
    return fmt::format("{}: {} {}: {}", checkpoint_.path(), list.size(), what, list_names(list));
  };
  if (!missing_.empty()) return invalid_argument(error("missing tensor(s)", missing_));
  if (!misshapen_.empty()) return invalid_argument(error("tensor(s) of the wrong shape", misshapen_));
  if (!unknown.empty()) {
    return unsupported(error("tensor(s) that a " + arch + " model does not have", unknown));
  }
  if (!undecodable_.empty())
    return unsupported(error("tensor(s) of a type that weights cannot have", undecodable_));
  return ok_status();
}

Result<PackedMatrix> WeightReader::pack(const TensorView& tensor, std::span<const int32_t> row_order,
                                        bool from_file) {
  // The file's pages are read once; without this the process would hold the weights twice.
  std::function<void(std::span<const uint8_t>)> drop;
  if (from_file) drop = [&](std::span<const uint8_t> bytes) { checkpoint_.drop_resident(bytes); };
  Result<PackedMatrix> packed = pack_matrix(pool_, tensor, float_activations_, row_order, &arena_, drop);
  if (!packed.ok()) {
    return Status(packed.status().code(), checkpoint_.path() + ": " + packed.status().message());
  }
  packed_bytes_ += packed->data.size();
  return packed;
}

Result<PackedMatrix> WeightReader::matrix(const std::string& name, std::span<const int32_t> row_order) {
  return matrix_rows(name, 0, checkpoint_.find(name)->n_rows(), row_order);
}

Result<PackedMatrix> WeightReader::matrix_rows(const std::string& name, int64_t first, int64_t n,
                                               std::span<const int32_t> row_order) {
  const TensorView& tensor = *checkpoint_.find(name);
  if (is_fp8(tensor)) {
    const std::vector<float> values = decode_fp8(tensor, *find_scale(checkpoint_, name), first, n);
    return pack(store(name, values, n, tensor.shape[1]).view, row_order, false);
  }
  if (is_fp4(tensor)) {
    const Converted converted = convert_fp4(tensor, *find_scale(checkpoint_, name), first, n);
    return pack(converted.view, row_order, false);
  }
  TensorView part = tensor;
  const size_t row_bytes = tensor.row_bytes();
  part.shape = {n, tensor.row_elements()};
  part.data = tensor.data + static_cast<size_t>(first) * row_bytes;
  part.n_bytes = static_cast<size_t>(n) * row_bytes;
  return pack(part, row_order, true);
}

Result<PackedMatrix> WeightReader::matrix_of(std::string name, std::span<const float> values, int64_t n_out,
                                             int64_t n_in) {
  const Converted converted = store(std::move(name), values, n_out, n_in);
  return pack(converted.view, {}, false);
}

std::vector<float> WeightReader::floats(const std::string& name) const {
  const TensorView& tensor = *checkpoint_.find(name);
  if (is_fp8(tensor)) return decode_fp8(tensor, *find_scale(checkpoint_, name), 0, tensor.shape[0]);
  if (is_fp4(tensor)) {
    return decode_all(convert_fp4(tensor, *find_scale(checkpoint_, name), 0, tensor.shape[0]).view);
  }
  return decode_all(tensor);
}

std::vector<int64_t> WeightReader::integers(const std::string& name) const {
  const TensorView& tensor = *checkpoint_.find(name);
  std::vector<int64_t> values(static_cast<size_t>(tensor.n_elements()));
  for (size_t i = 0; i < values.size(); ++i) {
    if (tensor.dtype == DType::kI32) {
      int32_t value = 0;
      std::memcpy(&value, tensor.data + i * sizeof value, sizeof value);
      values[i] = value;
    } else {
      std::memcpy(&values[i], tensor.data + i * sizeof(int64_t), sizeof(int64_t));
    }
  }
  return values;
}

}  // namespace dspark
