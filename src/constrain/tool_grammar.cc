// Grammars that force a call of a tool, in the model's own notation.

#include <algorithm>

#include "constrain/call_scanner.h"
#include "constrain/json_schema.h"
#include "constrain/json_terminals.h"
#include "constrain/output_format.h"
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

}  // namespace

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
    DSPARK_ASSIGN_OR_RETURN(const Node parameters, parameters_in(format, ir, tool.parameters, label));
    const std::string name = quotes_names(format) ? json_quoted(tool.name) : tool.name;
    calls.push_back(ir.sequence({ir.literal(texts.before_name + name + texts.after_name), parameters,
                                 ir.literal(texts.after_arguments)}));
  }
  const Node call = ir.named("call", ir.choice(std::move(calls)));
  const Node more =
      ir.repeat(ir.sequence({ir.literal(texts.between), call}), 0, std::max(1, options.max_calls) - 1);
  Node all = ir.sequence({ir.literal(texts.begin), call, more, ir.literal(texts.end)});
  if (options.in_reasoning) {
    const ReasoningTags tags =
        reasoning_tags(format == ToolFormat::kGemma4 ? ReasoningFormat::kChannel : ReasoningFormat::kThink);
    const Node gap = ir.repeat(ir.literal("\n"), 0, 2);
    all = ir.sequence({text_through(ir, tags.end), gap, all});
  }
  ir.root = ir.add_rule("root");
  ir.set_body(ir.root, all);
  return Grammar::from_ir(ir);
}

}  // namespace dspark
