#pragma once
// Writes drafters as folders in the DeepSpec layout: what training leaves behind.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "draft/draft_config.h"
#include "tensor/dtype.h"

namespace dspark {

/// A tensor in memory, by its DeepSpec name (draft_tensors.h lists them).
struct NamedFloats {
  std::string name;
  std::vector<int64_t> shape;  // row-major
  std::span<const float> values;
};

/// Writes FOLDER/config.json and FOLDER/model.safetensors (the folder is made if needed), in the layout that
/// open_draft_checkpoint reads back as the same DraftConfig. With a reduced vocabulary d2t (offsets) and t2d
/// are written from config.d2t.
/// `dtype`: kBF16 or kF32, of all tensors.
/// errors: invalid_argument naming tensors that are missing, unknown or misshapen, or an option of the
/// configuration that the layout has no word for; not_found and the like when writing fails.
Status write_deepspec_draft(const std::string& folder, const DraftConfig& config,
                            std::span<const NamedFloats> tensors, DType dtype);

}  // namespace dspark
