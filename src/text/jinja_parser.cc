// Statements; expressions are in jinja_parser_expr.cc.
#include "text/jinja_parser.h"

#include <algorithm>

#include "text/jinja_error.h"

namespace dspark::jinja {
namespace {

bool is_constant_name(const std::string& name) {
  static constexpr std::string_view kNames[] = {"true", "True", "false", "False", "none", "None"};
  return std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames);
}

std::unique_ptr<Stmt> make_stmt(Stmt::Kind kind, int line) {
  auto stmt = std::make_unique<Stmt>();
  stmt->kind = kind;
  stmt->line = line;
  return stmt;
}

}  // namespace

Parser::DepthGuard::DepthGuard(Parser& p) : parser(p) {
  if (++p.depth_ > kMaxParseDepth) {
    --p.depth_;  // the destructor of a guard that threw does not run
    fail(ErrorKind::kLimit, "more than " + std::to_string(kMaxParseDepth) + " nested expressions and blocks",
         p.current().line);
  }
}

Token Parser::next() {
  Token token = tokens_[pos_];
  if (pos_ + 1 < tokens_.size()) ++pos_;
  return token;
}

void Parser::error(std::string message) const {
  fail(ErrorKind::kSyntax, std::move(message), current().line);
}

void Parser::unexpected(const std::string& expected) const {
  if (current().kind == Token::Kind::kEnd) error("unexpected end of template, expected '" + expected + "'");
  error("expected token '" + expected + "', got " + describe_token(current()));
}

bool Parser::skip_op(std::string_view op) {
  if (!current().is_op(op)) return false;
  next();
  return true;
}

bool Parser::skip_name(std::string_view name) {
  if (!current().is_name(name)) return false;
  next();
  return true;
}

void Parser::expect_op(std::string_view op) {
  if (!skip_op(op)) unexpected(std::string(op));
}

void Parser::expect_name(std::string_view name) {
  if (!skip_name(name)) unexpected(std::string(name));
}

void Parser::expect_block_end() {
  if (current().kind != Token::Kind::kBlockEnd) unexpected("end of statement block");
  next();
}

std::string Parser::expect_identifier() {
  if (current().kind != Token::Kind::kName) unexpected("name");
  return next().text;
}

Block Parser::parse() {
  return parse_until({}, "");
}

// Statements up to one of the `ends` tags; stands on the name of that tag afterwards. Without ends: up to the
// end of the template.
Block Parser::parse_until(std::initializer_list<std::string_view> ends, std::string_view opened_by) {
  const DepthGuard guard(*this);
  Block block;
  for (;;) {
    const Token& token = current();
    if (token.kind == Token::Kind::kEnd) {
      if (ends.size() == 0) return block;
      std::string tags;
      for (std::string_view end : ends) tags += (tags.empty() ? "'" : " or '") + std::string(end) + "'";
      error("Unexpected end of template. Jinja was looking for the following tags: " + tags +
            ". The innermost block that needs to be closed is '" + std::string(opened_by) + "'.");
    }
    if (token.kind == Token::Kind::kText) {
      block.push_back(make_stmt(Stmt::Kind::kText, token.line));
      block.back()->text = next().text;
    } else if (token.kind == Token::Kind::kVariableBegin) {
      block.push_back(parse_output());
    } else {
      next();
      if (current().kind != Token::Kind::kName) error("tag name expected");
      if (std::find(ends.begin(), ends.end(), current().text) != ends.end()) return block;
      block.push_back(parse_statement());
    }
  }
}

std::unique_ptr<Stmt> Parser::parse_output() {
  auto stmt = make_stmt(Stmt::Kind::kOutput, next().line);
  stmt->expr = parse_tuple(true, "", false);
  if (current().kind != Token::Kind::kVariableEnd) unexpected("end of print statement");
  next();
  return stmt;
}

std::unique_ptr<Stmt> Parser::parse_statement() {
  const std::string& name = current().text;
  if (name == "if") return parse_if();
  if (name == "for") return parse_for();
  if (name == "set") return parse_set();
  if (name == "with") return parse_with();
  if (name == "macro") return parse_macro();
  if (name == "call") return parse_call_block();
  if (name == "filter") return parse_filter_block();
  if (name == "break") return parse_loop_control(Stmt::Kind::kBreak);
  if (name == "continue") return parse_loop_control(Stmt::Kind::kContinue);
  if (name == "generation") return parse_scope("generation");
  for (std::string_view known : {"extends", "include", "import", "from", "block", "autoescape", "print"}) {
    if (name == known)
      fail(ErrorKind::kUnsupported, "the tag '" + name + "' is not supported", current().line);
  }
  error("Encountered unknown tag '" + name + "'.");
}

// The body of a block and its closing tag "end<name>".
Block Parser::parse_body(std::string_view name) {
  const std::string end = "end" + std::string(name);
  expect_block_end();
  Block body = parse_until({end}, name);
  next();
  expect_block_end();
  return body;
}

std::unique_ptr<Stmt> Parser::parse_if() {
  auto stmt = make_stmt(Stmt::Kind::kIf, next().line);
  for (;;) {
    Stmt::Branch branch;
    branch.condition = parse_tuple(false, "", false);
    expect_block_end();
    branch.body = parse_until({"elif", "else", "endif"}, "if");
    stmt->branches.push_back(std::move(branch));
    if (skip_name("elif")) continue;
    if (skip_name("else")) {
      expect_block_end();
      stmt->orelse = parse_until({"endif"}, "if");
    }
    next();
    expect_block_end();
    return stmt;
  }
}

std::unique_ptr<Stmt> Parser::parse_for() {
  auto stmt = make_stmt(Stmt::Kind::kFor, next().line);
  ++loops_;  // its own target may not be named loop either
  stmt->target = parse_target(false);
  --loops_;
  expect_name("in");
  stmt->expr = parse_tuple(false, "recursive", false);
  if (skip_name("if")) stmt->condition = parse_expression();
  stmt->recursive = skip_name("recursive");
  expect_block_end();
  ++loops_;
  stmt->body = parse_until({"else", "endfor"}, "for");
  --loops_;
  if (skip_name("else")) {
    expect_block_end();
    stmt->orelse = parse_until({"endfor"}, "for");
  }
  next();
  expect_block_end();
  return stmt;
}

Target Parser::parse_one_target(bool with_namespace) {
  const DepthGuard guard(*this);
  Target target;
  if (skip_op("(")) {
    target = parse_target(with_namespace);
    expect_op(")");
    return target;
  }
  target.name = expect_identifier();
  if (is_constant_name(target.name)) error("cannot assign to '" + target.name + "'");
  if (target.name == "loop" && loops_ > 0) error("Can't assign to special loop variable in for-loop target");
  if (with_namespace && skip_op(".")) target.attribute = expect_identifier();
  return target;
}

Target Parser::parse_target(bool with_namespace) {
  Target first = parse_one_target(with_namespace);
  if (!current().is_op(",")) return first;
  Target tuple;
  tuple.parts.push_back(std::move(first));
  while (skip_op(",")) {
    if (current().kind != Token::Kind::kName && !current().is_op("(")) break;
    if (current().is_name("in")) break;
    tuple.parts.push_back(parse_one_target(with_namespace));
  }
  return tuple;
}

std::unique_ptr<Stmt> Parser::parse_set() {
  auto stmt = make_stmt(Stmt::Kind::kSet, next().line);
  stmt->target = parse_target(true);
  if (skip_op("=")) {
    stmt->expr = parse_tuple(true, "", false);
    expect_block_end();
    return stmt;
  }
  stmt->kind = Stmt::Kind::kSetBlock;
  if (current().is_op("|")) {
    ExprPtr text = node(Expr::Kind::kName);
    text->name = kBlockText;
    stmt->expr = parse_filters(std::move(text));
  }
  stmt->body = parse_body("set");
  return stmt;
}

std::unique_ptr<Stmt> Parser::parse_filter_block() {
  auto stmt = make_stmt(Stmt::Kind::kFilterBlock, next().line);
  ExprPtr text = node(Expr::Kind::kName);
  text->name = kBlockText;
  stmt->expr = parse_filters(parse_filter(std::move(text)));
  stmt->body = parse_body("filter");
  return stmt;
}

std::unique_ptr<Stmt> Parser::parse_with() {
  auto stmt = make_stmt(Stmt::Kind::kWith, next().line);
  while (current().kind != Token::Kind::kBlockEnd) {
    if (!stmt->targets.empty()) expect_op(",");
    stmt->targets.push_back(parse_one_target(false));
    expect_op("=");
    stmt->values.push_back(parse_expression());
  }
  stmt->body = parse_body("with");
  return stmt;
}

void Parser::parse_signature(MacroDef& macro) {
  expect_op("(");
  while (!current().is_op(")")) {
    if (!macro.params.empty()) expect_op(",");
    if (current().is_op(")")) break;
    macro.params.push_back(expect_identifier());
    if (skip_op("=")) {
      macro.defaults.push_back(parse_expression());
    } else if (!macro.defaults.empty()) {
      error("non-default argument follows default argument");
    }
  }
  expect_op(")");
}

std::unique_ptr<Stmt> Parser::parse_macro() {
  auto stmt = make_stmt(Stmt::Kind::kMacro, next().line);
  const int loops_outside = std::exchange(loops_, 0);
  macros_.push_back(&stmt->macro);
  stmt->macro.name = expect_identifier();
  parse_signature(stmt->macro);
  stmt->macro.body = parse_body("macro");
  macros_.pop_back();
  loops_ = loops_outside;
  return stmt;
}

std::unique_ptr<Stmt> Parser::parse_call_block() {
  auto stmt = make_stmt(Stmt::Kind::kCallBlock, next().line);
  stmt->macro.name = "caller";
  if (current().is_op("(")) parse_signature(stmt->macro);
  stmt->expr = parse_expression();
  if (stmt->expr->kind != Expr::Kind::kCall) error("expected call");
  const int loops_outside = std::exchange(loops_, 0);
  stmt->macro.body = parse_body("call");
  loops_ = loops_outside;
  return stmt;
}

std::unique_ptr<Stmt> Parser::parse_loop_control(Stmt::Kind kind) {
  if (loops_ == 0) error("'" + current().text + "' outside of a loop");
  auto stmt = make_stmt(kind, next().line);
  expect_block_end();
  return stmt;
}

std::unique_ptr<Stmt> Parser::parse_scope(std::string_view name) {
  auto stmt = make_stmt(Stmt::Kind::kScope, next().line);
  stmt->body = parse_body(name);
  return stmt;
}

}  // namespace dspark::jinja
