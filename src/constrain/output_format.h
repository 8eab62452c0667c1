#pragma once
// How a model writes reasoning and tool calls, as far as its chat template tells.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace dspark {

/// Ways to write a tool call.
enum class ToolFormat : uint8_t {
  kNone,      // no tool calls are looked for
  kHermes,    // <tool_call>{"name": ..., "arguments": {...}}</tool_call>  (ChatML models, Qwen 2.5 and 3)
  kLlama3,    // the whole answer is {"name": ..., "parameters": {...}}, maybe behind <|python_tag|>
  kGemma,     // such JSON or a Python call as the whole answer or in a fence (json, tool_code, tool_call)
  kDeepSeek,  // <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>NAME<｜tool▁sep｜>{...}<｜tool▁call▁end｜>...
  kDeepSeekR1,  // the same with "function" before the separator, the name behind it and a json fence
  kDeepSeekV32,  // <｜DSML｜function_calls> with <｜DSML｜invoke name="NAME">, one <｜DSML｜parameter> for
                 // each
  kDeepSeekV4,  // the same in <｜DSML｜tool_calls>
  kQwenXml,     // <tool_call><function=NAME><parameter=KEY>VALUE</parameter></function></tool_call>
                // (Qwen3-Coder, 3.5)
  kGemma4,      // <|tool_call>call:NAME{key:<|"|>text<|"|>,other:1}<tool_call|>
};
/// "none", "hermes", "llama3", "gemma", "deepseek", "deepseek-r1", "deepseek-v3.2", "deepseek-v4",
/// "qwen-xml", "gemma4".
const char* tool_format_name(ToolFormat format);

/// Ways to write reasoning.
enum class ReasoningFormat : uint8_t {
  kThink,    // <think> ... </think> before the answer
  kChannel,  // <|channel>thought ... <channel|>, anywhere  (Gemma 4)
};
struct ReasoningTags {
  std::string_view begin, end;
};
ReasoningTags reasoning_tags(ReasoningFormat format);

/// What an OutputParser looks for.
struct OutputFormat {
  ToolFormat tools = ToolFormat::kNone;
  bool has_reasoning = false;  // the model may write some
  ReasoningFormat reasoning = ReasoningFormat::kThink;
};

/// From the source of a chat template. Templates that write calls in an unknown way get kNone.
OutputFormat detect_output_format(std::string_view chat_template);

/// Where an answer stands with reasoning when it begins.
enum class ReasoningStart : uint8_t {
  kNone,   // none comes: the model has none, or the prompt has closed it
  kMaybe,  // the model may open some
  kOpen,   // the prompt has opened it
};
/// From a rendered prompt.
ReasoningStart reasoning_start(const OutputFormat& format, std::string_view prompt);

/// Texts of control tokens that matter to the format. Where the vocabulary marks them as control tokens, the
/// parser wants to see their text all the same, and a grammar wants to produce them (make_token_trie).
std::vector<std::string> marker_texts(ToolFormat format);

/// A function that may be called.
struct ToolDescription {
  std::string name;
  std::string parameters;  // its JSON schema as text; empty: any object
  bool strict = false;     // arguments must keep to the schema
};

}  // namespace dspark
