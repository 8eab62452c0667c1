#pragma once
// A grammar as a machine over bytes: one nondeterministic automaton per rule, with call edges between them
// (a pushdown automaton; "recursive transition network"). Built once from a GrammarIr, then const.

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "constrain/grammar_ir.h"

namespace dspark {

/// Most positions and edges of one automaton; what is larger is refused.
inline constexpr size_t kMaxGrammarPositions = size_t{1} << 20;
/// Bytes that no text needs: the cost of a position that cannot end.
inline constexpr int32_t kNeverEnds = INT32_MAX / 4;

/// thread: const, any thread.
class Automaton {
 public:
  struct ByteEdge {
    uint8_t first = 0, last = 0;
    int32_t target = 0;
  };
  struct CallEdge {
    int32_t entry = 0;  // position where the called rule begins
    int32_t after = 0;  // position to go on at when it has ended
  };
  struct Position {
    int32_t byte_begin = 0, byte_end = 0;  // into byte_edges
    int32_t call_begin = 0, call_end = 0;  // into call_edges
    int32_t skip_begin = 0, skip_end = 0;  // into skips: positions reached without a byte
    int32_t to_end = kNeverEnds;           // least bytes to the end of the rule
    bool ends_rule = false;                // the rule may end here
    bool only_ends = false;                // ... and nothing else can happen here
  };

  /// errors: invalid_argument naming a rule without a body, left recursion (with the cycle), a root that can
  /// never end; resource_exhausted for a grammar too large.
  static Result<Automaton> build(const GrammarIr& grammar);

  const Position& position(int32_t p) const { return positions[static_cast<size_t>(p)]; }

  std::vector<Position> positions;
  std::vector<ByteEdge> byte_edges;
  std::vector<CallEdge> call_edges;
  std::vector<int32_t> skips;
  int32_t root_entry = 0;
  /// Bytes that no edge tells apart share a class.
  std::array<uint8_t, 256> byte_class{};
  int32_t n_byte_classes = 0;
};

}  // namespace dspark
