#pragma once
// Fitted confidence temperatures as a JSON file: {"temperatures": [...], "dataset": "...", "num_samples": n,
// "ece_before": [...], "ece_after": [...], "accept_rule": "coupled", "temperature": t}, and where they are
// known "biases": [...] (as many as temperatures) and "target": the model's file name.

#include <string>

#include "base/status.h"
#include "speculate/calibration.h"

namespace dspark {

/// Where the calibration of a drafter lies: "calibration.json" in its folder, or "NAME.calibration.json"
/// beside a file "NAME.gguf". returns: that path, whether there is a file or not; "" when the drafter is no
/// path.
std::string calibration_path(const std::string& drafter);

/// errors: not_found, corrupt_data (no JSON), invalid_argument naming file and key: temperatures finite and
/// above 0, between 1 and kMaxDraftTokens of them; unknown keys are refused.
Result<Calibration> read_calibration(const std::string& path);
/// Replaces the file at once or not at all. errors: those of writing.
Status write_calibration(const std::string& path, const Calibration& calibration);

}  // namespace dspark
