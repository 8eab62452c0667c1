#pragma once
// What passes cost on machines that are not there: cost tables for the scheduler's simulation.

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"
#include "speculate/cost_model.h"

namespace dspark {

/// Built-in curves, seconds by rows 1 .. max_rows; every number of rows has an entry.
///   "flat"    a small CPU: nothing for the first 4 rows, then every row costs a sixth of the first pass
///   "linear"  compute-bound from the first row: half a base, half by rows
///   "gpu"     flat up to a knee of 256 rows, linear behind it, on both sides with a step every 64 rows
///   (tiles)
///             and a dip at full tiles, as measured curves of accelerators have
/// The drafter's pass: a tenth of a pass with one row, and a share of what its block rows would cost the
/// target. errors: invalid_argument (unknown name).
Result<CostTable> built_in_costs(std::string_view name, int32_t max_rows, int32_t max_sequences);

/// {"verify": [{"n": 1, "seconds": s}, ...], "draft": [...], "context_s": s, "row_context_s": s,
/// "overhead_s": s, "draft_length": n, "draft_short": [...], "context_curve": [[positions, counted], ...]},
/// alone or as the member "costs" of an object (a report of `dspark bench load`). Lists but "verify" and
/// numbers may be missing. errors: not_found, corrupt_data, invalid_argument naming the file and the field.
Result<CostTable> read_cost_table(const std::string& path);

/// The entries of `table` that a measurement at start-up would find: probe_rows() up to max_rows and
/// probe_sequences() up to max_sequences (engine/cost_probe.h).
CostTable sample_costs(const CostTable& table, int32_t max_rows, int32_t max_sequences);

}  // namespace dspark
