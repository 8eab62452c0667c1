#pragma once
// Reading of weights by name: checks of names and shapes before any work, packing, and the forms in which
// Hugging Face checkpoints keep quantised matrices.
//
// A matrix `X.weight` of a safetensors file may be stored as
//   FP8   F8_E4M3 [out, in], with one scale per 128 x 128 block: `X.weight_scale_inv` (F32, DeepSeek V3) or
//         `X.scale` (F8_E8M0 or F32, DeepSeek V4); weight = value * scale
//   FP4   I8 or U8 [out, in / 2], two E2M1 values per byte (low nibble first), with `X.scale` F8_E8M0
//         [out, in / 32]: the numbers of MXFP4 in another order
// FP8 is decoded to BF16 when that is exact (scales that are powers of two), else to F32. FP4 becomes MXFP4.

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/arena.h"
#include "base/status.h"
#include "base/thread_pool.h"
#include "formats/checkpoint.h"
#include "kernels/matmul.h"

namespace dspark {

/// Looks tensors up by name and shape, and remembers what was wrong and what was never asked for.
class TensorFinder {
 public:
  explicit TensorFinder(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}

  /// A tensor of floats (any type that decodes) of exactly this shape; matrices also as FP8 or FP4.
  void expect(const std::string& name, const std::vector<int64_t>& shape);
  /// A tensor of whole numbers.
  void expect_integers(const std::string& name, const std::vector<int64_t>& shape);
  /// The tensor may be there; nobody reads it.
  void allow(const std::string& name) { known_.insert(name); }

  /// What was asked for so far.
  const std::vector<std::pair<std::string, std::vector<int64_t>>>& expected() const { return expected_; }

  /// errors: what is missing, misshapen, unexplained (and not `is_ignorable`) or of a wrong type, by name.
  Status finish(const std::string& arch, const std::function<bool(std::string_view)>& is_ignorable) const;

 private:
  void check_shape(const TensorView& tensor, const std::vector<int64_t>& shape);
  bool check_quantised(const TensorView& tensor, const std::vector<int64_t>& shape);

  const Checkpoint& checkpoint_;
  std::unordered_set<std::string> known_;
  std::vector<std::pair<std::string, std::vector<int64_t>>> expected_;
  std::vector<std::string> missing_;
  std::vector<std::string> misshapen_;
  std::vector<std::string> undecodable_;
};

/// Packs matrices and decodes vectors. requires of all look-ups: TensorFinder found the tensor in order.
class WeightReader {
 public:
  WeightReader(const Checkpoint& checkpoint, ThreadPool& pool, bool float_activations)
      : checkpoint_(checkpoint), pool_(pool), float_activations_(float_activations) {}

  /// The whole matrix; row i of the result is stored row row_order[i] (empty: all, as stored).
  Result<PackedMatrix> matrix(const std::string& name, std::span<const int32_t> row_order = {});
  /// Rows [first, first + n) of a tensor whose leading dimensions are taken together: expert e of stacked
  /// experts [E, out, in] is rows e * out ...
  Result<PackedMatrix> matrix_rows(const std::string& name, int64_t first, int64_t n,
                                   std::span<const int32_t> row_order = {});
  /// A matrix that was made up here: (n_out, n_in) floats. Kept as BF16 when all values are BF16 numbers.
  Result<PackedMatrix> matrix_of(std::string name, std::span<const float> values, int64_t n_out,
                                 int64_t n_in);
  /// All elements as floats; quantised forms too.
  std::vector<float> floats(const std::string& name) const;
  /// Whole numbers (any integer type), as int64.
  std::vector<int64_t> integers(const std::string& name) const;
  const Checkpoint& checkpoint() const { return checkpoint_; }
  bool float_activations() const { return float_activations_; }
  /// Bytes packed so far.
  size_t packed_bytes() const { return packed_bytes_; }

 private:
  Result<PackedMatrix> pack(const TensorView& tensor, std::span<const int32_t> row_order, bool from_file);

  const Checkpoint& checkpoint_;
  ThreadPool& pool_;
  bool float_activations_;
  Arena arena_;  // one pass reads the matrices in the order in which they are packed
  size_t packed_bytes_ = 0;
};

}  // namespace dspark
