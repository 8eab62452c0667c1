#pragma once
// A Hugging Face model folder in the words of GGUF: tensor names, row orders, metadata keys, tokenizer.
// Architectures: llama, qwen2, qwen3, qwen3_moe, gemma3 (text part). Facts: docs/models.md.

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "formats/checkpoint.h"
#include "formats/gguf_writer.h"
#include "tensor/tensor.h"

namespace dspark {

/// One tensor of the GGUF file to be, made from one or several stored tensors. The views stay owned by the
/// checkpoint.
struct GgufTensorPlan {
  std::string name;
  std::vector<int64_t> shape;              // row-major, as GgufWriter::declare wants it
  std::vector<const TensorView*> sources;  // stacked in order along a new first dimension when several
  int64_t permuted_heads = 0;  // > 0: rows of so many heads go from half-split to interleaved pairs
  float add = 0.0f;            // added to every element (Gemma norms: 1)
  std::vector<float> values;   // computed tensors have values instead of sources

  int64_t row_elements() const { return shape.back(); }
  int64_t n_rows() const;
  /// Type of the first source; F32 for computed tensors.
  DType stored_dtype() const;
  /// Bytes of the sources.
  size_t stored_bytes() const;
  /// True when the stored bytes are the wanted values in the wanted order: may be copied as they are.
  bool is_verbatim() const;
  /// Writes row `row` (row_elements() floats). requires: can_decode(stored_dtype()), 0 <= row < n_rows().
  void read_row(int64_t row, float* out) const;
};

/// Maps every tensor of the checkpoint. `notes` gets one line for each thing left out on purpose.
/// errors: those of config.json; unsupported or corrupt_data listing tensors that are missing, unknown or of
/// the wrong shape or type.
Result<std::vector<GgufTensorPlan>> plan_hf_tensors(const Checkpoint& checkpoint,
                                                    std::vector<std::string>& notes);

/// Sets general.*, <arch>.* and tokenizer.* keys. requires: plan_hf_tensors accepted the checkpoint (it
/// checks the sizes in config.json against the tensors). A tokenizer that GGUF cannot express is not an
/// error: the file says "no_vocab" and a note says why.
Status set_hf_metadata(const Checkpoint& checkpoint, GgufWriter& writer, std::vector<std::string>& notes);

}  // namespace dspark
