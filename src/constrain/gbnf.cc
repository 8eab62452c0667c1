#include "constrain/gbnf.h"

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "constrain/grammar.h"
#include "text/utf8.h"

namespace dspark {
namespace {

constexpr int32_t kMaxNesting = 200;
constexpr int32_t kMaxRepetition = 100000;
constexpr int kMaxSuffixes = 8;

bool is_name_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// Errors are remembered, the first one wins, and parsing goes to the end at once.
class GbnfParser {
 public:
  GbnfParser(std::string_view text, std::string_view name) : text_(text), name_(name) {}

  Result<GrammarIr> run() {
    if (text_.size() > kMaxGrammarBytes) {
      return resource_exhausted(std::string(name_) + ": " + std::to_string(text_.size()) +
                                " bytes; at most " + std::to_string(kMaxGrammarBytes) + " are read");
    }
    skip_space();
    while (status_.ok() && !at_end()) rule();
    check_rules();
    if (!status_.ok()) return status_;
    return std::move(ir_);
  }

 private:
  using Node = GrammarIr::Node;

  bool at_end() const { return pos_ >= text_.size(); }
  char peek(size_t ahead = 0) const { return pos_ + ahead < text_.size() ? text_[pos_ + ahead] : '\0'; }
  bool starts(std::string_view word) const { return text_.substr(pos_).starts_with(word); }
  bool take(std::string_view word) {
    if (!starts(word)) return false;
    pos_ += word.size();
    return true;
  }

  std::string place(size_t pos) const {
    const std::string_view before = text_.substr(0, std::min(pos, text_.size()));
    const auto line = std::count(before.begin(), before.end(), '\n') + 1;
    const size_t begin = before.rfind('\n') == std::string_view::npos ? 0 : before.rfind('\n') + 1;
    size_t column = 1;
    for (size_t i = begin; i < before.size(); ++i) column += (static_cast<uint8_t>(before[i]) & 0xC0) != 0x80;
    return std::string(name_) + ":" + std::to_string(line) + ":" + std::to_string(column) + ": ";
  }
  Node fail(size_t pos, const std::string& message) {
    if (status_.ok()) status_ = invalid_argument(place(pos) + message);
    pos_ = text_.size();
    return -1;
  }
  Node expected(const std::string& what) {
    const size_t at = pos_;
    if (at_end()) return fail(at, "expected " + what + ", found the end of the grammar");
    const size_t length = utf8_step(text_.substr(at)).length;
    const std::string found =
        peek() == '\n' ? "the end of the line" : "'" + std::string(text_.substr(at, length)) + "'";
    return fail(at, "expected " + what + ", found " + found);
  }

  void skip_space() {
    while (!at_end()) {
      const char c = peek();
      if (c == '#') {
        while (!at_end() && peek() != '\n') ++pos_;
      } else if (c == ' ' || c == '\t' || c == '\n' || c == '\r') {
        ++pos_;
      } else {
        return;
      }
    }
  }

  std::string_view name() {
    const size_t begin = pos_;
    while (is_name_char(peek())) ++pos_;
    return text_.substr(begin, pos_ - begin);
  }
  // Whether a new rule begins here: "name ::=".
  bool at_rule() {
    const size_t begin = pos_;
    const bool has_name = !name().empty();
    while (peek() == ' ' || peek() == '\t') ++pos_;
    const bool found = has_name && starts("::=");
    pos_ = begin;
    return found;
  }

  int32_t rule_of(std::string_view rule_name, size_t pos) {
    const auto [it, is_new] = by_name_.try_emplace(std::string(rule_name), 0);
    if (is_new) {
      it->second = ir_.add_rule(it->first);
      used_at_.push_back(pos);
    }
    return it->second;
  }

  void rule() {
    const size_t begin = pos_;
    if (!at_rule()) {
      expected("a rule: name ::= ...");
      return;
    }
    const std::string_view rule_name = name();
    skip_space();
    take("::=");
    const int32_t rule_idx = rule_of(rule_name, begin);
    if (ir_.rules[static_cast<size_t>(rule_idx)].body >= 0) {
      fail(begin, "rule '" + std::string(rule_name) + "' is defined twice");
      return;
    }
    skip_space();
    const Node body = alternatives(0);
    if (status_.ok()) ir_.set_body(rule_idx, body);
  }

  Node alternatives(int32_t depth) {
    if (depth > kMaxNesting)
      return fail(pos_, "groups are nested deeper than " + std::to_string(kMaxNesting));
    std::vector<Node> parts{sequence(depth)};
    while (status_.ok() && take("|")) {
      skip_space();
      parts.push_back(sequence(depth));
    }
    return ir_.choice(std::move(parts));
  }

  Node sequence(int32_t depth) {
    std::vector<Node> parts;
    while (status_.ok() && !at_end() && peek() != '|' && peek() != ')' && !at_rule()) {
      Node part = item(depth);
      if (!status_.ok()) return -1;
      skip_space();
      for (int n = 0; status_.ok() && (peek() == '*' || peek() == '+' || peek() == '?' || peek() == '{');
           ++n) {
        if (n == kMaxSuffixes) return fail(pos_, "too many repetitions of one item");
        part = repetition(part);
        skip_space();
      }
      parts.push_back(part);
    }
    if (depth == 0 && status_.ok() && peek() == ')')
      return expected("the rest of the rule (no group is open)");
    return ir_.sequence(std::move(parts));
  }

  Node item(int32_t depth) {
    const char c = peek();
    if (c == '"') return literal();
    if (c == '[') return char_class();
    if (c == '.') {
      ++pos_;
      return ir_.char_class({{0, kMaxCodePoint}});
    }
    if (c == '(') return group(depth);
    if (c == '<' || c == '!')
      return fail(pos_, "references to tokens (<...>) are not supported; write a literal");
    if (!is_name_char(c)) return expected("a literal, a class, a group or the name of a rule");
    const size_t begin = pos_;
    return ir_.call(rule_of(name(), begin));
  }

  Node group(int32_t depth) {
    const size_t begin = pos_++;
    skip_space();
    const Node inside = alternatives(depth + 1);
    if (!status_.ok()) return -1;
    if (!take(")")) {
      if (at_end()) return fail(begin, "'(' is never closed");
      return expected("')'");
    }
    return inside;
  }

  Node repetition(Node part) {
    if (take("*")) return ir_.repeat(part, 0, GrammarIr::kUnbounded);
    if (take("+")) return ir_.repeat(part, 1, GrammarIr::kUnbounded);
    if (take("?")) return ir_.repeat(part, 0, 1);
    take("{");
    skip_space();
    const std::optional<int32_t> min = number();
    if (!min) return -1;
    skip_space();
    int32_t max = *min;
    if (take(",")) {
      skip_space();
      max = GrammarIr::kUnbounded;
      if (peek() != '}') {
        const size_t at = pos_;
        const std::optional<int32_t> found = number();
        if (!found) return -1;
        max = *found;
        if (max < *min) return fail(at, "a repetition's maximum is below its minimum");
      }
    }
    skip_space();
    if (!take("}")) return expected("'}' or ','");
    return ir_.repeat(part, *min, max);
  }

  std::optional<int32_t> number() {
    const size_t begin = pos_;
    int64_t value = 0;
    while (peek() >= '0' && peek() <= '9' && value <= kMaxRepetition)
      value = value * 10 + (text_[pos_++] - '0');
    if (pos_ == begin) {
      expected("a number");
      return std::nullopt;
    }
    if (value > kMaxRepetition) {
      fail(begin, "a repetition may be at most " + std::to_string(kMaxRepetition));
      return std::nullopt;
    }
    return static_cast<int32_t>(value);
  }

  Node literal() {
    const size_t begin = pos_++;
    std::string bytes;
    while (peek() != '"' || at_end()) {
      if (at_end() || peek() == '\n') return fail(begin, "the literal is not closed on its line");
      const std::optional<uint32_t> code_point = character();
      if (!code_point) return -1;
      append_utf8(bytes, *code_point);
    }
    ++pos_;
    return ir_.literal(bytes);
  }

  Node char_class() {
    const size_t begin = pos_++;
    const bool negated = take("^");
    std::vector<CodeRange> ranges;
    while (peek() != ']' || at_end()) {
      if (at_end() || peek() == '\n') return fail(begin, "the class is not closed on its line");
      const size_t at = pos_;
      const std::optional<uint32_t> first = character();
      if (!first) return -1;
      std::optional<uint32_t> last = first;
      if (peek() == '-' && peek(1) != ']' && peek(1) != '\0') {
        ++pos_;
        last = character();
        if (!last) return -1;
        if (*last < *first) return fail(at, "the range of a class ends before it begins");
      }
      ranges.push_back({*first, *last});
    }
    ++pos_;
    return negated ? ir_.not_in(std::move(ranges)) : ir_.char_class(std::move(ranges));
  }

  // One code point, written out or escaped. Nothing: an error was reported.
  std::optional<uint32_t> character() {
    if (peek() == '\\') return escape();
    const Utf8Step step = utf8_step(text_.substr(pos_));
    if (step.kind != Utf8Step::Kind::kValid) {
      fail(pos_, "the grammar is not valid UTF-8 here");
      return std::nullopt;
    }
    uint32_t value = static_cast<uint8_t>(peek());
    if (step.length > 1) value &= 0x7Fu >> step.length;
    for (size_t i = 1; i < step.length; ++i) value = value << 6 | (static_cast<uint8_t>(peek(i)) & 0x3F);
    pos_ += step.length;
    return value;
  }

  std::optional<uint32_t> escape() {
    const size_t begin = pos_++;
    const char c = peek();
    ++pos_;
    switch (c) {
      case 'n':
        return '\n';
      case 'r':
        return '\r';
      case 't':
        return '\t';
      case '\\':
      case '"':
      case '[':
      case ']':
      case '-':
      case '^':
        return static_cast<uint32_t>(c);
      case 'x':
        return hex(begin, 2);
      case 'u':
        return hex(begin, 4);
      case 'U':
        return hex(begin, 8);
      default:
        fail(begin,
             "unknown escape; known are \\n \\r \\t \\\\ \\\" \\[ \\] \\- \\^ \\xHH \\uHHHH \\UHHHHHHHH");
        return std::nullopt;
    }
  }

  std::optional<uint32_t> hex(size_t begin, int digits) {
    uint64_t value = 0;
    for (int i = 0; i < digits; ++i) {
      const int digit = hex_value(peek());
      if (digit < 0) {
        expected(std::to_string(digits) + " hexadecimal digits");
        return std::nullopt;
      }
      value = value << 4 | static_cast<uint64_t>(digit);
      ++pos_;
    }
    if (value > kMaxCodePoint || (value >= 0xD800 && value <= 0xDFFF)) {
      fail(begin, "not a Unicode character");
      return std::nullopt;
    }
    return static_cast<uint32_t>(value);
  }

  void check_rules() {
    if (!status_.ok()) return;
    const auto root = by_name_.find("root");
    if (root == by_name_.end() || ir_.rules[static_cast<size_t>(root->second)].body < 0) {
      status_ = invalid_argument(std::string(name_) + ": no rule named 'root'");
      return;
    }
    ir_.root = root->second;
    for (size_t i = 0; i < ir_.rules.size(); ++i) {
      if (ir_.rules[i].body < 0) {
        fail(used_at_[i], "rule '" + ir_.rules[i].name + "' is not defined");
        return;
      }
    }
  }

  std::string_view text_;
  std::string_view name_;
  size_t pos_ = 0;
  GrammarIr ir_;
  std::map<std::string, int32_t, std::less<>> by_name_;
  std::vector<size_t> used_at_;  // per rule: where it was first named
  Status status_;
};

}  // namespace

Result<GrammarIr> parse_gbnf(std::string_view text, std::string_view name) {
  return GbnfParser(text, name).run();
}

}  // namespace dspark
