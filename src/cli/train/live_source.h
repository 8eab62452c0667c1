#pragma once
// Training samples whose features the target computes while the trainer works: no cache on disk.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "train/sample_source.h"

namespace dspark::cli {

struct LiveOptions {
  std::string model;                 // the target
  std::vector<std::string> corpora;  // JSON lines, as of `dspark data generate`
  std::vector<int32_t> layers;       // whose outputs are features, -1: the embedding; empty: five, spread
  int threads = 1;                   // of the target
  int32_t max_length = 4096;         // longer samples are cut
  int32_t min_loss_tokens = 14;      // samples with fewer supervised tokens are left out
  bool log_sum_exp = false;          // of the target's logits at supervised positions
  bool float_activations = false;    // exact float arithmetic
  int32_t batch_rows = 512;          // tokens of a pass
};

/// Reads the corpora and loads the target. Samples have the numbers and the order that a cache of the same
/// corpora and options would have. A thread of its own computes what is expected next.
/// errors: those of the files and the model; invalid_argument (layers).
Result<std::unique_ptr<SampleSource>> open_live_source(const LiveOptions& options);

}  // namespace dspark::cli
