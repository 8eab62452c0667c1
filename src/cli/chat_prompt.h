#pragma once
// From the turns of a conversation to token ids.

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/loader.h"

namespace dspark::cli {

/// One turn of a conversation.
struct ChatTurn {
  std::string role;  // "system", "user", "assistant"
  std::string content;
};

/// Renders `turns` with the model's chat template, opening the assistant's turn at the end.
/// thinking: what the template is told as enable_thinking, where it asks.
/// requires: the model has a tokenizer and a chat template. errors: the template refuses the conversation.
Result<std::vector<int32_t>> encode_chat(const LoadedModel& loaded, const std::vector<ChatTurn>& turns,
                                         bool thinking = true);

}  // namespace dspark::cli
