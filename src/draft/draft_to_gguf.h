#pragma once
// A drafter of any format as one GGUF file, at a chosen element type.

#include <string>

#include "base/status.h"
#include "base/thread_pool.h"
#include "draft/draft_checkpoint.h"
#include "formats/quantize_model.h"

namespace dspark {

struct DraftGgufOptions {
  QuantizeOptions types;
  /// The target, a GGUF file or a Hugging Face folder, or nullptr. Given, the tokenizer keys are copied from
  /// it (else from the drafter's own file, if that has them), and an embedding or head equal to the target's,
  /// up to the rounding of a quantised target, is left out.
  const Checkpoint* target = nullptr;
  /// For engines that take a reduced vocabulary only together with a head of its own: writes the rows of the
  /// target's head. Needs `target`.
  bool standalone = false;
};

/// Writes architecture "dflash" as llama.cpp reads it (DSpark, DFlash), "dspark-eagle3" or "dspark-mtp". The
/// file opens again as the same DraftConfig, except for its source.
/// - An embedding without a head is left out, with a note: llama.cpp would use it as the head.
/// - DFlash drafters get an all-zero Markov head (rank 8), without which llama.cpp takes the drafts from the
///   wrong slots; our reader drops it.
/// - Notes name what keeps llama.cpp from reading the file: gated and RNN heads, absent q and k norms, a soft
///   cap, a reduced vocabulary without a head.
/// errors: those of quantize_model; invalid_argument when target and drafter do not belong together.
Result<QuantizeReport> draft_to_gguf(const DraftCheckpoint& draft, const std::string& output,
                                     const DraftGgufOptions& options, ThreadPool& pool,
                                     const QuantizeProgress& progress);

}  // namespace dspark
