// Expressions; see jinja_eval.h.
#include "text/jinja_eval.h"

#include "text/jinja_error.h"
#include "text/jinja_ops.h"

namespace dspark::jinja {
namespace {
constexpr size_t kMaxCallArgs = 10'000;
}  // namespace

Interp::DepthGuard::DepthGuard(Interp& i) : interp(i) {
  if (interp.depth_ >= interp.heap_.limits().max_eval_depth) interp.heap_.too_much("recursion");
  ++interp.depth_;
}

void Interp::charge_text(const Value& self, const CallArgs& args) {
  // Blocks smaller than for copying: builtins go through text character by character.
  size_t bytes = self.is_string() ? self.str().size() : 0;
  for (const Value& arg : args.positional) bytes += arg.is_string() ? arg.str().size() : 0;
  for (const auto& arg : args.keyword) bytes += arg.second.is_string() ? arg.second.str().size() : 0;
  heap_.work(1 + args.positional.size() + args.keyword.size() + bytes / 16);
}

const Value* Interp::lookup(std::string_view name) {
  heap_.work_bytes(name.size());
  for (const Scope* scope = scope_.get(); scope != nullptr; scope = scope->parent.get()) {
    const auto at = scope->vars.find(name);
    if (at != scope->vars.end()) return &at->second;
    heap_.work();
  }
  const auto at = context_.find(name);
  return at == context_.end() ? nullptr : &at->second;
}

Value Interp::eval_name(const Expr& expr) {
  if (const Value* value = lookup(expr.name)) return *value;
  if (const Builtin* global = find_global(expr.name)) {
    return {Kind::kFunction, std::make_shared<FunctionObj>(&heap_, *global)};
  }
  return heap_.undefined("'" + expr.name + "' is undefined");
}

Values Interp::eval_all(const std::vector<ExprPtr>& exprs) {
  Values values;
  values.reserve(exprs.size());
  for (const ExprPtr& expr : exprs) values.push_back(eval(*expr));
  return values;
}

Value Interp::eval_dict(const Expr& expr) {
  std::vector<DictObj::Entry> entries;
  entries.reserve(expr.kids.size() / 2);
  for (size_t i = 0; i + 1 < expr.kids.size(); i += 2) {
    Value key = eval(*expr.kids[i]);
    entries.emplace_back(std::move(key), eval(*expr.kids[i + 1]));
  }
  return make_dict(heap_, entries);
}

Value Interp::eval_compare(const Expr& expr) {
  Value left = eval(*expr.kids[0]);
  for (size_t i = 0; i < expr.compares.size(); ++i) {
    Value right = eval(*expr.kids[i + 1]);
    if (!compare(heap_, expr.compares[i], left, right)) return Value::boolean(false);
    left = std::move(right);
  }
  return Value::boolean(true);
}

Value Interp::eval_concat(const Expr& expr) {
  TextBuilder out(heap_);
  for (const ExprPtr& kid : expr.kids) append_text(out, eval(*kid));
  return heap_.string(out.take());
}

Value Interp::eval_cond(const Expr& expr) {
  if (truthy(eval(*expr.kids[1]))) return eval(*expr.kids[0]);
  if (expr.kids.size() > 2) return eval(*expr.kids[2]);
  return heap_.undefined("the inline if-expression on line " + std::to_string(expr.line) +
                         " evaluated to false and no else section was defined.");
}

Value Interp::eval_slice(const Expr& expr) {
  const Value object = eval(*expr.kids[0]);
  const auto part = [&](size_t i) { return expr.kids[i] ? eval(*expr.kids[i]) : Value::none(); };
  const Value start = part(1), stop = part(2), step = part(3);
  return slice(heap_, object, start, stop, step);
}

CallArgs Interp::eval_args(const ArgExprs& exprs) {
  CallArgs args;
  args.positional = eval_all(exprs.positional);
  if (exprs.star) {
    Values more = to_items(heap_, eval(*exprs.star));
    args.positional.insert(args.positional.end(), more.begin(), more.end());
  }
  for (const auto& [name, expr] : exprs.keyword) args.keyword.emplace_back(name, eval(*expr));
  if (exprs.star_star) {
    const Value more = eval(*exprs.star_star);
    if (!more.is(Kind::kDict)) type_error("argument after ** must be a mapping");
    for (const auto& [key, value] : more.dict().entries) {
      if (!key.is_string()) type_error("keywords must be strings");
      args.keyword.emplace_back(key.str(), value);
    }
  }
  // Arguments live outside the heap's count while a call runs.
  if (args.positional.size() + args.keyword.size() > kMaxCallArgs) heap_.too_much("arguments of one call");
  return args;
}

Value Interp::eval_call(const Expr& expr, const Value* caller) {
  const Expr& target = *expr.kids[0];
  if (target.kind == Expr::Kind::kAttr && caller == nullptr) {
    // A method called at once needs no bound object.
    const Value object = eval(*target.kids[0]);
    if (const Builtin* method = find_method(object, target.name)) {
      CallArgs args = eval_args(expr.args);
      charge_text(object, args);
      return method->fn(*this, object, args);
    }
    const Value callee = get_attribute(object, target.name);
    CallArgs args = eval_args(expr.args);
    return call(callee, args);
  }
  const Value callee = eval(target);
  CallArgs args = eval_args(expr.args);
  if (caller != nullptr) args.keyword.emplace_back("caller", *caller);
  return call(callee, args);
}

Value Interp::eval_filter(const Expr& expr) {
  const Value value = eval(*expr.kids[0]);
  CallArgs args = eval_args(expr.args);
  charge_text(value, args);
  if (expr.builtin == nullptr) fail(ErrorKind::kSyntax, "No filter named '" + expr.name + "'.", expr.line);
  return expr.builtin->fn(*this, value, args);
}

Value Interp::eval_test(const Expr& expr) {
  const Value value = eval(*expr.kids[0]);
  CallArgs args = eval_args(expr.args);
  charge_text(value, args);
  if (expr.builtin == nullptr)
    fail(ErrorKind::kRuntime, "No test named '" + expr.name + "' found.", expr.line);
  return Value::boolean(truthy(expr.builtin->fn(*this, value, args)));
}

Value Interp::eval(const Expr& expr) {
  const DepthGuard guard(*this);
  heap_.work();
  switch (expr.kind) {
    case Expr::Kind::kConst:
      return expr.value;
    case Expr::Kind::kName:
      return eval_name(expr);
    case Expr::Kind::kList:
      return heap_.list(eval_all(expr.kids));
    case Expr::Kind::kTuple:
      return heap_.tuple(eval_all(expr.kids));
    case Expr::Kind::kDict:
      return eval_dict(expr);
    case Expr::Kind::kNegate:
      return negate(heap_, eval(*expr.kids[0]));
    case Expr::Kind::kPositive:
      return positive(eval(*expr.kids[0]));
    case Expr::Kind::kNot:
      return Value::boolean(!truthy(eval(*expr.kids[0])));
    case Expr::Kind::kBinary: {
      const Value left = eval(*expr.kids[0]);
      return binary(heap_, expr.op, left, eval(*expr.kids[1]));
    }
    case Expr::Kind::kAnd: {
      Value left = eval(*expr.kids[0]);
      return truthy(left) ? eval(*expr.kids[1]) : left;
    }
    case Expr::Kind::kOr: {
      Value left = eval(*expr.kids[0]);
      return truthy(left) ? left : eval(*expr.kids[1]);
    }
    case Expr::Kind::kCompare:
      return eval_compare(expr);
    case Expr::Kind::kConcat:
      return eval_concat(expr);
    case Expr::Kind::kCond:
      return eval_cond(expr);
    case Expr::Kind::kAttr:
      return get_attribute(eval(*expr.kids[0]), expr.name);
    case Expr::Kind::kItem: {
      const Value object = eval(*expr.kids[0]);
      return get_item(object, eval(*expr.kids[1]));
    }
    case Expr::Kind::kSlice:
      return eval_slice(expr);
    case Expr::Kind::kCall:
      return eval_call(expr, nullptr);
    case Expr::Kind::kFilter:
      return eval_filter(expr);
    case Expr::Kind::kTest:
      return eval_test(expr);
  }
  return {};
}

Value Interp::apply_filter(std::string_view name, const Value& value, CallArgs& args) {
  const DepthGuard guard(*this);
  charge_text(value, args);
  const Builtin* filter = find_filter(name);
  if (filter == nullptr) fail(ErrorKind::kRuntime, "No filter named '" + std::string(name) + "'.");
  return filter->fn(*this, value, args);
}

bool Interp::apply_test(std::string_view name, const Value& value, CallArgs& args) {
  const DepthGuard guard(*this);
  charge_text(value, args);
  const Builtin* test = find_test(name);
  if (test == nullptr) fail(ErrorKind::kRuntime, "No test named '" + std::string(name) + "'.");
  return truthy(test->fn(*this, value, args));
}

Value Interp::call(const Value& callee, CallArgs& args) {
  const DepthGuard guard(*this);
  heap_.work();
  switch (callee.kind()) {
    case Kind::kFunction:
      charge_text(callee, args);
      return callee.as<FunctionObj>().builtin.fn(*this, Value(), args);
    case Kind::kMethod: {
      const auto& method = callee.as<MethodObj>();
      charge_text(method.self, args);
      return method.builtin.fn(*this, method.self, args);
    }
    case Kind::kMacro:
      return call_macro(callee.as<MacroObj>(), args);
    case Kind::kLoop:
      return call_loop(callee.as<LoopObj>(), args);
    case Kind::kJoiner: {
      auto& joiner = callee.as<JoinerObj>();
      return std::exchange(joiner.used, true) ? joiner.separator : string("");
    }
    case Kind::kUndefined:
      raise_undefined(callee);
    default:
      type_error(std::string("'") + type_name(callee) + "' object is not callable");
  }
}

}  // namespace dspark::jinja
