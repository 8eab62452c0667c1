#pragma once
// Cuts a template into text and tokens, with Jinja's white-space control (trim_blocks and lstrip_blocks on).

#include <string>
#include <string_view>
#include <vector>

namespace dspark::jinja {

struct Token {
  enum class Kind {
    kText,           // `text` goes to the output
    kBlockBegin,     // {%
    kBlockEnd,       // %}
    kVariableBegin,  // {{
    kVariableEnd,    // }}
    kName,
    kString,  // `text` without quotes and escapes
    kInteger,
    kFloat,
    kOperator,  // `text` is the operator
    kEnd,
  };
  Kind kind = Kind::kEnd;
  std::string text;
  int line = 0;

  bool is_op(std::string_view op) const { return kind == Kind::kOperator && text == op; }
  bool is_name(std::string_view name) const { return kind == Kind::kName && text == name; }
};

/// Tokens of the template, closed by kEnd. Throws JinjaError (kSyntax).
std::vector<Token> tokenize(std::string_view source);

/// How messages name a token: "end of print statement", "name", "','".
std::string describe_token(const Token& token);

}  // namespace dspark::jinja
