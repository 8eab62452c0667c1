#pragma once
// Runs a parsed template once.

#include <ctime>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

#include "text/jinja_ast.h"
#include "text/jinja_builtins.h"
#include "text/jinja_value.h"

namespace dspark::jinja {

/// Variables of one block: the template, a loop iteration, a macro call, a with block. Names point into the
/// parsed template. Reading goes outwards through the parents, assigning stays here.
struct Scope final : Kept {
  Scope(Heap* h, std::shared_ptr<Scope> p) : parent(std::move(p)), heap(h) {}
  ~Scope() override { drop(); }
  void set(std::string_view name, Value value);
  void drop() noexcept override;
  const std::shared_ptr<Scope> parent;
  Heap* const heap;
  std::unordered_map<std::string_view, Value> vars;
  bool kept = false;
};
using ScopePtr = std::shared_ptr<Scope>;

struct MacroObj final : Object {
  MacroObj(Heap* heap, const MacroDef* d, ScopePtr s) : Object(heap, 64, 1), def(d), scope(std::move(s)) {}
  const MacroDef* def;
  const ScopePtr scope;  // where it was defined
};

struct LoopObj final : Object, Kept {
  LoopObj(Heap* heap, Values v, int depth)
      : Object(heap, v.size() * sizeof(Value), depth), items(std::move(v)) {}
  Values items;
  size_t index0 = 0;
  int depth0 = 0;
  const Stmt* stmt = nullptr;
  ScopePtr outer;  // only for recursive loops
  bool has_last = false;
  Values last;  // arguments of the last loop.changed
  void drop() noexcept override {
    outer.reset();
    last.clear();
    items.clear();
  }
};

/// The state of one render. Not reusable, not thread-safe; the template it runs is only read.
class Interp {
 public:
  using Clock = std::function<std::tm()>;
  Interp(const Limits& limits, const Clock& clock) : heap_(limits), clock_(clock) {}
  ~Interp() { root_->drop(); }

  Heap& heap() { return heap_; }
  /// Makes a variable visible to the template.
  void define(std::string name, Value value) { context_[std::move(name)] = std::move(value); }
  /// The rendered text. Throws JinjaError.
  std::string run(const Block& block);
  std::tm now() const { return clock_(); }

  // For builtins.
  Value call(const Value& callee, CallArgs& args);
  /// Throws for an unknown name.
  Value apply_filter(std::string_view name, const Value& value, CallArgs& args);
  bool apply_test(std::string_view name, const Value& value, CallArgs& args);
  /// object.name and object[key] of the sandbox: undefined when there is none.
  Value get_attribute(const Value& object, std::string_view name);
  Value get_item(const Value& object, const Value& key);
  Value string(std::string s) { return heap_.string(std::move(s)); }

 private:
  enum class Flow { kNormal, kBreak, kContinue };
  struct DepthGuard {
    explicit DepthGuard(Interp& i);
    ~DepthGuard() { --interp.depth_; }
    Interp& interp;
  };

  // Expressions (jinja_eval.cc).
  Value eval(const Expr& expr);
  Value eval_name(const Expr& expr);
  Value eval_dict(const Expr& expr);
  Value eval_compare(const Expr& expr);
  Value eval_concat(const Expr& expr);
  Value eval_cond(const Expr& expr);
  Value eval_slice(const Expr& expr);
  Value eval_call(const Expr& expr, const Value* caller);
  Value eval_filter(const Expr& expr);
  Value eval_test(const Expr& expr);
  Values eval_all(const std::vector<ExprPtr>& exprs);
  CallArgs eval_args(const ArgExprs& exprs);
  /// Counts the scopes it passes as work: a template may nest hundreds.
  const Value* lookup(std::string_view name);
  /// Counts the text that a builtin is going to look at, as far as it is its own.
  void charge_text(const Value& self, const CallArgs& args);

  // Attributes (jinja_attr.cc).
  Value bind_method(const Value& object, const Builtin& method);
  Value missing_attribute(const Value& object, std::string_view name);
  bool special_attribute(const Value& object, std::string_view name, Value& out);
  Value loop_attribute(const Value& object, std::string_view name);

  // Statements (jinja_exec.cc).
  Flow exec_block(const Block& block);
  Flow exec(const Stmt& stmt);
  Flow exec_if(const Stmt& stmt);
  Flow exec_for(const Stmt& stmt);
  Flow exec_scoped(const Block& block);
  Flow exec_text_block(const Stmt& stmt);
  Flow exec_with(const Stmt& stmt);
  void exec_macro(const Stmt& stmt);
  void exec_call_block(const Stmt& stmt);
  Flow run_loop(const Stmt& stmt, Values items, int depth0, bool& any);
  Values loop_items(const Stmt& stmt, const Value& iterable);
  void assign(const Target& target, const Value& value);
  Value make_macro(const MacroDef& def);
  Value call_macro(const MacroObj& macro, CallArgs& args);
  void bind_macro_args(const MacroObj& macro, CallArgs& args);
  Value call_loop(LoopObj& loop, CallArgs& args);
  void keep_scopes();

  /// Runs `body` in a scope of its own inside `parent`.
  template <typename F>
  auto in_scope(const ScopePtr& parent, F&& body);
  /// Runs `body` with its output collected; returns the text.
  template <typename F>
  std::string collect(F&& body);

  Heap heap_;  // first: values must not outlive it
  const Clock& clock_;
  std::map<std::string, Value, std::less<>> context_;
  ScopePtr root_ = std::make_shared<Scope>(&heap_, nullptr);
  ScopePtr scope_ = root_;
  TextBuilder* out_ = nullptr;
  int depth_ = 0;
};

}  // namespace dspark::jinja
