#pragma once
// Private to the room: the options of a run on disk, so that it cannot be continued with others by mistake.

#include <string>

#include "train/tensors.h"
#include "train/trainer.h"

namespace dspark {

/// Writes what decides a run's numbers, one key per option of `dspark train`.
Status save_run_options(const std::string& path, const TrainOptions& options, Precision precision);

/// Compares options with those of the run in `path` and returns the precision that it computes with; a run
/// from before this file was written gives `precision` itself. Free to differ: threads, device, processes as
/// long as a micro-step keeps its sequences, how often the state is written, where files lie; the budget and
/// the list of caches or corpora may grow.
/// errors: invalid_argument naming the option and both values, corrupt_data.
Result<Precision> check_run_options(const std::string& path, const TrainOptions& options,
                                    Precision precision);

}  // namespace dspark
