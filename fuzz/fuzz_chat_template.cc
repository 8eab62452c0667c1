// Any bytes as a chat template, rendered with a small conversation: no crash, no hang, no unbounded memory.
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "text/chat_template.h"

namespace {

const nlohmann::ordered_json& conversation() {
  static const nlohmann::ordered_json messages = nlohmann::ordered_json::parse(R"([
      {"role": "system", "content": "Be terse."},
      {"role": "user", "content": [{"type": "text", "text": "h\u00e9llo\n"}]},
      {"role": "assistant", "content": null, "tool_calls": [
          {"type": "function", "function": {"name": "f", "arguments": {"x": 1, "y": [1.5, true, null]}}}]},
      {"role": "tool", "content": "{\"a\": [1, 2]}"},
      {"role": "user", "content": "a<think>b</think>c"}])");
  return messages;
}

const nlohmann::ordered_json& tools() {
  static const nlohmann::ordered_json list = nlohmann::ordered_json::parse(R"([
      {"type": "function", "function": {"name": "f", "description": "d", "parameters":
          {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}}}])");
  return list;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto parsed = dspark::ChatTemplate::parse(std::string(reinterpret_cast<const char*>(data), size));
  if (!parsed.ok()) return 0;
  dspark::ChatInputs inputs;
  inputs.messages = &conversation();
  inputs.tools = &tools();
  inputs.bos_token = "<s>";
  inputs.eos_token = "</s>";
  const auto first = parsed->render(inputs);
  if (first.ok() && first->size() > (size_t{16} << 20)) __builtin_trap();
  return 0;
}
