#pragma once
// How a model writes reasoning and tool calls, as far as its chat template tells.

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "constrain/grammar.h"

namespace dspark {

/// Ways to write a tool call.
enum class ToolFormat : uint8_t {
  kNone,      // no tool calls are looked for
  kHermes,    // <tool_call>{"name": ..., "arguments": {...}}</tool_call>  (ChatML models, Qwen 2.5 and 3)
  kLlama3,    // the whole answer is {"name": ..., "parameters": {...}}, maybe behind <|python_tag|>
  kGemma,     // such JSON or a Python call as the whole answer or in a fence (json, tool_code, tool_call)
  kDeepSeek,  // <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>NAME<｜tool▁sep｜>{...}<｜tool▁call▁end｜>...
  kDeepSeekR1,  // the same with "function" before the separator, the name behind it and a json fence
};
/// "none", "hermes", "llama3", "gemma", "deepseek", "deepseek-r1".
const char* tool_format_name(ToolFormat format);

/// What an OutputParser looks for.
struct OutputFormat {
  ToolFormat tools = ToolFormat::kNone;
  bool has_reasoning = false;  // the model may write <think> ... </think> before its answer
};

/// From the source of a chat template. Templates that write calls in another way (DeepSeek's DSML, Qwen's XML
/// functions, Gemma 4's own notation) get kNone.
OutputFormat detect_output_format(std::string_view chat_template);

/// Whether a rendered prompt leaves the answer inside a reasoning part that it opened.
bool prompt_opens_reasoning(std::string_view prompt);

/// Texts of control tokens that matter to the format. Where the vocabulary marks them as control tokens, the
/// parser wants to see their text all the same, and a grammar wants to produce them (make_token_trie).
std::vector<std::string> marker_texts(ToolFormat format);

/// A function that may be called. parameters: its JSON schema as text; empty: any object.
struct ToolDescription {
  std::string name;
  std::string parameters;
};

/// What tool_choice "required" (any tool of the list) and a named tool (a list of one) force: one call, or up
/// to `max_calls`, and nothing else but reasoning before them.
struct ToolGrammarOptions {
  int max_calls = 1;
  bool in_reasoning = false;  // the text begins inside <think>; what is up to </think> is free
};
/// errors: invalid_argument (no tools, a format without calls, names), those of Grammar::from_json_schema
/// with the tool's name.
Result<Grammar> make_tool_grammar(ToolFormat format, const std::vector<ToolDescription>& tools,
                                  const ToolGrammarOptions& options = {});

}  // namespace dspark
