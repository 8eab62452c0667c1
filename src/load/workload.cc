#include "load/workload.h"

#include <algorithm>
#include <cmath>

#include "base/philox.h"

namespace dspark {
namespace {

// Streams of numbers of one seed.
enum Stream : uint32_t { kSource = 0, kLength = 1, kToken = 2 };

double uniform(uint64_t seed, int64_t i, Stream stream) {
  return uniform_of_word(noise_word(seed, static_cast<uint64_t>(i), stream));
}

}  // namespace

Result<std::vector<LoadRequest>> make_workload(const std::vector<PromptSource>& sources,
                                               const WorkloadOptions& options) {
  double total = 0.0;
  for (const PromptSource& source : sources) {
    if (source.prompts.empty()) return invalid_argument(source.name + ": has no prompts");
    if (!std::isfinite(source.weight) || source.weight < 0.0) {
      return invalid_argument(source.name + ": want a weight of 0 or more");
    }
    total += source.weight;
  }
  if (!(total > 0.0)) return invalid_argument("want prompts with a weight above 0");
  std::vector<LoadRequest> requests;
  std::vector<size_t> turn(sources.size(), 0);
  for (int64_t i = 0; i < options.n_requests; ++i) {
    double left = uniform(options.seed, i, kSource) * total;
    size_t s = 0;
    while (s + 1 < sources.size() && left >= sources[s].weight) left -= sources[s++].weight;
    while (sources[s].weight == 0.0) --s;  // rounding may run past the last with a weight
    LoadRequest request;
    request.source = static_cast<int32_t>(s);
    request.prompt = sources[s].prompts[turn[s]++ % sources[s].prompts.size()];
    const int32_t span = options.most_tokens - options.least_tokens + 1;
    request.max_tokens = options.least_tokens +
                         std::min(span - 1, static_cast<int32_t>(uniform(options.seed, i, kLength) * span));
    request.seed = options.seed + static_cast<uint64_t>(i);
    requests.push_back(std::move(request));
  }
  return requests;
}

PromptSource synthetic_source(int32_t n_tokens, int32_t n_prompts, int32_t vocab_size, uint64_t seed) {
  PromptSource source;
  source.name = "synthetic " + std::to_string(n_tokens);
  for (int32_t p = 0; p < n_prompts; ++p) {
    std::vector<int32_t> prompt;
    for (int32_t i = 0; i < n_tokens; ++i) {
      const double u = uniform(seed, (int64_t{p} << 32) + i, kToken);
      prompt.push_back(std::min(vocab_size - 1, static_cast<int32_t>(u * vocab_size)));
    }
    source.prompts.push_back(std::move(prompt));
  }
  return source;
}

}  // namespace dspark
