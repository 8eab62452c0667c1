// Any bytes as a GBNF grammar, then a little text under it: no crash, no hang, no unbounded memory.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "constrain/automaton.h"
#include "constrain/grammar.h"
#include "constrain/state_machine.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto grammar = dspark::Grammar::from_gbnf(text);
  if (!grammar.ok()) return 0;
  dspark::StateMachine machine(grammar->automaton());
  int32_t state = machine.start();
  for (size_t i = 0; i < size && i < 64 && state != dspark::StateMachine::kDead; ++i) {
    state = machine.next(state, data[i]);
    // What is alive can always be completed.
    if (state != dspark::StateMachine::kDead && machine.to_end(state) >= dspark::kNeverEnds) __builtin_trap();
  }
  return 0;
}
