#include "text/chat_prompt.h"

#include <nlohmann/json.hpp>

#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace dspark {

Result<std::string> render_chat(const ChatTemplate& chat_template, const Tokenizer& tokenizer,
                                std::span<const ChatMessage> messages, bool add_generation_prompt,
                                bool thinking) {
  nlohmann::ordered_json turns = nlohmann::ordered_json::array();
  for (const ChatMessage& message : messages) {
    turns.push_back({{"role", message.role}, {"content", message.content}});
  }
  ChatInputs inputs;
  inputs.messages = &turns;
  inputs.add_generation_prompt = add_generation_prompt;
  const nlohmann::ordered_json no_thinking = {{"enable_thinking", false}};
  if (!thinking) inputs.extra = &no_thinking;
  const std::string bos(tokenizer.token_text(tokenizer.bos_id()));
  if (!bos.empty()) inputs.bos_token = bos;
  const std::string eos(tokenizer.token_text(tokenizer.eos_id()));
  if (!eos.empty()) inputs.eos_token = eos;
  Result<std::string> text = chat_template.render(inputs);
  if (!text.ok()) return Status(text.status().code(), "chat template: " + text.status().message());
  return text;
}

std::vector<int32_t> encode_rendered(const Tokenizer& tokenizer, const std::string& text) {
  const std::string_view bos = tokenizer.token_text(tokenizer.bos_id());
  const bool has_bos = !bos.empty() && text.starts_with(bos);
  return tokenizer.encode(text, !has_bos, true);
}

Result<std::string> render_user_header(const ChatTemplate& chat_template, const Tokenizer& tokenizer) {
  // Words that no template writes by itself; no white space at the ends, which templates trim.
  static constexpr char kMark[] = "dspark-mark-5f1c0a";
  const ChatMessage message = {"user", kMark};
  DSPARK_ASSIGN_OR_RETURN(const std::string text,
                          render_chat(chat_template, tokenizer, {&message, 1}, false));
  const size_t at = text.find(kMark);
  if (at == std::string::npos) return unsupported("chat template: does not write the user's words");
  return text.substr(0, at);
}

}  // namespace dspark
