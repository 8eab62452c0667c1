#pragma once
// A conversation as the text and the ids that a target is asked with.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"

namespace dspark {

class ChatTemplate;  // text/chat_template.h
class Tokenizer;     // text/tokenizer.h

/// One turn of a conversation.
struct ChatMessage {
  std::string role;  // "system", "user", "assistant"
  std::string content;
};

/// The template's text for `messages`, ending with the opening of the assistant's turn when asked for.
/// thinking: false tells templates that know the variable enable_thinking to leave it out.
/// errors: the template refuses the conversation.
Result<std::string> render_chat(const ChatTemplate& chat_template, const Tokenizer& tokenizer,
                                std::span<const ChatMessage> messages, bool add_generation_prompt,
                                bool thinking = true);

/// Ids of a rendered conversation: special tokens are recognised, BOS comes in front unless the template
/// wrote it.
std::vector<int32_t> encode_rendered(const Tokenizer& tokenizer, const std::string& text);

/// What the template writes in front of a first user's words: asked with it, an instruct model writes a
/// user's turn of its own. errors: those of render_chat; unsupported when the template does not repeat the
/// content.
Result<std::string> render_user_header(const ChatTemplate& chat_template, const Tokenizer& tokenizer);

}  // namespace dspark
