#include "engine/generation.h"

#include <memory>
#include <utility>

namespace dspark {

Result<GenerateResult> generate(Engine& engine, GenerateRequest request, const StreamCallback& on_update,
                                const std::atomic<bool>* cancel) {
  GenerateResult result;
  DSPARK_ASSIGN_OR_RETURN(
      const RequestId id,
      engine.submit(std::move(request), [&result, &on_update](const StreamUpdate& update) {
        for (const TokenEvent& event : update.tokens) result.tokens.push_back(event.token);
        result.events.insert(result.events.end(), update.tokens.begin(), update.tokens.end());
        result.text.append(update.text);
        result.finish_reason = update.finish_reason;
        result.stats = *update.stats;
        if (on_update) on_update(update);
      }));
  bool told = false;
  while (result.finish_reason == FinishReason::kNone) {
    if (!told && cancel != nullptr && cancel->load(std::memory_order_relaxed)) {
      engine.cancel(id);
      told = true;
    }
    engine.step();
  }
  if (result.finish_reason == FinishReason::kError) {
    return out_of_memory("forward pass: no memory for its buffers");
  }
  return result;
}

}  // namespace dspark
