#pragma once
// Pictures of an evaluation.

#include <string>
#include <vector>

#include "base/status.h"
#include "cli/eval_report.h"

namespace dspark::cli {

/// Writes survival.svg and conditional.svg (a line per task, the mean over tasks, the baseline) and, when the
/// drafter has a confidence head and nothing was trimmed, reliability.svg (what was predicted against what
/// came) into `folder`, which is made when it does not exist. errors: those of writing.
Status write_plots(const std::string& folder, const EvalReport& report,
                   const std::vector<TaskAnswers>& answers);

}  // namespace dspark::cli
