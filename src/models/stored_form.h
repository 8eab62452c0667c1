#pragma once
// How big the tensors of a model are in its files and in memory, told by the files or by config.json alone.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "formats/checkpoint.h"
#include "models/model_shapes.h"
#include "tensor/dtype.h"

namespace dspark {

/// The types of a checkpoint's tensors. Those that are there say it themselves; the others are told from
/// `quantization_config` (fp8: projections in FP8 with a scale per block of 128 x 128, the rest BF16) and, in
/// DeepSeek V4, from the names of a release and `expert_dtype` (fp4: routed experts as pairs of FP4 with a
/// scale per 32). Without these keys: BF16. requires: the checkpoint outlives it.
class StoredForms {
 public:
  explicit StoredForms(const Checkpoint& checkpoint);

  /// The type in the file; kI8 stands for two FP4 values a byte.
  DType dtype(const ExpectedTensor& tensor) const;
  /// Bytes in the file, scales included.
  double disk_bytes(const ExpectedTensor& tensor) const;
  /// Bytes once loaded (models/weight_reader.h): FP8 as BF16 when its scales are powers of two, else as F32;
  /// vectors as F32, tables of ids as I32, everything else as stored.
  double memory_bytes(const ExpectedTensor& tensor) const;

 private:
  DType scale_dtype(const std::string& name) const;

  const Checkpoint& checkpoint_;
  bool v4_ = false;
  bool fp8_ = false;
  bool fp4_experts_ = false;
  DType fp8_scale_ = DType::kF32;
  std::vector<std::string> unconverted_;  // parts of names that stay BF16 in an FP8 checkpoint
};

/// A weight of one of the experts that rows choose, by its name in any format.
bool is_routed_expert(std::string_view name);

}  // namespace dspark
