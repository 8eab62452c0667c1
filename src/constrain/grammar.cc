#include "constrain/grammar.h"

#include "constrain/automaton.h"
#include "constrain/gbnf.h"
#include "constrain/json_schema.h"
#include "constrain/state_machine.h"

namespace dspark {

Result<Grammar> Grammar::from_ir(const GrammarIr& ir) {
  DSPARK_ASSIGN_OR_RETURN(Automaton automaton, Automaton::build(ir));
  return Grammar(std::make_shared<const Automaton>(std::move(automaton)));
}

Result<Grammar> Grammar::from_gbnf(std::string_view text, std::string_view name) {
  DSPARK_ASSIGN_OR_RETURN(const GrammarIr ir, parse_gbnf(text, name));
  Result<Grammar> grammar = from_ir(ir);
  if (!grammar.ok())
    return Status(grammar.status().code(), std::string(name) + ": " + grammar.status().message());
  return grammar;
}

Result<Grammar> Grammar::from_json_schema(std::string_view schema, std::string_view name) {
  DSPARK_ASSIGN_OR_RETURN(const GrammarIr ir, compile_json_schema(schema, name));
  Result<Grammar> grammar = from_ir(ir);
  if (!grammar.ok())
    return Status(grammar.status().code(), std::string(name) + ": " + grammar.status().message());
  return grammar;
}

Result<Grammar> Grammar::json_object() {
  return from_json_schema(R"({"type": "object"})", "json_object");
}

int32_t Grammar::end_state(std::string_view text, bool* accepts) const {
  StateMachine machine(*automaton_);
  int32_t state = machine.start();
  for (char byte : text) state = machine.next(state, static_cast<uint8_t>(byte));
  *accepts = machine.accepts(state);
  return state;
}

bool Grammar::matches(std::string_view text) const {
  bool accepts = false;
  end_state(text, &accepts);
  return accepts;
}

bool Grammar::matches_start(std::string_view text) const {
  bool accepts = false;
  return end_state(text, &accepts) != StateMachine::kDead;
}

}  // namespace dspark
