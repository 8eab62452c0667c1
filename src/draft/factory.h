#pragma once
// Drafters by name, as the command line spells them.

#include <cstdint>
#include <memory>
#include <string_view>

#include "base/status.h"
#include "base/thread_pool.h"
#include "draft/drafter.h"
#include "kernels/kv_cache.h"
#include "models/model.h"

namespace dspark {

/// What a learned drafter is built for. Prompt lookup needs none of it.
struct DrafterContext {
  /// The target it drafts for; the drafter borrows its embedding and head, so the model must outlive it.
  TargetModel* target = nullptr;
  ThreadPool* pool = nullptr;         // must outlive the drafter
  int32_t max_sequences = 1;          // slots 0 .. max_sequences - 1
  int32_t context_length = 4096;      // most tokens of one sequence
  int64_t cache_tokens = 0;           // most tokens of all sequences together; 0: every sequence may be full
  KvDType kv_dtype = KvDType::kBF16;  // of the drafter's own cache
  bool float_activations = false;     // exact fp32 path: weights decoded to float (tests)
  int32_t shortlist = 0;  // the sequential head looks at this many of the best base logits per slot; 0: all
  /// Not 0: the weights are replaced by noise from this seed (draft/random_weights.h): a bad drafter at the
  /// price of the real one.
  uint64_t random_weights = 0;
};

/// The parts of "DRAFTER+LOOKUP"; lookup is empty without "+ngram...".
struct DrafterSpec {
  std::string_view drafter;
  std::string_view lookup;
};
DrafterSpec split_drafter_spec(std::string_view spec);
/// "ngram" or "ngram:...".
bool names_lookup(std::string_view spec);

/// The drafter inside the target's own checkpoint (DeepSeek V4), as a spec.
inline constexpr std::string_view kBundledDrafter = "bundled";

/// "none" (or ""): no drafter, a null pointer. "bundled" or the path of
/// the target itself: the drafter inside it (draft/v4_drafter.h). "ngram": prompt lookup with its default
/// lengths; "ngram:MAX" and "ngram:MIN-MAX" choose the suffix lengths tried. Anything else is the path of a
/// learned drafter (draft/draft_checkpoint.h); "PATH+ngram" (with lengths or without) joins it with prompt
/// lookup (draft/hybrid_drafter.h). errors: invalid_argument (neither a name nor a path that exists; a
/// drafter for another target, with the field or the token that differs), and those of open_draft_checkpoint.
/// requires: context.target and context.pool set for a path.
Result<std::unique_ptr<Drafter>> make_drafter(std::string_view spec, const DrafterContext& context = {});

}  // namespace dspark
