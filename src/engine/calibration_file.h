#pragma once
// Fitted confidence temperatures as a JSON file: {"temperatures": [...], "dataset": "...", "num_samples": n,
// "ece_before": [...], "ece_after": [...], "accept_rule": "coupled", "temperature": t}, and where they are
// known "biases": [...] (as many as temperatures) and "target": the model's file name. A file with tables for
// several ways of serving is {"tables": [...]} of such objects.

#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "speculate/calibration.h"

namespace dspark {

/// Where the calibration of a drafter lies: "calibration.json" in its folder, or "NAME.calibration.json"
/// beside a file "NAME.gguf". returns: that path, whether there is a file or not; "" when the drafter is no
/// path.
std::string calibration_path(const std::string& drafter);

/// The tables of a file, at least one. errors: not_found, corrupt_data (no JSON), invalid_argument naming
/// file and key: temperatures finite and above 0, between 1 and kMaxDraftTokens of them, at most kMostTables
/// tables; unknown keys are refused.
Result<std::vector<Calibration>> read_calibrations(const std::string& path);
inline constexpr size_t kMostTables = 64;
/// Replaces the file at once or not at all; one table becomes a plain object. requires: tables not empty.
/// errors: those of writing.
Status write_calibrations(const std::string& path, std::span<const Calibration> tables);

}  // namespace dspark
