#include "cli/chat_prompt.h"

#include <nlohmann/json.hpp>

#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace dspark::cli {

Result<std::vector<int32_t>> encode_chat(const LoadedModel& loaded, const std::vector<ChatTurn>& turns,
                                         bool thinking) {
  const Tokenizer& tokenizer = *loaded.tokenizer;
  nlohmann::ordered_json messages = nlohmann::ordered_json::array();
  for (const ChatTurn& turn : turns) messages.push_back({{"role", turn.role}, {"content", turn.content}});
  const nlohmann::ordered_json extra = {{"enable_thinking", false}};
  ChatInputs inputs;
  inputs.messages = &messages;
  if (!thinking) inputs.extra = &extra;
  const std::string bos(tokenizer.token_text(tokenizer.bos_id()));
  if (!bos.empty()) inputs.bos_token = bos;
  const std::string eos(tokenizer.token_text(tokenizer.eos_id()));
  if (!eos.empty()) inputs.eos_token = eos;
  Result<std::string> text = loaded.chat_template->render(inputs);
  if (!text.ok()) return Status(text.status().code(), "chat template: " + text.status().message());
  const bool has_bos = !bos.empty() && text->starts_with(bos);
  return tokenizer.encode(*text, !has_bos, true);
}

}  // namespace dspark::cli
