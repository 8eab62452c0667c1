#pragma once
// What a model is made of, from its config alone: tensors with their shapes, and the shapes of its cache.

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "formats/checkpoint.h"
#include "kernels/kv_cache.h"
#include "models/config.h"

namespace dspark {

/// A tensor that loading asks for.
struct ExpectedTensor {
  std::string name;
  std::vector<int64_t> shape;
  int64_t n_elements() const {
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    return n;
  }
};

/// All of them, in the order of the computation. `checkpoint` gives the format and, if it has tensors, the
/// prefix of their names.
std::vector<ExpectedTensor> expected_tensors(const Checkpoint& checkpoint, const ModelConfig& config);

/// Checks names, shapes and types without reading a weight. errors: as TargetModel::load.
Status check_tensors(const Checkpoint& checkpoint, const ModelConfig& config);

/// Geometry for KvPool::create.
std::vector<KvLayerShape> cache_shapes(const ModelConfig& config);

}  // namespace dspark
