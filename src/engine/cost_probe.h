#pragma once
// Measures what passes cost on this machine, for the cost model of adaptive verification.

#include <chrono>
#include <cstdint>
#include <functional>
#include <vector>

#include "draft/drafter.h"
#include "kernels/kv_cache.h"
#include "models/model.h"
#include "speculate/cost_model.h"

namespace dspark {

/// Passes up to this many rows are timed often, larger ones at most twice.
inline constexpr int32_t kSmallProbeRows = 64;

struct CostProbeOptions {
  int32_t max_rows = 64;              // largest target pass worth knowing
  int32_t max_sequences = 1;          // largest drafter batch; the drafter has at least as many free slots
  KvDType kv_dtype = KvDType::kBF16;  // of the target's cache, as it will be served
  int32_t context = 128;              // cached positions of a sequence during the measurements
  int32_t long_context = 2048;        // a second context, to see what positions cost; more than the first
  /// One more, where it is at least twice the second: when its cache takes 256 MiB at most and time suffices.
  int32_t most_context = 0;
  double budget_s = 2.0;  // for everything: no new pass that is expected to go beyond; at least four are made
  /// The time that passes are measured by; empty: the steady clock. For tests.
  std::function<std::chrono::steady_clock::time_point()> clock = {};
};

/// Rows of the target passes that a probe up to `most` rows times, ascending from 1, the last one `most`:
/// where speculation decides, and on both sides of the first stairs. Kernels take up to 8 rows at a time
/// (kernels/panels.h), so row 9, 17, 25, ... costs more than the ones after it. Above 64 rows, where a stair
/// is a small share of a pass, only powers of two well below `most`.
std::vector<int32_t> probe_rows(int32_t most);
/// The same of the drafter's sequences: 1, 2, 3, 4, 6, 8, 12, 16, ...
std::vector<int32_t> probe_sequences(int32_t most);

/// Contexts beside the first that passes of one row and of a few are timed at, ascending: 512 where the
/// second is at least twice that, the second, and the third where it is at least twice the second.
std::vector<int32_t> probe_contexts(int32_t context, int32_t long_context, int32_t most_context);

/// Times target passes of probe_rows() rows at one context and of two sizes at probe_contexts() more, and
/// drafter passes of probe_sequences() sequences, whole blocks, single drafts and, where the drafter has
/// short blocks, as many drafts as one of them gives: medians of repeats taken in turn, so that a slow moment
/// meets all sizes; passes beyond 64 rows or 8 sequences at most twice, the first to warm up. Large sizes,
/// and contexts but the second, that the time does not suffice for are left out. The target gets a cache of
/// its own with zeros in it; the drafter gets sequences in slots 0.. that are released again. requires:
/// nobody else uses model and drafter meanwhile; the drafter's slots are free. The capture layers of the
/// model stay as they are. errors: out_of_memory, and what the drafter reports.
Result<CostTable> measure_costs(TargetModel& model, Drafter* drafter, const CostProbeOptions& options);

}  // namespace dspark
