#pragma once
// Private to the room: the target's last hidden rows that a step needs distributions of, each once.

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "formats/target_cache.h"
#include "train/tensors.h"

namespace dspark {

/// P distinct positions of the samples of a step.
struct TargetRows {
  at::Tensor target_hidden;              // bf16 [P, dim], input of the target's head
  std::vector<int64_t> target_sample;    // (P) which sample of the step
  std::vector<int32_t> target_position;  // (P) position inside the sample
};

/// Collects positions in the order in which they are first asked for.
class TargetRowList {
 public:
  /// The row of a position.
  int64_t row_of(int64_t sample, int32_t position);
  /// Gathers them. `samples`: by the numbers given to row_of.
  TargetRows gather(const std::vector<const TargetCacheSample*>& samples, int64_t dim,
                    const at::Device& device);

 private:
  std::map<std::pair<int64_t, int32_t>, int64_t> row_of_;
  std::vector<int64_t> sample_;
  std::vector<int32_t> position_;
};

/// Copies rows [first, first + count) of a matrix of bf16 bits into `target` (bf16, on the CPU) from row
/// `at_row` on.
void copy_rows(const std::vector<uint16_t>& source, int64_t first, int64_t count, at::Tensor& target,
               int64_t at_row);

/// int64 [n] on the device.
at::Tensor index_tensor(const std::vector<int64_t>& values, const at::Device& device);

}  // namespace dspark
