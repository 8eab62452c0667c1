#pragma once
// What goes wrong inside the template interpreter. These exceptions never leave chat_template.cc.

#include <string>
#include <utility>

namespace dspark::jinja {

/// Kinds as Python and Jinja name them; kLimit is this interpreter's own.
enum class ErrorKind {
  kSyntax,        // TemplateSyntaxError, TemplateAssertionError
  kRaised,        // raise_exception: the template's own text
  kUndefined,     // UndefinedError
  kType,          // TypeError
  kValue,         // ValueError
  kLookup,        // KeyError, IndexError
  kSecurity,      // SecurityError
  kZeroDivision,  // ZeroDivisionError
  kOverflow,      // OverflowError
  kRuntime,       // TemplateRuntimeError and the rest
  kUnsupported,   // exists in Jinja, not here
  kLimit,         // a resource limit
};

/// "TypeError" and so on.
inline const char* error_kind_name(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kSyntax:
      return "TemplateSyntaxError";
    case ErrorKind::kRaised:
      return "TemplateError";
    case ErrorKind::kUndefined:
      return "UndefinedError";
    case ErrorKind::kType:
      return "TypeError";
    case ErrorKind::kValue:
      return "ValueError";
    case ErrorKind::kLookup:
      return "LookupError";
    case ErrorKind::kSecurity:
      return "SecurityError";
    case ErrorKind::kZeroDivision:
      return "ZeroDivisionError";
    case ErrorKind::kOverflow:
      return "OverflowError";
    case ErrorKind::kRuntime:
      return "TemplateRuntimeError";
    case ErrorKind::kUnsupported:
      return "unsupported";
    case ErrorKind::kLimit:
      return "limit";
  }
  return "error";
}

/// Thrown by the lexer, the parser and the evaluation.
struct JinjaError {
  ErrorKind kind = ErrorKind::kRuntime;
  std::string message;
  int line = 0;  // 1-based; 0 until the statement that failed fills it in
};

[[noreturn]] inline void fail(ErrorKind kind, std::string message, int line = 0) {
  throw JinjaError{kind, std::move(message), line};
}
[[noreturn]] inline void type_error(std::string message) {
  fail(ErrorKind::kType, std::move(message));
}

}  // namespace dspark::jinja
