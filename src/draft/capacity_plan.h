#pragma once
// How much memory a target and its drafter take, and how fast memory lets them be: from configs alone.

#include <cstdint>
#include <optional>
#include <string>

#include "base/status.h"
#include "draft/draft_config.h"
#include "formats/checkpoint.h"
#include "kernels/kv_layout.h"
#include "models/config.h"

namespace dspark {

/// What is planned for.
struct PlanOptions {
  double weight_bits = 0.0;  // of every matrix element; 0: as models/stored_form.h tells
  KvDType kv_dtype = KvDType::kBF16;
  int32_t context = 4096;      // tokens of every sequence
  int32_t batch = 1;           // sequences that decode together
  double accept_length = 3.0;  // tokens that one verified block brings, the bonus included
};

/// The parts of a plan. Bytes are those in memory while the model runs, except disk_bytes.
struct PlanPart {
  int64_t parameters = 0;
  int64_t active_parameters = 0;  // that one token's pass multiplies with
  double disk_bytes = 0.0;        // of the weights' files
  double weight_bytes = 0.0;
  double cache_bytes_per_token = 0.0;  // of one sequence, all layers
  double cache_bytes = 0.0;            // of all sequences at the full context
};

struct CapacityPlan {
  PlanPart target;
  std::optional<PlanPart> draft;
  int32_t block = 0;         // drafts of one pass
  double total_bytes = 0.0;  // weights and caches of both
  double step_bytes = 0.0;   // read to decode one token of every sequence
  double round_bytes = 0.0;  // read to draft and verify one block of every sequence; 0 without a drafter
  /// Tokens per second of all sequences together that a memory of `bandwidth` bytes per second allows at
  /// most.
  double plain_roof(double bandwidth, const PlanOptions& options) const;
  /// The same with drafting; 0 without a drafter.
  double draft_roof(double bandwidth, const PlanOptions& options) const;
};

/// The drafter that goes with a target: a folder of its own, or the one inside a DeepSeek V4 checkpoint.
/// Tensors need not be there. errors: as the readers of drafters; not_found when `file` has none inside.
Result<DraftConfig> plan_draft_config(const Checkpoint& file, const ModelConfig* target);

/// `draft_file` (or nullptr: none): its config; may be `target_file` itself.
/// errors: as read_model_config and plan_draft_config; invalid_argument for options out of range.
Result<CapacityPlan> plan_capacity(const Checkpoint& target_file, const Checkpoint* draft_file,
                                   const PlanOptions& options);

}  // namespace dspark
