#pragma once
// Engine options for a model behind the server.

#include <cstdint>
#include <string>

#include "base/status.h"
#include "engine/loader.h"
#include "kernels/kv_cache.h"

namespace dspark {

struct ServedModelOptions {
  std::string name;
  int32_t max_sequences = 8;
  int32_t context = 0;    // most tokens of prompt plus answer; 0: the model's
  int64_t kv_tokens = 0;  // see EngineOptions
  int64_t max_waiting = 256;
  KvDType kv_dtype = KvDType::kBF16;
};

/// errors: unsupported (no tokenizer), invalid_argument.
Result<EngineOptions> served_engine_options(const LoadedModel& loaded, const ServedModelOptions& options);

}  // namespace dspark
