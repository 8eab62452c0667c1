#include "server/served_model.h"

#include <algorithm>
#include <memory>
#include <set>

#include "constrain/output_format.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace dspark {
namespace {

// Control tokens whose text the parser of answers has to see.
std::shared_ptr<const std::set<int32_t>> marker_tokens(const LoadedModel& loaded) {
  auto markers = std::make_shared<std::set<int32_t>>();
  if (loaded.chat_template == nullptr) return markers;
  const OutputFormat format = detect_output_format(loaded.chat_template->source());
  for (const std::string& text : marker_texts(format.tools)) {
    const int32_t id = loaded.tokenizer->find_token(text);
    if (id >= 0 && !loaded.tokenizer->is_stop(id)) markers->insert(id);
  }
  return markers;
}

}  // namespace

Result<EngineOptions> served_engine_options(const LoadedModel& loaded, const ServedModelOptions& options) {
  if (loaded.tokenizer == nullptr) return unsupported(loaded.path + ": has no tokenizer");
  EngineOptions engine;
  engine.max_sequences = options.max_sequences;
  const int32_t most = loaded.model->config().context_length;
  const bool shorter = options.context > 0 && (most <= 0 || options.context < most);
  engine.context_length = shorter ? options.context : most;
  engine.kv_tokens = options.kv_tokens;
  if (engine.kv_tokens > 0 && engine.kv_tokens < engine.context_length) {
    return invalid_argument("--kv-tokens: want at least the context of " +
                            std::to_string(engine.context_length) + ", found " +
                            std::to_string(engine.kv_tokens));
  }
  engine.max_waiting = options.max_waiting;
  engine.kv_dtype = options.kv_dtype;
  engine.prefill_rows = suitable_prefill_rows(loaded.model->config());
  engine.max_batch_rows = engine.prefill_rows + std::max(1536, options.max_sequences * 8);
  engine.token_bytes = [tokenizer = loaded.tokenizer, markers = marker_tokens(loaded)](int32_t token,
                                                                                       std::string& out) {
    if (!tokenizer->is_special(token) || markers->contains(token)) out.append(tokenizer->token_bytes(token));
  };
  return engine;
}

}  // namespace dspark
