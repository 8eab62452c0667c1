// Statements, macros and loops; see jinja_eval.h.
#include <algorithm>
#include <optional>

#include "text/jinja_error.h"
#include "text/jinja_eval.h"
#include "text/jinja_ops.h"
#include "text/jinja_parser.h"

namespace dspark::jinja {

namespace {
constexpr size_t kVariableBytes = 128;  // a hash node with its value
}  // namespace

void Scope::set(std::string_view name, Value value) {
  const auto [at, is_new] = vars.try_emplace(name);
  if (is_new) heap->grow(kVariableBytes);
  at->second = std::move(value);
}

void Scope::drop() noexcept {
  heap->shrink(vars.size() * kVariableBytes);
  vars.clear();
}

template <typename F>
auto Interp::in_scope(const ScopePtr& parent, F&& body) {
  struct Restore {
    Interp& interp;
    ScopePtr saved;
    ~Restore() { interp.scope_ = std::move(saved); }
  };
  const Restore restore{*this, std::exchange(scope_, std::make_shared<Scope>(&heap_, parent))};
  return body();
}

template <typename F>
std::string Interp::collect(F&& body) {
  struct Restore {
    Interp& interp;
    TextBuilder* saved;
    ~Restore() { interp.out_ = saved; }
  };
  TextBuilder text(heap_);
  const Restore restore{*this, std::exchange(out_, &text)};
  body();
  return text.take();
}

std::string Interp::run(const Block& block) {
  return collect([&] { exec_block(block); });
}

Interp::Flow Interp::exec_block(const Block& block) {
  for (const auto& stmt : block) {
    try {
      const Flow flow = exec(*stmt);
      if (flow != Flow::kNormal) return flow;
    } catch (JinjaError& error) {
      if (error.line == 0) error.line = stmt->line;
      throw;
    }
  }
  return Flow::kNormal;
}

Interp::Flow Interp::exec(const Stmt& stmt) {
  const DepthGuard guard(*this);
  heap_.work();
  switch (stmt.kind) {
    case Stmt::Kind::kText:
      out_->add(stmt.text);
      break;
    case Stmt::Kind::kOutput:
      append_text(*out_, eval(*stmt.expr));
      break;
    case Stmt::Kind::kSet:
      assign(stmt.target, eval(*stmt.expr));
      break;
    case Stmt::Kind::kSetBlock:
    case Stmt::Kind::kFilterBlock:
      return exec_text_block(stmt);
    case Stmt::Kind::kIf:
      return exec_if(stmt);
    case Stmt::Kind::kFor:
      return exec_for(stmt);
    case Stmt::Kind::kWith:
      return exec_with(stmt);
    case Stmt::Kind::kMacro:
      exec_macro(stmt);
      break;
    case Stmt::Kind::kCallBlock:
      exec_call_block(stmt);
      break;
    case Stmt::Kind::kScope:
      return exec_scoped(stmt.body);
    case Stmt::Kind::kBreak:
      return Flow::kBreak;
    case Stmt::Kind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNormal;
}

Interp::Flow Interp::exec_if(const Stmt& stmt) {
  for (const Stmt::Branch& branch : stmt.branches) {
    if (truthy(eval(*branch.condition))) return exec_block(branch.body);
  }
  return exec_block(stmt.orelse);
}

Interp::Flow Interp::exec_scoped(const Block& block) {
  return in_scope(scope_, [&] { return exec_block(block); });
}

// {% set x %}...{% endset %} and {% filter f %}...{% endfilter %}.
Interp::Flow Interp::exec_text_block(const Stmt& stmt) {
  Flow flow = Flow::kNormal;
  Value text = string(collect([&] { flow = exec_scoped(stmt.body); }));
  if (flow != Flow::kNormal) return flow;
  if (stmt.expr) {
    text = in_scope(scope_, [&] {
      scope_->set(kBlockText, text);
      return eval(*stmt.expr);
    });
  }
  if (stmt.kind == Stmt::Kind::kFilterBlock) {
    append_text(*out_, text);
  } else {
    assign(stmt.target, text);
  }
  return Flow::kNormal;
}

Interp::Flow Interp::exec_with(const Stmt& stmt) {
  const Values values = eval_all(stmt.values);
  return in_scope(scope_, [&] {
    for (size_t i = 0; i < values.size(); ++i) assign(stmt.targets[i], values[i]);
    return exec_block(stmt.body);
  });
}

void Interp::assign(const Target& target, const Value& value) {
  if (!target.parts.empty()) {
    const Values items = to_items(heap_, value);
    if (items.size() != target.parts.size()) {
      fail(ErrorKind::kValue, (items.size() < target.parts.size() ? "not enough values to unpack (expected "
                                                                  : "too many values to unpack (expected ") +
                                  std::to_string(target.parts.size()) + ", got " +
                                  std::to_string(items.size()) + ")");
    }
    for (size_t i = 0; i < items.size(); ++i) assign(target.parts[i], items[i]);
    return;
  }
  if (target.attribute.empty()) {
    scope_->set(target.name, value);
    return;
  }
  const Value* object = lookup(target.name);
  if (object == nullptr || !object->is(Kind::kNamespace)) {
    fail(ErrorKind::kRuntime, "cannot assign attribute on non-namespace object");
  }
  object->as<NamespaceObj>().set(target.attribute, value);
}

// The elements of a loop, filtered by its condition.
Values Interp::loop_items(const Stmt& stmt, const Value& iterable) {
  Values items = to_items(heap_, iterable);
  if (!stmt.condition) return items;
  Values kept;
  for (const Value& item : items) {
    heap_.loop_step();
    const bool wanted = in_scope(scope_, [&] {
      assign(stmt.target, item);
      return truthy(eval(*stmt.condition));
    });
    if (wanted) kept.push_back(item);
  }
  return kept;
}

Interp::Flow Interp::exec_for(const Stmt& stmt) {
  Values items = loop_items(stmt, eval(*stmt.expr));
  bool any = false;
  const Flow flow = run_loop(stmt, std::move(items), 0, any);
  if (any || flow != Flow::kNormal) return flow;
  return exec_scoped(stmt.orelse);
}

// Always kNormal: break and continue end here.
Interp::Flow Interp::run_loop(const Stmt& stmt, Values items, int depth0, bool& any) {
  any = !items.empty();
  if (!any) return Flow::kNormal;
  int depth = 1;
  for (const Value& item : items) depth = std::max(depth, item.depth() + 1);
  auto loop = std::make_shared<LoopObj>(&heap_, std::move(items), depth);
  loop->stmt = &stmt;
  loop->depth0 = depth0;
  if (stmt.recursive) {
    loop->outer = scope_;
    keep_scopes();
    heap_.keep(loop);
  }
  const Value loop_value(Kind::kLoop, loop);
  const ScopePtr outer = scope_;
  for (size_t i = 0; i < loop->items.size(); ++i) {
    heap_.loop_step();
    loop->index0 = i;
    const Flow flow = in_scope(outer, [&] {
      scope_->set("loop", loop_value);
      assign(stmt.target, loop->items[i]);
      return exec_block(stmt.body);
    });
    if (flow == Flow::kBreak) break;
  }
  return Flow::kNormal;
}

// {{ loop(children) }} in a recursive loop.
Value Interp::call_loop(LoopObj& loop, CallArgs& args) {
  if (!loop.stmt->recursive || loop.outer == nullptr) {
    type_error("The loop must have the 'recursive' marker to be called recursively.");
  }
  if (args.positional.size() != 1 || !args.keyword.empty()) type_error("loop() takes exactly one argument");
  const Stmt& stmt = *loop.stmt;
  const int depth0 = loop.depth0 + 1;
  const ScopePtr outer = loop.outer;
  return string(collect([&] {
    in_scope(outer, [&] {
      bool any = false;
      run_loop(stmt, loop_items(stmt, args.positional[0]), depth0, any);
      if (!any) exec_block(stmt.orelse);
      return 0;
    });
  }));
}

// A macro may outlive the block it was defined in: its scopes stay until the end of the render.
void Interp::keep_scopes() {
  for (ScopePtr scope = scope_; scope != nullptr && !scope->kept; scope = scope->parent) {
    heap_.keep(scope);
    scope->kept = true;
  }
}

Value Interp::make_macro(const MacroDef& def) {
  keep_scopes();
  return {Kind::kMacro, std::make_shared<MacroObj>(&heap_, &def, scope_)};
}

void Interp::exec_macro(const Stmt& stmt) {
  scope_->set(stmt.macro.name, make_macro(stmt.macro));
}

void Interp::exec_call_block(const Stmt& stmt) {
  const Value caller = make_macro(stmt.macro);
  append_text(*out_, eval_call(*stmt.expr, &caller));
}

// Fills the current scope, which is the macro's own, with its parameters.
void Interp::bind_macro_args(const MacroObj& macro, CallArgs& args) {
  const MacroDef& def = *macro.def;
  const std::string who = "macro '" + def.name + "'";
  std::vector<std::optional<Value>> bound(def.params.size());
  Values varargs;
  for (size_t i = 0; i < args.positional.size(); ++i) {
    if (i < bound.size()) {
      bound[i] = std::move(args.positional[i]);
    } else if (def.uses_varargs) {
      varargs.push_back(std::move(args.positional[i]));
    } else {
      type_error(who + " takes not more than " + std::to_string(def.params.size()) + " argument(s)");
    }
  }
  std::vector<DictObj::Entry> kwargs;
  Value caller = heap_.undefined("No caller defined");
  for (auto& [name, value] : args.keyword) {
    const auto at = std::find(def.params.begin(), def.params.end(), name);
    const auto i = static_cast<size_t>(at - def.params.begin());
    if (at != def.params.end()) {
      if (bound[i]) type_error(who + " got multiple values for argument '" + name + "'");
      bound[i] = std::move(value);
    } else if (name == "caller" && def.uses_caller) {
      caller = std::move(value);
    } else if (def.uses_kwargs) {
      kwargs.emplace_back(string(name), std::move(value));
    } else {
      type_error(who + (name == "caller"
                            ? " was invoked with two values for the special caller argument or does "
                              "not take a caller"
                            : " takes no keyword argument '" + name + "'"));
    }
  }
  if (def.uses_caller) scope_->set("caller", caller);
  if (def.uses_varargs) scope_->set("varargs", heap_.tuple(std::move(varargs)));
  if (def.uses_kwargs) scope_->set("kwargs", make_dict(heap_, kwargs));
  const size_t first_default = def.params.size() - def.defaults.size();
  for (size_t i = 0; i < bound.size(); ++i) {
    Value value;
    if (bound[i]) {
      value = std::move(*bound[i]);
    } else if (i >= first_default) {
      value = eval(*def.defaults[i - first_default]);
    } else {
      value = heap_.undefined("parameter '" + def.params[i] + "' was not provided");
    }
    scope_->set(def.params[i], std::move(value));
  }
}

Value Interp::call_macro(const MacroObj& macro, CallArgs& args) {
  // The object may be replaced in its variable while it runs.
  const ScopePtr scope = macro.scope;
  const MacroDef& def = *macro.def;
  return string(collect([&] {
    in_scope(scope, [&] {
      bind_macro_args(macro, args);
      return exec_block(def.body);
    });
  }));
}

}  // namespace dspark::jinja
