#pragma once
// Tokens to statements and expressions, by recursive descent over Jinja's grammar.

#include <string>
#include <string_view>
#include <vector>

#include "text/jinja_ast.h"
#include "text/jinja_lexer.h"

namespace dspark::jinja {

/// Deepest expression tree and deepest nesting of blocks that is accepted: evaluation recurses over them.
constexpr int kMaxExprHeight = 200;
constexpr int kMaxParseDepth = 300;  // a parenthesis takes three

/// The variable that filter chains of {% set x | f %} and {% filter f %} start from.
constexpr const char* kBlockText = "%text";

/// Parses a template. Throws JinjaError: kSyntax, kUnsupported (extends, include, ...), kLimit.
class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}
  Block parse();

 private:
  // Token access.
  const Token& current() const { return tokens_[pos_]; }
  const Token& peek() const { return tokens_[pos_ + 1 < tokens_.size() ? pos_ + 1 : pos_]; }
  Token next();
  bool skip_op(std::string_view op);
  bool skip_name(std::string_view name);
  void expect_op(std::string_view op);
  void expect_name(std::string_view name);
  void expect_block_end();
  std::string expect_identifier();
  [[noreturn]] void error(std::string message) const;
  [[noreturn]] void unexpected(const std::string& expected) const;

  // Statements (jinja_parser.cc).
  Block parse_until(std::initializer_list<std::string_view> ends, std::string_view opened_by);
  std::unique_ptr<Stmt> parse_output();
  std::unique_ptr<Stmt> parse_statement();
  std::unique_ptr<Stmt> parse_if();
  std::unique_ptr<Stmt> parse_for();
  std::unique_ptr<Stmt> parse_set();
  std::unique_ptr<Stmt> parse_with();
  std::unique_ptr<Stmt> parse_macro();
  std::unique_ptr<Stmt> parse_call_block();
  std::unique_ptr<Stmt> parse_filter_block();
  std::unique_ptr<Stmt> parse_loop_control(Stmt::Kind kind);
  std::unique_ptr<Stmt> parse_scope(std::string_view name);
  Target parse_target(bool with_namespace);
  Target parse_one_target(bool with_namespace);
  void parse_signature(MacroDef& macro);
  Block parse_body(std::string_view name);

  // Expressions (jinja_parser_expr.cc).
  ExprPtr node(Expr::Kind kind, ExprPtr a = nullptr, ExprPtr b = nullptr) const;
  void adopt(Expr& parent, ExprPtr child) const;
  ExprPtr parse_expression(bool with_cond = true);
  ExprPtr parse_cond();
  ExprPtr parse_or();
  ExprPtr parse_and();
  ExprPtr parse_not();
  ExprPtr parse_compare();
  ExprPtr parse_sum();
  ExprPtr parse_concat();
  ExprPtr parse_product();
  ExprPtr parse_power();
  ExprPtr parse_unary(bool with_filter);
  ExprPtr parse_primary();
  ExprPtr parse_number();
  ExprPtr parse_tuple(bool with_cond, std::string_view end_name, bool parentheses);
  ExprPtr parse_list();
  ExprPtr parse_dict();
  ExprPtr parse_postfix(ExprPtr expr);
  ExprPtr parse_filters(ExprPtr expr);
  ExprPtr parse_filter(ExprPtr expr);
  ExprPtr parse_test(ExprPtr expr);
  ExprPtr parse_subscript(ExprPtr expr);
  ExprPtr parse_subscript_part(ExprPtr object);
  ExprPtr parse_call(ExprPtr callee);
  ArgExprs parse_args(Expr& owner);
  std::string parse_dotted_name();

  struct DepthGuard {
    explicit DepthGuard(Parser& p);
    ~DepthGuard() { --parser.depth_; }
    Parser& parser;
  };

  std::vector<Token> tokens_;
  size_t pos_ = 0;
  int depth_ = 0;
  int loops_ = 0;                  // loops around the current statement, within the innermost macro
  std::vector<MacroDef*> macros_;  // macros around it
};

}  // namespace dspark::jinja
