#pragma once
// Writes a GGUF file from a GGUF file or a Hugging Face folder with matrices in another type.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "base/thread_pool.h"
#include "formats/checkpoint.h"
#include "formats/gguf_writer.h"
#include "formats/hf_to_gguf.h"
#include "tensor/dtype.h"

namespace dspark {

/// Which type each tensor gets:
/// - tensors of one dimension: F32; integer tensors: as they are;
/// - names that match a pattern of `keep`: the stored type (F64 becomes F32);
/// - the router of a mixture of experts and the confidence projection of a drafter (conf_proj.weight): F32,
///   they are small and decide much;
/// - token_embd.weight and output.weight: `embedding` and `output`; without them Q8_0 when `type` has 4 or 5
///   bits, because the head is read from them and errors there reach the text directly; else `type`;
/// - every other tensor of two or more dimensions: `type`.
/// A row that is no multiple of the type's block falls back: Q4_K to Q5_0, Q5_K to Q5_1, Q6_K to Q8_0; where
/// even 32 does not divide it, to the stored 16-bit type, or F16.
struct QuantizeOptions {
  DType type = DType::kQ8_0;  // can_encode
  std::optional<DType> embedding;
  std::optional<DType> output;
  /// Globs ('*' any text, '?' one character) over whole GGUF tensor names.
  std::vector<std::string> keep;
  /// Tensors that are block-quantised already may be converted to another type, which adds a second error.
  bool allow_requantize = false;
};

/// What happened to one tensor.
struct QuantizedTensor {
  std::string name;
  std::vector<int64_t> shape;  // row-major
  DType from = DType::kF32;
  DType to = DType::kF32;
  uint64_t bytes_before = 0;
  uint64_t bytes_after = 0;
  bool fallback = false;  // the wanted type did not fit the row length
};

struct QuantizeReport {
  uint64_t bytes_before = 0;  // of all tensors
  uint64_t bytes_after = 0;
  int64_t n_elements = 0;
  std::vector<std::string> notes;  // what was left out or could not be converted
};

/// Called before each tensor is converted: which one, 0-based index, how many there are.
using QuantizeProgress = std::function<void(const QuantizedTensor& tensor, size_t index, size_t count)>;

/// Writes `output` (it appears under its name only when complete). The same input and options give the same
/// bytes, whatever the number of threads.
/// errors: invalid_argument (a keep pattern that matches nothing, a type that cannot be written, an input
/// already quantised without allow_requantize, numbers that are not finite or do not fit), unsupported,
/// corrupt_data; messages name the tensor.
Result<QuantizeReport> quantize_model(const Checkpoint& input, const std::string& output,
                                      const QuantizeOptions& options, ThreadPool& pool,
                                      const QuantizeProgress& progress);

/// The same from tensors that somebody else planned. `set_metadata` fills in the keys of the file; `input`
/// owns the views in `plans`.
Result<QuantizeReport> quantize_tensors(const Checkpoint& input, const std::vector<GgufTensorPlan>& plans,
                                        const std::function<Status(GgufWriter&)>& set_metadata,
                                        const std::string& output, const QuantizeOptions& options,
                                        ThreadPool& pool, const QuantizeProgress& progress);

/// True when `name` matches the glob `pattern`.
bool glob_matches(const std::string& pattern, const std::string& name);

/// The types quantize_model can write, for messages: "F32, F16, ...".
std::string writable_type_names();

}  // namespace dspark
