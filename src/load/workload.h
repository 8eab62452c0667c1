#pragma once
// What clients ask for: a fixed list of requests, the same for everything that is compared.

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"

namespace dspark {

/// Prompts of one kind.
struct PromptSource {
  std::string name;
  double weight = 1.0;  // requests are drawn from the sources in proportion
  std::vector<std::vector<int32_t>> prompts;
};

/// One request of a workload.
struct LoadRequest {
  int32_t source = 0;
  std::vector<int32_t> prompt;
  int32_t max_tokens = 0;
  uint64_t seed = 0;
};

struct WorkloadOptions {
  int64_t n_requests = 0;
  int32_t least_tokens = 0;  // of an answer: drawn uniformly from least_tokens .. most_tokens
  int32_t most_tokens = 0;
  uint64_t seed = 0;
};

/// Draws requests: sources by weight, the prompts of a source in turn, starting again when all were used.
/// A pure function of its arguments; a longer list begins with the shorter one.
/// errors: invalid_argument: no sources, an empty source, a weight that is not finite and >= 0, all weights
/// 0.
Result<std::vector<LoadRequest>> make_workload(const std::vector<PromptSource>& sources,
                                               const WorkloadOptions& options);

/// `n_prompts` prompts of `n_tokens` random ids below `vocab_size`.
PromptSource synthetic_source(int32_t n_tokens, int32_t n_prompts, int32_t vocab_size, uint64_t seed);

}  // namespace dspark
