#pragma once
// Calls of tools as parts of a grammar, in the model's own notation.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "constrain/grammar_ir.h"
#include "constrain/output_format.h"

namespace dspark {

/// What calls there may be.
struct CallRules {
  int32_t max_calls = 1;  // at least one; GrammarIr::kUnbounded: any number
  /// Every schema must be one that can be forced; else tools that are not strict may do without.
  bool forces_all = true;
  size_t n_read = 0;  // bytes of calls_opening() that stand in the text already
};

/// One block of calls of `tools`, and nothing else. errors: invalid_argument (no tools, a format without
/// calls), those of parameters_in with the tool's name.
Result<GrammarIr::Node> calls_of(GrammarIr& ir, ToolFormat format, const std::vector<ToolDescription>& tools,
                                 const CallRules& rules);

/// How faults of the schema of a tool begin.
std::string schema_label(const std::string& tool_name);

/// What stands in front of the name in the first call of a block. requires: not kNone.
std::string calls_opening(ToolFormat format);

}  // namespace dspark
