#pragma once
// The two phases of Automaton::build that are worth their own files: expressions to edges, and what must hold
// for the result.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/status.h"
#include "constrain/automaton.h"
#include "constrain/grammar_ir.h"

namespace dspark {

/// Edges while they are collected, one entry per position.
struct RawAutomaton {
  struct Position {
    std::vector<Automaton::ByteEdge> bytes;
    std::vector<std::pair<int32_t, int32_t>> calls;  // rule, position after it
    std::vector<int32_t> skips;
  };
  struct Rule {
    int32_t entry = -1, end = -1;
    int32_t least_bytes = kNeverEnds;  // analyse()
    bool nullable = false;             // analyse()
  };
  std::vector<Position> positions;
  std::vector<Rule> rules;
  std::vector<int32_t> to_end;  // analyse(): least bytes from a position to the end of its rule
};

/// All rules reachable from the root, as raw edges. errors: as Automaton::build.
Result<RawAutomaton> make_raw_automaton(const GrammarIr& grammar);

/// Fills the fields named above and refuses left recursion and roots that cannot end.
Status analyse(const GrammarIr& grammar, RawAutomaton& raw);

}  // namespace dspark
