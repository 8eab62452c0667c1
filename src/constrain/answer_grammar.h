#pragma once
// Grammars of whole answers: reasoning, and behind it what a request asks for.

#include <cstdint>
#include <vector>

#include "base/status.h"
#include "constrain/grammar.h"
#include "constrain/grammar_ir.h"
#include "constrain/output_format.h"

namespace dspark {

struct AnswerGrammarOptions {
  int32_t max_calls = 1;  // most calls of tools; GrammarIr::kUnbounded: any number
  /// kOpen: the text begins inside of reasoning, and what is up to its end tag is free. kMaybe: such a part
  /// may come first.
  ReasoningStart reasoning = ReasoningStart::kNone;
};

/// What tool_choice "required" (any tool of the list) and a named tool (a list of one) force: a call, or up
/// to max_calls. errors: invalid_argument (no tools, a format without calls, names), those of
/// Grammar::from_json_schema with the tool's name.
Result<Grammar> make_tool_grammar(const OutputFormat& format, const std::vector<ToolDescription>& tools,
                                  const AnswerGrammarOptions& options = {});

/// A text of `content` or, where there are tools, calls of them instead. Arguments keep to the tool's schema;
/// a tool that is not strict and whose schema cannot be forced takes any. errors: as above, of `content` as
/// those of Grammar::from_ir.
Result<Grammar> make_content_grammar(const OutputFormat& format, const GrammarIr& content,
                                     const std::vector<ToolDescription>& tools,
                                     const AnswerGrammarOptions& options = {});

/// Whether make_strict_grammar() knows where calls of the format begin. Not so for kNone and kGemma, whose
/// calls may stand in fences of code like other text.
bool can_watch_calls(ToolFormat format);

/// Free text in which what begins like a call is one, its arguments as in make_content_grammar(). With a
/// limit on calls the text ends behind them. requires: can_watch_calls(). errors: as above.
Result<Grammar> make_strict_grammar(const OutputFormat& format, const std::vector<ToolDescription>& tools,
                                    const AnswerGrammarOptions& options = {});

}  // namespace dspark
