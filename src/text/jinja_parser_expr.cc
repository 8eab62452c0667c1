// Expressions, weakest binding first; see jinja_parser.h. The order of the levels is Jinja's: note that unary
// minus binds tighter than **, and that filters and tests bind to the operand of an operator.
#include <algorithm>
#include <cstdlib>

#include "text/jinja_error.h"
#include "text/jinja_parser.h"

namespace dspark::jinja {
namespace {

// False also for integers beyond 128 bits.
bool parse_literal(const std::string& text, Int& value) {
  try {
    return parse_int(text, 0, value);
  } catch (const JinjaError&) {
    return false;
  }
}

}  // namespace

void Parser::adopt(Expr& parent, ExprPtr child) const {
  if (child != nullptr) {
    parent.height = std::max(parent.height, child->height + 1);
    if (parent.height > kMaxExprHeight) {
      fail(ErrorKind::kLimit,
           "an expression is more than " + std::to_string(kMaxExprHeight) + " operations deep", parent.line);
    }
  }
  parent.kids.push_back(std::move(child));
}

ExprPtr Parser::node(Expr::Kind kind, ExprPtr a, ExprPtr b) const {
  auto expr = std::make_unique<Expr>();
  expr->kind = kind;
  expr->line = current().line;
  if (a != nullptr) adopt(*expr, std::move(a));
  if (b != nullptr) adopt(*expr, std::move(b));
  return expr;
}

ExprPtr Parser::parse_expression(bool with_cond) {
  return with_cond ? parse_cond() : parse_or();
}

ExprPtr Parser::parse_cond() {
  const DepthGuard guard(*this);
  ExprPtr expr = parse_or();
  while (skip_name("if")) {
    ExprPtr condition = parse_or();
    expr = node(Expr::Kind::kCond, std::move(expr), std::move(condition));
    if (skip_name("else")) adopt(*expr, parse_cond());
  }
  return expr;
}

ExprPtr Parser::parse_or() {
  ExprPtr left = parse_and();
  while (skip_name("or")) {
    ExprPtr right = parse_and();
    left = node(Expr::Kind::kOr, std::move(left), std::move(right));
  }
  return left;
}

ExprPtr Parser::parse_and() {
  ExprPtr left = parse_not();
  while (skip_name("and")) {
    ExprPtr right = parse_not();
    left = node(Expr::Kind::kAnd, std::move(left), std::move(right));
  }
  return left;
}

ExprPtr Parser::parse_not() {
  const DepthGuard guard(*this);
  if (skip_name("not")) return node(Expr::Kind::kNot, parse_not());
  return parse_compare();
}

ExprPtr Parser::parse_compare() {
  struct Entry {
    std::string_view symbol;
    CompareOp op;
  };
  static constexpr Entry kOps[] = {{"==", CompareOp::kEq}, {"!=", CompareOp::kNe}, {"<", CompareOp::kLt},
                                   {"<=", CompareOp::kLe}, {">", CompareOp::kGt},  {">=", CompareOp::kGe}};
  ExprPtr first = parse_sum();
  ExprPtr chain;
  for (;;) {
    CompareOp op = CompareOp::kIn;
    const auto* entry = std::find_if(std::begin(kOps), std::end(kOps),
                                     [this](const Entry& e) { return current().is_op(e.symbol); });
    if (entry != std::end(kOps)) {
      op = entry->op;
    } else if (current().is_name("not") && peek().is_name("in")) {
      next();
      op = CompareOp::kNotIn;
    } else if (!current().is_name("in")) {
      return chain ? std::move(chain) : std::move(first);
    }
    next();
    ExprPtr right = parse_sum();
    if (!chain) chain = node(Expr::Kind::kCompare, std::move(first));
    chain->compares.push_back(op);
    adopt(*chain, std::move(right));
  }
}

ExprPtr Parser::parse_sum() {
  ExprPtr left = parse_concat();
  while (current().is_op("+") || current().is_op("-")) {
    const BinaryOp op = next().text == "+" ? BinaryOp::kAdd : BinaryOp::kSub;
    ExprPtr right = parse_concat();
    left = node(Expr::Kind::kBinary, std::move(left), std::move(right));
    left->op = op;
  }
  return left;
}

ExprPtr Parser::parse_concat() {
  ExprPtr first = parse_product();
  if (!current().is_op("~")) return first;
  ExprPtr concat = node(Expr::Kind::kConcat, std::move(first));
  while (skip_op("~")) adopt(*concat, parse_product());
  return concat;
}

ExprPtr Parser::parse_product() {
  struct Entry {
    std::string_view symbol;
    BinaryOp op;
  };
  static constexpr Entry kOps[] = {
      {"*", BinaryOp::kMul}, {"/", BinaryOp::kDiv}, {"//", BinaryOp::kFloorDiv}, {"%", BinaryOp::kMod}};
  ExprPtr left = parse_power();
  for (;;) {
    const auto* entry = std::find_if(std::begin(kOps), std::end(kOps),
                                     [this](const Entry& e) { return current().is_op(e.symbol); });
    if (entry == std::end(kOps)) return left;
    next();
    ExprPtr right = parse_power();
    left = node(Expr::Kind::kBinary, std::move(left), std::move(right));
    left->op = entry->op;
  }
}

ExprPtr Parser::parse_power() {
  ExprPtr left = parse_unary(true);
  while (skip_op("**")) {
    ExprPtr right = parse_unary(true);
    left = node(Expr::Kind::kBinary, std::move(left), std::move(right));
    left->op = BinaryOp::kPow;
  }
  return left;
}

ExprPtr Parser::parse_unary(bool with_filter) {
  const DepthGuard guard(*this);
  ExprPtr expr;
  if (skip_op("-")) {
    expr = node(Expr::Kind::kNegate, parse_unary(false));
  } else if (skip_op("+")) {
    expr = node(Expr::Kind::kPositive, parse_unary(false));
  } else {
    expr = parse_primary();
  }
  expr = parse_postfix(std::move(expr));
  return with_filter ? parse_filters(std::move(expr)) : std::move(expr);
}

ExprPtr Parser::parse_number() {
  ExprPtr expr = node(Expr::Kind::kConst);
  const Token token = next();
  if (token.kind == Token::Kind::kFloat) {
    double value = 0;
    if (!parse_float(token.text, value))
      fail(ErrorKind::kSyntax, "bad number '" + token.text + "'", token.line);
    expr->value = Value::real(value);
  } else {
    Int value = 0;
    if (!parse_literal(token.text, value))
      fail(ErrorKind::kSyntax, "bad integer '" + token.text + "'", token.line);
    expr->value = Value::integer(value);
  }
  return expr;
}

ExprPtr Parser::parse_primary() {
  const Token& token = current();
  switch (token.kind) {
    case Token::Kind::kName: {
      ExprPtr expr = node(Expr::Kind::kName);
      expr->name = next().text;
      const std::string& name = expr->name;
      for (MacroDef* macro : macros_) {
        macro->uses_caller |= name == "caller";
        macro->uses_varargs |= name == "varargs";
        macro->uses_kwargs |= name == "kwargs";
      }
      const bool is_true = name == "true" || name == "True";
      if (is_true || name == "false" || name == "False") {
        expr->value = Value::boolean(is_true);
      } else if (name == "none" || name == "None") {
        expr->value = Value::none();
      } else {
        return expr;
      }
      expr->kind = Expr::Kind::kConst;
      return expr;
    }
    case Token::Kind::kString: {
      ExprPtr expr = node(Expr::Kind::kConst);
      std::string text = next().text;
      while (current().kind == Token::Kind::kString) text += next().text;
      expr->value = constant_string(std::move(text));
      return expr;
    }
    case Token::Kind::kInteger:
    case Token::Kind::kFloat:
      return parse_number();
    default:
      break;
  }
  if (skip_op("(")) {
    ExprPtr expr = parse_tuple(true, "", true);
    expect_op(")");
    return expr;
  }
  if (token.is_op("[")) return parse_list();
  if (token.is_op("{")) return parse_dict();
  error("unexpected " + describe_token(token));
}

// One expression, or several with commas between them: a tuple. `end_name` may end it too.
ExprPtr Parser::parse_tuple(bool with_cond, std::string_view end_name, bool parentheses) {
  const auto at_end = [&] {
    return current().kind == Token::Kind::kVariableEnd || current().kind == Token::Kind::kBlockEnd ||
           current().is_op(")") || (!end_name.empty() && current().is_name(end_name));
  };
  ExprPtr first;
  ExprPtr tuple;
  while (!at_end()) {
    ExprPtr expr = parse_expression(with_cond);
    const bool comma = skip_op(",");
    if (!tuple && !comma) {
      first = std::move(expr);
      break;
    }
    if (!tuple) tuple = node(Expr::Kind::kTuple);
    adopt(*tuple, std::move(expr));
    if (!comma) break;
  }
  if (tuple) return tuple;
  if (first) return first;
  if (!parentheses) error("Expected an expression, got " + describe_token(current()));
  return node(Expr::Kind::kTuple);
}

ExprPtr Parser::parse_list() {
  expect_op("[");
  ExprPtr list = node(Expr::Kind::kList);
  while (!current().is_op("]")) {
    if (!list->kids.empty()) expect_op(",");
    if (current().is_op("]")) break;
    adopt(*list, parse_expression());
  }
  expect_op("]");
  return list;
}

ExprPtr Parser::parse_dict() {
  expect_op("{");
  ExprPtr dict = node(Expr::Kind::kDict);
  while (!current().is_op("}")) {
    if (!dict->kids.empty()) expect_op(",");
    if (current().is_op("}")) break;
    adopt(*dict, parse_expression());
    expect_op(":");
    adopt(*dict, parse_expression());
  }
  expect_op("}");
  return dict;
}

ExprPtr Parser::parse_postfix(ExprPtr expr) {
  for (;;) {
    if (current().is_op(".") || current().is_op("[")) {
      expr = parse_subscript(std::move(expr));
    } else if (current().is_op("(")) {
      expr = parse_call(std::move(expr));
    } else {
      return expr;
    }
  }
}

ExprPtr Parser::parse_filters(ExprPtr expr) {
  for (;;) {
    if (skip_op("|")) {
      expr = parse_filter(std::move(expr));
    } else if (skip_name("is")) {
      expr = parse_test(std::move(expr));
    } else if (current().is_op("(")) {
      expr = parse_call(std::move(expr));  // calls are valid both behind postfix expressions and filters
    } else {
      return expr;
    }
  }
}

std::string Parser::parse_dotted_name() {
  std::string name = expect_identifier();
  while (skip_op(".")) name += "." + expect_identifier();
  return name;
}

ExprPtr Parser::parse_filter(ExprPtr operand) {
  ExprPtr expr = node(Expr::Kind::kFilter, std::move(operand));
  expr->name = parse_dotted_name();
  expr->builtin = find_filter(expr->name);
  if (current().is_op("(")) expr->args = parse_args(*expr);
  return expr;
}

ExprPtr Parser::parse_test(ExprPtr operand) {
  const bool negated = skip_name("not");
  ExprPtr expr = node(Expr::Kind::kTest, std::move(operand));
  expr->name = parse_dotted_name();
  expr->builtin = find_test(expr->name);
  const Token& token = current();
  const bool operand_follows = token.kind == Token::Kind::kName || token.kind == Token::Kind::kString ||
                               token.kind == Token::Kind::kInteger || token.kind == Token::Kind::kFloat ||
                               token.is_op("[") || token.is_op("{");
  if (token.is_op("(")) {
    expr->args = parse_args(*expr);
  } else if (operand_follows && !token.is_name("else") && !token.is_name("or") && !token.is_name("and")) {
    if (token.is_name("is")) error("You cannot chain multiple tests with is");
    ExprPtr arg = parse_postfix(parse_primary());
    expr->height = std::max(expr->height, arg->height + 1);
    expr->args.positional.push_back(std::move(arg));
  }
  return negated ? node(Expr::Kind::kNot, std::move(expr)) : std::move(expr);
}

ExprPtr Parser::parse_subscript(ExprPtr object) {
  if (skip_op(".")) {
    if (current().kind == Token::Kind::kInteger) {
      ExprPtr index = parse_number();
      return node(Expr::Kind::kItem, std::move(object), std::move(index));
    }
    if (current().kind != Token::Kind::kName) error("expected name or number");
    ExprPtr expr = node(Expr::Kind::kAttr, std::move(object));
    expr->name = next().text;
    return expr;
  }
  expect_op("[");
  ExprPtr expr = parse_subscript_part(std::move(object));
  expect_op("]");
  return expr;
}

// What stands between [ and ]: an index, a tuple of them, or a slice.
ExprPtr Parser::parse_subscript_part(ExprPtr object) {
  const auto at_end = [this] { return current().is_op("]") || current().is_op(","); };
  ExprPtr start;
  if (!current().is_op(":")) {
    start = parse_expression();
    if (current().is_op(",")) {
      ExprPtr tuple = node(Expr::Kind::kTuple, std::move(start));
      while (skip_op(",")) {
        if (current().is_op("]")) break;
        adopt(*tuple, parse_expression());
      }
      return node(Expr::Kind::kItem, std::move(object), std::move(tuple));
    }
    if (!current().is_op(":")) return node(Expr::Kind::kItem, std::move(object), std::move(start));
  }
  expect_op(":");
  ExprPtr stop, step;
  if (!at_end() && !current().is_op(":")) stop = parse_expression();
  if (skip_op(":") && !at_end()) step = parse_expression();
  ExprPtr expr = node(Expr::Kind::kSlice, std::move(object));
  adopt(*expr, std::move(start));
  adopt(*expr, std::move(stop));
  adopt(*expr, std::move(step));
  return expr;
}

ExprPtr Parser::parse_call(ExprPtr callee) {
  ExprPtr expr = node(Expr::Kind::kCall, std::move(callee));
  expr->args = parse_args(*expr);
  return expr;
}

ArgExprs Parser::parse_args(Expr& owner) {
  ArgExprs args;
  const auto parse_one = [&] {
    ExprPtr expr = parse_expression();
    owner.height = std::max(owner.height, expr->height + 1);
    if (owner.height > kMaxExprHeight) fail(ErrorKind::kLimit, "an expression is too deep", owner.line);
    return expr;
  };
  expect_op("(");
  bool first = true;
  while (!current().is_op(")")) {
    if (!first) expect_op(",");
    first = false;
    if (current().is_op(")")) break;
    if (skip_op("**")) {
      if (args.star_star) error("invalid syntax for function call expression");
      args.star_star = parse_one();
    } else if (skip_op("*")) {
      if (args.star || args.star_star) error("invalid syntax for function call expression");
      args.star = parse_one();
    } else if (current().kind == Token::Kind::kName && peek().is_op("=")) {
      if (args.star_star) error("invalid syntax for function call expression");
      std::string name = next().text;
      next();
      args.keyword.emplace_back(std::move(name), parse_one());
    } else {
      if (args.star || args.star_star || !args.keyword.empty())
        error("invalid syntax for function call expression");
      args.positional.push_back(parse_one());
    }
  }
  expect_op(")");
  return args;
}

}  // namespace dspark::jinja
