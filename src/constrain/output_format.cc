#include "constrain/output_format.h"

#include <algorithm>

#include "constrain/call_scanner.h"
#include "constrain/json_schema.h"
#include "constrain/json_terminals.h"

namespace dspark {
namespace {

using Node = GrammarIr::Node;

constexpr std::string_view kThinkEnd = "</think>";

// Any text up to and with the first `marker`: one rule per matched length, falling back as Knuth, Morris and
// Pratt do. requires: ASCII.
Node text_through(GrammarIr& ir, std::string_view marker) {
  std::vector<int32_t> rules;
  for (size_t i = 0; i < marker.size(); ++i) rules.push_back(ir.add_rule("text up to a marker"));
  const auto next_length = [&](size_t matched, char c) {
    std::string seen(marker.substr(0, matched));
    seen += c;
    size_t length = std::min(seen.size(), marker.size());
    while (!seen.ends_with(marker.substr(0, length))) --length;
    return length;
  };
  for (size_t i = 0; i < marker.size(); ++i) {
    std::vector<Node> parts;
    std::vector<CodeRange> special;
    for (char c : marker) {
      const auto code = static_cast<uint8_t>(c);
      if (std::any_of(special.begin(), special.end(), [code](const CodeRange& r) { return r.first == code; }))
        continue;
      special.push_back({code, code});
      const size_t length = next_length(i, c);
      const Node read = ir.literal(std::string_view(&c, 1));
      parts.push_back(length == marker.size() ? read : ir.sequence({read, ir.call(rules[length])}));
    }
    parts.push_back(ir.sequence({ir.not_in(special), ir.call(rules[0])}));
    ir.set_body(rules[i], ir.choice(std::move(parts)));
  }
  return ir.call(rules[0]);
}

struct CallTexts {
  std::string begin, between, end;  // of all calls
  std::string before_name, after_name, after_arguments;
};

CallTexts texts_of(ToolFormat format) {
  switch (format) {
    case ToolFormat::kHermes:
      return {"", "\n", "", "<tool_call>\n{\"name\": ", ", \"arguments\": ", "}\n</tool_call>"};
    case ToolFormat::kDeepSeek:
      return {"<｜tool▁calls▁begin｜>", "", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>",
              "<｜tool▁call▁end｜>"};
    case ToolFormat::kDeepSeekR1:
      return {"<｜tool▁calls▁begin｜>",
              "\n",
              "<｜tool▁calls▁end｜>",
              "<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
              "\n```json\n",
              "\n```<｜tool▁call▁end｜>"};
    default:
      return {"", "; ", "", "{\"name\": ", ", \"parameters\": ", "}"};
  }
}

bool names_stand_alone(ToolFormat format) {
  return format == ToolFormat::kDeepSeek || format == ToolFormat::kDeepSeekR1;
}

}  // namespace

const char* tool_format_name(ToolFormat format) {
  switch (format) {
    case ToolFormat::kNone:
      return "none";
    case ToolFormat::kHermes:
      return "hermes";
    case ToolFormat::kLlama3:
      return "llama3";
    case ToolFormat::kGemma:
      return "gemma";
    case ToolFormat::kDeepSeek:
      return "deepseek";
    case ToolFormat::kDeepSeekR1:
      return "deepseek-r1";
    case ToolFormat::kDeepSeekV32:
      return "deepseek-v3.2";
    case ToolFormat::kDeepSeekV4:
      return "deepseek-v4";
    case ToolFormat::kQwenXml:
      return "qwen-xml";
    case ToolFormat::kGemma4:
      return "gemma4";
  }
  return "none";
}

OutputFormat detect_output_format(std::string_view chat_template) {
  const auto has = [&](std::string_view text) { return chat_template.find(text) != std::string_view::npos; };
  OutputFormat format;
  format.has_reasoning = has("<think>") || has("</think>");
  if (has("<|tool_call>call:")) {
    if (has("<|channel>")) format = {ToolFormat::kNone, true, ReasoningFormat::kChannel};
    format.tools = ToolFormat::kGemma4;
    return format;
  }
  if (has("｜DSML｜")) {
    format.tools = has("function_calls>") ? ToolFormat::kDeepSeekV32 : ToolFormat::kDeepSeekV4;
    return format;
  }
  if (has("<function=")) {
    if (has("<parameter=")) format.tools = ToolFormat::kQwenXml;
    return format;
  }
  if (has("<｜tool▁calls▁begin｜>")) {
    format.tools = has("```json") ? ToolFormat::kDeepSeekR1 : ToolFormat::kDeepSeek;
  } else if (has("<tool_call>")) {
    format.tools = ToolFormat::kHermes;
  } else if (has("<|start_header_id|>")) {
    format.tools = ToolFormat::kLlama3;
  } else if (has("<start_of_turn>")) {
    format.tools = ToolFormat::kGemma;
  } else if (has("<|im_start|>")) {
    format.tools = ToolFormat::kHermes;
  }
  return format;
}

ReasoningTags reasoning_tags(ReasoningFormat format) {
  if (format == ReasoningFormat::kChannel) return {"<|channel>thought", "<channel|>"};
  return {"<think>", "</think>"};
}

bool prompt_opens_reasoning(std::string_view prompt) {
  while (!prompt.empty() && (prompt.back() == '\n' || prompt.back() == ' ')) prompt.remove_suffix(1);
  return prompt.ends_with(reasoning_tags(ReasoningFormat::kThink).begin) ||
         prompt.ends_with(reasoning_tags(ReasoningFormat::kChannel).begin);
}

std::vector<std::string> marker_texts(ToolFormat format) {
  switch (format) {
    case ToolFormat::kHermes:
    case ToolFormat::kQwenXml:
      return {"<think>", "</think>", "<tool_call>", "</tool_call>"};
    case ToolFormat::kDeepSeekV32:
    case ToolFormat::kDeepSeekV4:
      return {"<think>", "</think>", "｜DSML｜"};
    case ToolFormat::kGemma4:
      return {"<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", "<|\"|>"};
    case ToolFormat::kLlama3:
      return {"<think>", "</think>", "<|python_tag|>"};
    case ToolFormat::kDeepSeek:
    case ToolFormat::kDeepSeekR1:
      return {"<think>",
              "</think>",
              "<｜tool▁calls▁begin｜>",
              "<｜tool▁calls▁end｜>",
              "<｜tool▁call▁begin｜>",
              "<｜tool▁call▁end｜>",
              "<｜tool▁sep｜>"};
    default:
      return {"<think>", "</think>"};
  }
}

Result<Grammar> make_tool_grammar(ToolFormat format, const std::vector<ToolDescription>& tools,
                                  const ToolGrammarOptions& options) {
  if (tools.empty()) return invalid_argument("tools: a call is required, but there are no tools");
  if (format == ToolFormat::kNone) {
    return invalid_argument(
        "tool_choice: how this model writes tool calls is not known, so a call cannot be required");
  }
  const CallTexts texts = texts_of(format);
  GrammarIr ir;
  std::vector<Node> calls;
  for (const ToolDescription& tool : tools) {
    const std::string label = "tools: parameters of '" + tool.name + "'";
    DSPARK_ASSIGN_OR_RETURN(
        const GrammarIr parameters,
        compile_json_schema(tool.parameters.empty() ? R"({"type":"object"})" : tool.parameters, label));
    const std::string name = names_stand_alone(format) ? tool.name : json_quoted(tool.name);
    calls.push_back(ir.sequence({ir.literal(texts.before_name + name + texts.after_name),
                                 ir.append(parameters), ir.literal(texts.after_arguments)}));
  }
  const Node call = ir.named("call", ir.choice(std::move(calls)));
  const Node more =
      ir.repeat(ir.sequence({ir.literal(texts.between), call}), 0, std::max(1, options.max_calls) - 1);
  Node all = ir.sequence({ir.literal(texts.begin), call, more, ir.literal(texts.end)});
  if (options.in_reasoning) {
    const Node gap = ir.repeat(ir.literal("\n"), 0, 2);
    all = ir.sequence({text_through(ir, kThinkEnd), gap, all});
  }
  ir.root = ir.add_rule("root");
  ir.set_body(ir.root, all);
  return Grammar::from_ir(ir);
}

}  // namespace dspark
