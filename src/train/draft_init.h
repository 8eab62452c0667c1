#pragma once
// Private to the room: a new drafter for a target, and the target's frozen tensors.

#include <memory>
#include <vector>

#include "models/config.h"
#include "train/draft_model.h"
#include "train/sample_source.h"
#include "train/trainer.h"

namespace dspark {

/// The target's file, its configuration and the matrices that every drafter borrows.
struct TrainTarget {
  std::shared_ptr<const Checkpoint> checkpoint;
  ModelConfig config;
  at::Tensor embedding;   // fp32 [vocab, dim]
  at::Tensor head;        // fp32 [vocab, dim]; the embedding when tied
  at::Tensor final_norm;  // fp32 [dim], as a plain factor
};

Result<TrainTarget> open_train_target(const std::string& path);

/// How often every id occurs in the samples. (vocab) each.
struct TokenCounts {
  std::vector<int64_t> supervised;
  std::vector<int64_t> all;
};

/// errors: corrupt_data for an id outside the vocabulary, naming source and sample.
Result<TokenCounts> count_tokens(const SampleSources& sources, int32_t vocab_size);

/// A new drafter as the options describe it, ready to train: configuration, draft vocabulary, first weights.
Result<DraftModel> new_draft_model(const TrainOptions& options, const TrainTarget& target,
                                   const SampleSources& sources);

}  // namespace dspark
