#pragma once
// Fitted confidence temperatures as a JSON file: {"temperatures": [...], "dataset": "...", "num_samples": n,
// "ece_before": [...], "ece_after": [...], "accept_rule": "coupled", "temperature": t}.

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "speculate/accept.h"

namespace dspark {

/// Sequential temperature scaling of one drafter for one way of serving.
struct CalibrationFile {
  std::vector<double> temperatures;  // confidence k is sigmoid(logit / temperatures[k])
  std::string dataset;               // what the rounds came from
  int64_t num_samples = 0;           // rounds behind the fit
  std::vector<double> ece_before;    // per position, same length as temperatures
  std::vector<double> ece_after;
  AcceptRule accept_rule = AcceptRule::kCoupled;  // how drafts were judged
  double temperature = 0.0;                       // of sampling; 0: greedy
};

/// errors: not_found, corrupt_data (no JSON), invalid_argument naming file and key: temperatures finite and
/// above 0, between 1 and kMaxDraftTokens of them; unknown keys are refused.
Result<CalibrationFile> read_calibration(const std::string& path);
/// Replaces the file at once or not at all. errors: those of writing.
Status write_calibration(const std::string& path, const CalibrationFile& calibration);

}  // namespace dspark
