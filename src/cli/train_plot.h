#pragma once
// Pictures of a training run, from the CSV files that it writes.

#include <string>

#include "base/status.h"

namespace dspark::cli {

/// Writes `folder`/tau.svg (expected tokens per round, of training steps and of held-out samples) and
/// `folder`/loss.svg over the anchors seen, from log.csv and, where it is there, eval.csv
/// (src/train/run_log.h). errors: those of the files; corrupt_data naming a missing column or a line that has
/// no number there.
Status write_train_plots(const std::string& folder);

}  // namespace dspark::cli
