#include "text/jinja_lexer.h"

#include <algorithm>
#include <array>

#include "text/jinja_error.h"
#include "text/jinja_unicode.h"
#include "text/utf8.h"

namespace dspark::jinja {
namespace {

constexpr size_t kNone = std::string_view::npos;

bool is_name_char(uint32_t c) {
  return c == '_' || is_alpha(c) || is_decimal(c);
}
bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

// CRLF and CR become LF, and one newline at the very end is dropped.
std::string normalize_newlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

uint32_t hex_value(std::string_view digits) {
  uint32_t value = 0;
  for (char c : digits) {
    const int digit = is_digit(c)            ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : -1;
    if (digit < 0) return UINT32_MAX;
    value = value * 16 + static_cast<uint32_t>(digit);
  }
  return value;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalize_newlines(source)), text_(source_) {}
  std::vector<Token> run();

 private:
  void add(Token::Kind kind, std::string value = {}) { tokens_.push_back({kind, std::move(value), line_}); }
  void advance(size_t to) {
    line_ += static_cast<int>(std::count(text_.begin() + static_cast<std::ptrdiff_t>(pos_),
                                         text_.begin() + static_cast<std::ptrdiff_t>(to), '\n'));
    if (to > pos_) line_start_ = text_[to - 1] == '\n';
    pos_ = to;
  }
  bool at(std::string_view what) const { return text_.substr(pos_, what.size()) == what; }
  [[noreturn]] void error(std::string message) const { fail(ErrorKind::kSyntax, std::move(message), line_); }

  void add_text(size_t end, char sign, bool variable);
  void after_tag(char sign);
  void skip_spaces() { advance(space_end(pos_)); }
  size_t space_end(size_t from) const;
  size_t closing(size_t from, std::string_view mark, char& sign) const;
  bool raw_begin(size_t from, size_t& end, char& sign) const;
  void read_raw(size_t content);
  void read_comment(size_t content);
  void read_tag(bool variable);
  bool read_tag_end(bool variable);
  void read_token();
  void read_number();
  void read_string();
  void read_operator();
  std::string unescape(std::string_view raw) const;

  std::string source_;
  std::string_view text_;
  size_t pos_ = 0;
  int line_ = 1;
  bool line_start_ = true;  // nothing or a newline stands before pos_
  std::vector<Token> tokens_;
  std::vector<char> open_;  // brackets not yet closed in this tag
};

size_t Lexer::space_end(size_t from) const {
  return text_.size() - strip_space(text_.substr(from), 1).size();
}

// Text from pos_ to `end`, where a tag with this sign (-, + or 0) begins.
void Lexer::add_text(size_t end, char sign, bool variable) {
  std::string_view part = text_.substr(pos_, end - pos_);
  if (sign == '-') {
    part = strip_space(part, 2);
  } else if (sign != '+' && !variable) {
    const size_t newline = part.rfind('\n');
    const size_t start = newline == kNone ? 0 : newline + 1;
    if ((start > 0 || line_start_) && strip_space(part.substr(start)).empty()) part = part.substr(0, start);
  }
  if (!part.empty()) add(Token::Kind::kText, std::string(part));
  advance(end);
}

// White space behind a block tag or comment that closed with this sign.
void Lexer::after_tag(char sign) {
  if (sign == '-') {
    skip_spaces();
  } else if (sign != '+' && pos_ < text_.size() && text_[pos_] == '\n') {
    advance(pos_ + 1);
  }
}

// Whether "{% raw %}" stands at `from`; `end` is behind it (and behind the space a '-' removes).
bool Lexer::raw_begin(size_t from, size_t& end, char& sign) const {
  size_t p = from + 2;
  sign = 0;
  if (p < text_.size() && (text_[p] == '-' || text_[p] == '+')) sign = text_[p++];
  p = space_end(p);
  if (text_.substr(p, 3) != "raw") return false;
  p = space_end(p + 3);
  if (text_.substr(p, 3) == "-%}") {
    end = space_end(p + 3);
    return true;
  }
  end = p + 2;
  return text_.substr(p, 2) == "%}";
}

void Lexer::read_raw(size_t content) {
  advance(content);
  for (size_t from = pos_;;) {
    const size_t begin = text_.find("{%", from);
    if (begin == kNone && pos_ == text_.size()) return;  // Jinja accepts {% raw %} as the very last thing
    if (begin == kNone) error("Missing end of raw directive");
    from = begin + 2;
    size_t p = from;
    char sign = 0, end_sign = 0;
    if (p < text_.size() && (text_[p] == '-' || text_[p] == '+')) sign = text_[p++];
    p = space_end(p);
    if (text_.substr(p, 6) != "endraw") continue;
    p = space_end(p + 6);
    if (p < text_.size() && (text_[p] == '-' || text_[p] == '+')) end_sign = text_[p++];
    if (text_.substr(p, 2) != "%}") continue;
    add_text(begin, sign, false);
    advance(p + 2);
    after_tag(end_sign);
    return;
  }
}

// `content` is behind "{#" and its sign.
void Lexer::read_comment(size_t content) {
  const size_t end = text_.find("#}", content);
  if (end == kNone) error("Missing end of comment tag");
  const char sign = end > content && (text_[end - 1] == '-' || text_[end - 1] == '+') ? text_[end - 1] : '\0';
  advance(end + 2);
  after_tag(sign);
}

// At "%}" or "}}" with its sign: closes the tag.
bool Lexer::read_tag_end(bool variable) {
  const std::string_view mark = variable ? "}}" : "%}";
  const bool minus = at("-") && text_.substr(pos_ + 1, 2) == mark;
  const bool plus = !variable && at("+") && text_.substr(pos_ + 1, 2) == mark;
  if (!minus && !plus && !at(mark)) return false;
  add(variable ? Token::Kind::kVariableEnd : Token::Kind::kBlockEnd);
  const char sign = minus ? '-' : plus ? '+' : '\0';
  advance(pos_ + 2 + (sign != 0 ? 1 : 0));
  if (!variable || minus) after_tag(sign);
  return true;
}

void Lexer::read_tag(bool variable) {
  open_.clear();
  for (;;) {
    if (open_.empty() && read_tag_end(variable)) return;
    if (pos_ >= text_.size()) return;  // the parser reports the missing end
    const size_t spaces = space_end(pos_);
    if (spaces > pos_) {
      advance(spaces);
    } else {
      read_token();
    }
  }
}

void Lexer::read_token() {
  const char c = text_[pos_];
  if (is_digit(c)) return read_number();
  if (c == '\'' || c == '"') return read_string();
  size_t end = pos_;
  while (end < text_.size()) {
    size_t next = end;
    if (!is_name_char(next_code_point(text_, next))) break;
    end = next;
  }
  if (end == pos_) return read_operator();
  add(Token::Kind::kName, std::string(text_.substr(pos_, end - pos_)));
  advance(end);
}

void Lexer::read_number() {
  // Digits, with single underscores between them, from p on; npos when there are none.
  const auto digits = [this](size_t p, auto&& allowed) {
    const size_t start = p;
    while (p < text_.size() && (allowed(text_[p]) || (text_[p] == '_' && p > start && p + 1 < text_.size() &&
                                                      text_[p - 1] != '_' && allowed(text_[p + 1])))) {
      ++p;
    }
    return p == start ? kNone : p;
  };
  const auto take = [this](Token::Kind kind, size_t end) {
    std::string value(text_.substr(pos_, end - pos_));
    value.erase(std::remove(value.begin(), value.end(), '_'), value.end());
    add(kind, std::move(value));
    advance(end);
  };
  const char base =
      pos_ + 1 < text_.size() && text_[pos_] == '0' ? static_cast<char>(text_[pos_ + 1] | 0x20) : '\0';
  if (base == 'x' || base == 'o' || base == 'b') {
    const size_t first = pos_ + 2 < text_.size() && text_[pos_ + 2] == '_' ? pos_ + 3 : pos_ + 2;
    const size_t end = digits(first, [base](char c) {
      if (base == 'x') return hex_value(std::string_view(&c, 1)) != UINT32_MAX;
      return c >= '0' && c <= (base == 'o' ? '7' : '1');
    });
    if (end != kNone) return take(Token::Kind::kInteger, end);
  }
  size_t end = digits(pos_, is_digit);
  const bool after_dot = !tokens_.empty() && tokens_.back().is_op(".") && pos_ > 0 && text_[pos_ - 1] == '.';
  size_t real_end = kNone;
  if (!after_dot) {
    size_t p = end;
    if (p < text_.size() && text_[p] == '.' && digits(p + 1, is_digit) != kNone) {
      real_end = p = digits(p + 1, is_digit);
    }
    if (p < text_.size() && (text_[p] | 0x20) == 'e') {
      const size_t sign = p + 1 < text_.size() && (text_[p + 1] == '+' || text_[p + 1] == '-') ? 1 : 0;
      const size_t exponent_end = digits(p + 1 + sign, is_digit);
      if (exponent_end != kNone) real_end = exponent_end;
    }
  }
  if (real_end != kNone) return take(Token::Kind::kFloat, real_end);
  // 007 is three integers, as in Jinja; only zeros may follow a leading zero.
  if (text_[pos_] == '0') end = digits(pos_, [](char c) { return c == '0'; });
  take(Token::Kind::kInteger, end);
}

void Lexer::read_string() {
  const char quote = text_[pos_];
  size_t p = pos_ + 1;
  while (p < text_.size() && text_[p] != quote) p += text_[p] == '\\' ? 2 : 1;
  if (p >= text_.size()) error("unexpected char '" + std::string(1, quote) + "' (string without an end)");
  add(Token::Kind::kString, unescape(text_.substr(pos_ + 1, p - pos_ - 1)));
  advance(p + 1);
}

// Python's escapes. A surrogate pair written as two \u escapes becomes its character, a lone surrogate
// U+FFFD.
std::string Lexer::unescape(std::string_view raw) const {
  std::string out;
  uint32_t high = 0;  // surrogate waiting for its second half
  const auto put = [&](uint32_t c) {
    if (high != 0 && c >= 0xDC00 && c < 0xE000) {
      append_utf8(out, 0x10000 + ((high - 0xD800) << 10) + (c - 0xDC00));
      high = 0;
      return;
    }
    if (high != 0) append_utf8(out, 0xFFFD);
    high = c >= 0xD800 && c < 0xDC00 ? c : 0;
    if (high == 0) append_utf8(out, c >= 0xDC00 && c < 0xE000 ? 0xFFFD : c);
  };
  constexpr std::string_view kNames = "abfnrtv\\'\"", kValues = "\a\b\f\n\r\t\v\\'\"";
  for (size_t i = 0; i < raw.size();) {
    if (raw[i] != '\\' || i + 1 >= raw.size()) {
      put(next_code_point(raw, i));
      continue;
    }
    const char c = raw[i + 1];
    if (c == '\n') {
      i += 2;
    } else if (const size_t name = kNames.find(c); name != kNone) {
      put(static_cast<uint8_t>(kValues[name]));
      i += 2;
    } else if (c == 'x' || c == 'u' || c == 'U') {
      const size_t n = c == 'x' ? 2 : c == 'u' ? 4 : 8;
      const std::string_view hex = raw.substr(i + 2, n);
      const uint32_t code = hex.size() == n ? hex_value(hex) : UINT32_MAX;
      if (code > 0x10FFFF) error(std::string("bad \\") + c + " escape in a string");
      put(code);
      i += 2 + n;
    } else if (c >= '0' && c <= '7') {
      uint32_t code = 0;
      size_t p = i + 1;
      for (; p < raw.size() && p < i + 4 && raw[p] >= '0' && raw[p] <= '7'; ++p) {
        code = code * 8 + static_cast<uint32_t>(raw[p] - '0');
      }
      put(code);
      i = p;
    } else if (c == 'N') {
      error("\\N escapes are not supported");
    } else {
      put('\\');
      ++i;
    }
  }
  if (high != 0) append_utf8(out, 0xFFFD);
  return out;
}

void Lexer::read_operator() {
  static constexpr std::array<std::string_view, 7> kLong = {"//", "**", "==", "!=", ">=", "<=", ""};
  constexpr std::string_view kSingle = "+-/*%~[](){}><=.:|,;";
  std::string_view op;
  for (std::string_view candidate : kLong) {
    if (!candidate.empty() && at(candidate)) op = candidate;
  }
  if (op.empty()) op = text_.substr(pos_, 1);
  if (op.size() == 1 && kSingle.find(op[0]) == kNone) {
    size_t end = pos_;
    next_code_point(text_, end);
    error("unexpected char '" + std::string(text_.substr(pos_, end - pos_)) + "'");
  }
  if (op == "(" || op == "[" || op == "{") {
    open_.push_back(op == "(" ? ')' : op == "[" ? ']' : '}');
  } else if (op == ")" || op == "]" || op == "}") {
    if (open_.empty()) error("unexpected '" + std::string(op) + "'");
    if (open_.back() != op[0]) {
      error("unexpected '" + std::string(op) + "', expected '" + std::string(1, open_.back()) + "'");
    }
    open_.pop_back();
  }
  add(Token::Kind::kOperator, std::string(op));
  advance(pos_ + op.size());
}

std::vector<Token> Lexer::run() {
  while (pos_ < text_.size()) {
    size_t begin = text_.find('{', pos_);
    while (begin != kNone &&
           (begin + 1 >= text_.size() || std::string_view("%{#").find(text_[begin + 1]) == kNone)) {
      begin = text_.find('{', begin + 1);
    }
    if (begin == kNone) {
      add(Token::Kind::kText, std::string(text_.substr(pos_)));
      advance(text_.size());
      break;
    }
    const char kind = text_[begin + 1];
    size_t content = 0;
    char sign = 0;
    if (kind == '%' && raw_begin(begin, content, sign)) {
      add_text(begin, sign, false);
      read_raw(content);
      continue;
    }
    const char after = begin + 2 < text_.size() ? text_[begin + 2] : '\0';
    sign = after == '-' || after == '+' ? after : '\0';
    add_text(begin, sign, kind == '{');
    content = begin + 2 + (sign != 0 ? 1 : 0);
    if (kind == '#') {
      read_comment(content);
      continue;
    }
    add(kind == '{' ? Token::Kind::kVariableBegin : Token::Kind::kBlockBegin);
    advance(content);
    read_tag(kind == '{');
  }
  add(Token::Kind::kEnd);
  return std::move(tokens_);
}

}  // namespace

std::vector<Token> tokenize(std::string_view source) {
  return Lexer(source).run();
}

std::string describe_token(const Token& token) {
  switch (token.kind) {
    case Token::Kind::kText:
      return "template data";
    case Token::Kind::kBlockBegin:
      return "begin of statement block";
    case Token::Kind::kBlockEnd:
      return "end of statement block";
    case Token::Kind::kVariableBegin:
      return "begin of print statement";
    case Token::Kind::kVariableEnd:
      return "end of print statement";
    case Token::Kind::kEnd:
      return "end of template";
    case Token::Kind::kString:
      return "string";
    default:
      return "'" + token.text + "'";
  }
}

}  // namespace dspark::jinja
