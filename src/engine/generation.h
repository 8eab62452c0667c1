#pragma once
// Blocking generation of one request, for command lines and tests.

#include <atomic>
#include <string>
#include <vector>

#include "engine/engine.h"

namespace dspark {

/// The whole output of one request.
struct GenerateResult {
  std::vector<int32_t> tokens;  // committed output tokens, a closing stop token included
  std::vector<TokenEvent> events;
  std::string text;  // stop token and stop string excluded; empty without a token-bytes function
  FinishReason finish_reason = FinishReason::kNone;
  GenerateStats stats;
};

/// Submits `request` and drives engine.step() until it ends (other requests of the engine advance too).
/// on_update may be empty; it sees every StreamUpdate of this request. `cancel`, when given, is read before
/// every step: true ends the request with FinishReason::kCancelled and the text so far.
/// errors: those of Engine::submit and of a failed step. thread: the engine thread.
Result<GenerateResult> generate(Engine& engine, GenerateRequest request, const StreamCallback& on_update = {},
                                const std::atomic<bool>* cancel = nullptr);

}  // namespace dspark
