#pragma once
// Private to the room: what a run leaves on disk.

#include <cstdint>
#include <string>

#include "base/status.h"
#include "train/draft_model.h"
#include "train/optimizer.h"

namespace dspark {

/// Where a run stands. Data order and anchors follow from the options' seed and these counts.
struct TrainCounters {
  int64_t step = 0;  // finished
  int64_t anchors = 0;
  double elapsed_s = 0;
};

/// Writes masters, moments, averages and counters to one file that appears only when it is complete.
Status save_state(const std::string& path, const TensorMap& masters, AdamW& adam, const TensorMap& average,
                  const TrainCounters& counters);

/// Reads them back into tensors of the same names and shapes. `average` stays empty when the file has none.
/// errors: not_found, corrupt_data, invalid_argument naming a missing or misshapen tensor.
Status load_state(const std::string& path, TensorMap& masters, AdamW& adam, TensorMap& average,
                  TrainCounters& counters);

/// Writes the drafter in the DeepSpec layout, bf16, without embedding and head.
Status export_draft(const std::string& folder, const DraftConfig& config, const TensorMap& trainable,
                    const TensorMap& buffers);

}  // namespace dspark
