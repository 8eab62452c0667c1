#include "constrain/answer_grammar.h"

#include <string>
#include <string_view>
#include <utility>

#include "constrain/call_reader.h"
#include "constrain/text_grammar.h"
#include "constrain/tool_grammar.h"

namespace dspark {
namespace {

using Node = GrammarIr::Node;

constexpr std::string_view kPythonTag = "<|python_tag|>";

// The answer behind its reasoning.
Result<Grammar> whole(GrammarIr& ir, const OutputFormat& format, ReasoningStart start, Node answer) {
  if (start != ReasoningStart::kNone) {
    const ReasoningTags tags = reasoning_tags(format.reasoning);
    const Node gap = ir.repeat(ir.literal("\n"), 0, 2);
    Node reasoning = ir.sequence({text_through(ir, tags.end), gap});
    if (start == ReasoningStart::kMaybe)
      reasoning = ir.optional(ir.sequence({ir.literal(tags.begin), reasoning}));
    answer = ir.sequence({reasoning, answer});
  }
  ir.root = ir.add_rule("root");
  ir.set_body(ir.root, answer);
  return Grammar::from_ir(ir);
}

// Text that is no call, or nothing but calls.
Result<Node> calls_or_text(GrammarIr& ir, const OutputFormat& format,
                           const std::vector<ToolDescription>& tools, const CallRules& rules) {
  DSPARK_ASSIGN_OR_RETURN(const Node calls, calls_of(ir, format.tools, tools, rules));
  std::vector<std::string_view> begin_calls{"{", kPythonTag};
  // Behind reasoning calls are looked for anew: it must not pass for text.
  if (format.has_reasoning) begin_calls.push_back(reasoning_tags(format.reasoning).begin);
  return ir.choice({ir.sequence({blanks(ir), ir.optional(ir.literal(kPythonTag)), calls}),
                    text_not_beginning_with(ir, begin_calls)});
}

// Text with calls anywhere in it.
Result<Node> calls_in_text(GrammarIr& ir, const OutputFormat& format,
                           const std::vector<ToolDescription>& tools, CallRules rules) {
  const std::string opening = calls_opening(format.tools);
  std::vector<TextMark> marks;
  if (format.has_reasoning && format.reasoning == ReasoningFormat::kChannel) {
    const ReasoningTags tags = reasoning_tags(format.reasoning);
    marks.push_back({tags.begin, text_through(ir, tags.end), true});
  }
  for (const std::string_view marker : call_markers(format.tools)) {
    // Openings that the parser merely forgives may not stand in the text.
    TextMark mark{marker, {}, rules.max_calls < 0};
    if (opening.starts_with(marker)) {
      rules.n_read = marker.size();
      DSPARK_ASSIGN_OR_RETURN(mark.followed, calls_of(ir, format.tools, tools, rules));
    }
    marks.push_back(mark);
  }
  return text_with_marks(ir, marks, true);
}

}  // namespace

Result<Grammar> make_tool_grammar(const OutputFormat& format, const std::vector<ToolDescription>& tools,
                                  const AnswerGrammarOptions& options) {
  GrammarIr ir;
  DSPARK_ASSIGN_OR_RETURN(const Node calls, calls_of(ir, format.tools, tools, {options.max_calls}));
  return whole(ir, format, options.reasoning, calls);
}

Result<Grammar> make_content_grammar(const OutputFormat& format, const GrammarIr& content,
                                     const std::vector<ToolDescription>& tools,
                                     const AnswerGrammarOptions& options) {
  GrammarIr ir;
  Node answer = ir.append(content);
  if (!tools.empty()) {
    DSPARK_ASSIGN_OR_RETURN(const Node calls, calls_of(ir, format.tools, tools, {options.max_calls, false}));
    answer = ir.choice({answer, calls});
  }
  return whole(ir, format, options.reasoning, answer);
}

bool can_watch_calls(ToolFormat format) {
  return format != ToolFormat::kNone && format != ToolFormat::kGemma;
}

Result<Grammar> make_strict_grammar(const OutputFormat& format, const std::vector<ToolDescription>& tools,
                                    const AnswerGrammarOptions& options) {
  GrammarIr ir;
  const CallRules rules{options.max_calls, false};
  const bool is_whole_answer = format.tools == ToolFormat::kLlama3;
  DSPARK_ASSIGN_OR_RETURN(const Node answer, is_whole_answer ? calls_or_text(ir, format, tools, rules)
                                                             : calls_in_text(ir, format, tools, rules));
  return whole(ir, format, options.reasoning, answer);
}

}  // namespace dspark
