#pragma once
// The parsed template.

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja_builtins.h"
#include "text/jinja_ops.h"
#include "text/jinja_value.h"

namespace dspark::jinja {

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

/// Arguments of a call as written.
struct ArgExprs {
  std::vector<ExprPtr> positional;
  std::vector<std::pair<std::string, ExprPtr>> keyword;
  ExprPtr star, star_star;  // *args and **kwargs, or null
};

/// One node of an expression. `kids` by kind:
///   kList, kTuple, kConcat: the elements; kDict: key, value, key, value, ...
///   kNegate, kPositive, kNot, kAttr, kCall, kFilter, kTest: the operand
///   kBinary, kAnd, kOr: left, right; kItem: object, index
///   kCompare: first operand, then one for every entry of `compares`
///   kCond: value, condition, value otherwise (absent without else)
///   kSlice: object, start, stop, step (null when left out)
struct Expr {
  enum class Kind {
    kConst,
    kName,
    kList,
    kTuple,
    kDict,
    kNegate,
    kPositive,
    kNot,
    kBinary,
    kAnd,
    kOr,
    kCompare,
    kConcat,
    kCond,
    kAttr,
    kItem,
    kSlice,
    kCall,
    kFilter,
    kTest,
  };
  Kind kind = Kind::kConst;
  int line = 0;
  int height = 1;  // of the tree below, bounded by the parser so that recursion over it is safe
  BinaryOp op = BinaryOp::kAdd;
  Value value;                       // kConst
  std::string name;                  // kName, kAttr, kFilter, kTest
  const Builtin* builtin = nullptr;  // kFilter, kTest; null when there is none: an error when reached
  std::vector<ExprPtr> kids;
  std::vector<CompareOp> compares;
  ArgExprs args;
};

/// What `set` and `for` assign to: a name, an attribute of a namespace, or a tuple of targets.
struct Target {
  std::string name;
  std::string attribute;      // not empty: name.attribute
  std::vector<Target> parts;  // not empty: a tuple
};

struct Stmt;
using Block = std::vector<std::unique_ptr<Stmt>>;

/// Parameters and body of a macro or of a call block.
struct MacroDef {
  std::string name;
  std::vector<std::string> params;
  std::vector<ExprPtr> defaults;  // of the last params
  Block body;
  bool uses_caller = false, uses_varargs = false, uses_kwargs = false;
};

/// One statement. Fields by kind:
///   kText: text; kOutput: expr; kSet: target, expr
///   kSetBlock: target, body, expr = filter chain over kName "" or null; kFilterBlock: expr, body
///   kIf: branches, orelse; kFor: target, expr, condition (or null), body, orelse, recursive
///   kWith: targets, values, body; kMacro: macro; kCallBlock: macro, expr = the call
///   kScope: body (generation blocks)
struct Stmt {
  enum class Kind {
    kText,
    kOutput,
    kSet,
    kSetBlock,
    kFilterBlock,
    kIf,
    kFor,
    kWith,
    kMacro,
    kCallBlock,
    kScope,
    kBreak,
    kContinue,
  };
  struct Branch {
    ExprPtr condition;
    Block body;
  };
  Kind kind = Kind::kText;
  int line = 0;
  std::string text;
  ExprPtr expr, condition;
  Target target;
  Block body, orelse;
  std::vector<Branch> branches;
  std::vector<Target> targets;
  std::vector<ExprPtr> values;
  MacroDef macro;
  bool recursive = false;
};

}  // namespace dspark::jinja
