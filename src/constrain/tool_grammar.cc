#include "constrain/tool_grammar.h"

#include <algorithm>
#include <utility>

#include "constrain/call_scanner.h"
#include "constrain/parameter_grammar.h"

namespace dspark {
namespace {

using Node = GrammarIr::Node;

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
    case ToolFormat::kDeepSeekV32:
      return {"<｜DSML｜function_calls>\n", "\n",    "\n</｜DSML｜function_calls>",
              "<｜DSML｜invoke name=\"",    "\">\n", "</｜DSML｜invoke>"};
    case ToolFormat::kDeepSeekV4:
      return {"<｜DSML｜tool_calls>\n",  "\n",    "\n</｜DSML｜tool_calls>",
              "<｜DSML｜invoke name=\"", "\">\n", "</｜DSML｜invoke>"};
    case ToolFormat::kQwenXml:
      return {"", "\n", "", "<tool_call>\n<function=", ">\n", "</function>\n</tool_call>"};
    case ToolFormat::kGemma4:
      return {"", "", "", "<|tool_call>call:", "", "<tool_call|>"};
    default:
      return {"", "; ", "", "{\"name\": ", ", \"parameters\": ", "}"};
  }
}

bool quotes_names(ToolFormat format) {
  return format == ToolFormat::kHermes || format == ToolFormat::kLlama3 || format == ToolFormat::kGemma;
}

// All behind a call's name, with the name: what does not depend on where the call stands.
Result<Node> named_call(GrammarIr& ir, ToolFormat format, const ToolDescription& tool, bool forces_all) {
  const CallTexts texts = texts_of(format);
  const std::string label = schema_label(tool.name);
  Result<Node> parameters = parameters_in(format, ir, tool.parameters, label);
  if (!parameters.ok() && !forces_all && !tool.strict) parameters = parameters_in(format, ir, {}, label);
  if (!parameters.ok()) return parameters.status();
  const std::string name = quotes_names(format) ? json_quoted(tool.name) : tool.name;
  return ir.sequence({ir.literal(name + texts.after_name), *parameters, ir.literal(texts.after_arguments)});
}

}  // namespace

std::string schema_label(const std::string& tool_name) {
  return "tools: parameters of '" + tool_name + "'";
}

std::string calls_opening(ToolFormat format) {
  const CallTexts texts = texts_of(format);
  return texts.begin + texts.before_name;
}

Result<Node> calls_of(GrammarIr& ir, ToolFormat format, const std::vector<ToolDescription>& tools,
                      const CallRules& rules) {
  if (tools.empty()) return invalid_argument("tools: a call is required, but there are no tools");
  if (format == ToolFormat::kNone) {
    return invalid_argument(
        "tool_choice: how this model writes tool calls is not known, so a call cannot be required");
  }
  std::vector<Node> named;
  for (const ToolDescription& tool : tools) {
    DSPARK_ASSIGN_OR_RETURN(const Node one, named_call(ir, format, tool, rules.forces_all));
    named.push_back(one);
  }
  const CallTexts texts = texts_of(format);
  const Node call = ir.named("call", ir.choice(std::move(named)));
  const Node next = ir.sequence({ir.literal(texts.between + texts.before_name), call});
  const int32_t most = rules.max_calls < 0 ? GrammarIr::kUnbounded : std::max(1, rules.max_calls) - 1;
  return ir.sequence({ir.literal(calls_opening(format).substr(rules.n_read)), call, ir.repeat(next, 0, most),
                      ir.literal(texts.end)});
}

}  // namespace dspark
