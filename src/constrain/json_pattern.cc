#include "constrain/json_pattern.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "text/utf8.h"

namespace dspark {
namespace {

using Node = GrammarIr::Node;
using Ranges = std::vector<CodeRange>;

constexpr int32_t kUnbounded = GrammarIr::kUnbounded;
constexpr int kMaxNesting = 100;
constexpr int32_t kMaxCount = 10000;

Ranges digits() {
  return {{'0', '9'}};
}
Ranges word() {
  return {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
}
Ranges blanks() {
  return {{'\t', '\r'},     {' ', ' '},       {0xA0, 0xA0},     {0x1680, 0x1680}, {0x2000, 0x200A},
          {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
}
Ranges line_ends() {
  return {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};
}

int32_t add_lengths(int32_t a, int32_t b) {
  return a == kUnbounded || b == kUnbounded ? kUnbounded : std::min(a + b, 1 << 20);
}
int32_t times(int32_t a, int32_t b) {
  if (a == 0 || b == 0) return 0;
  if (a == kUnbounded || b == kUnbounded) return kUnbounded;
  return static_cast<int32_t>(std::min<int64_t>(int64_t{a} * b, 1 << 20));
}

class PatternParser {
 public:
  // json: nullptr for plain characters.
  PatternParser(std::string_view text, GrammarIr& ir, JsonTerminals* json)
      : text_(text), ir_(ir), json_(json) {}

  Result<PatternContent> run() {
    if (!is_valid_utf8(text_)) return invalid_argument("pattern is not valid UTF-8");
    PatternContent content = alternatives(0);
    if (status_.ok() && pos_ < text_.size()) fail("')' without a group");
    if (!status_.ok()) return status_;
    return content;
  }

 private:
  bool at_end() const { return pos_ >= text_.size(); }
  char peek(size_t ahead = 0) const { return pos_ + ahead < text_.size() ? text_[pos_ + ahead] : '\0'; }
  bool take(std::string_view token) {
    if (!text_.substr(std::min(pos_, text_.size())).starts_with(token)) return false;
    pos_ += token.size();
    return true;
  }
  PatternContent fail(const std::string& what, bool is_unsupported = false) {
    if (status_.ok()) {
      const std::string message =
          "pattern, offset " + std::to_string(std::min(pos_, text_.size())) + ": " + what;
      status_ = is_unsupported ? unsupported(message) : invalid_argument(message);
    }
    pos_ = text_.size();
    return {};
  }

  PatternContent alternatives(int depth) {
    if (depth > kMaxNesting) return fail("groups are nested too deep");
    PatternContent all = sequence(depth);
    std::vector<Node> parts{all.node};
    while (status_.ok() && take("|")) {
      const PatternContent next = sequence(depth);
      parts.push_back(next.node);
      all.min_length = std::min(all.min_length, next.min_length);
      all.max_length = all.max_length == kUnbounded || next.max_length == kUnbounded
                           ? kUnbounded
                           : std::max(all.max_length, next.max_length);
      all.unit = -1;
    }
    if (status_.ok()) all.node = ir_.choice(std::move(parts));
    return all;
  }

  // Where the pattern is not anchored, any text may stand.
  void append_any(PatternContent& all, std::vector<Node>& parts) {
    const Node any = json_ != nullptr ? json_->character() : ir_.char_class({{0, kMaxCodePoint}});
    parts.push_back(ir_.repeat(any, 0, kUnbounded));
    all.max_length = kUnbounded;
    all.unit = -1;
  }

  PatternContent sequence(int depth) {
    PatternContent all;
    std::vector<Node> parts;
    const bool begins = take("^");
    if (begins && depth > 0) return fail("'^' inside a group", true);
    bool ends = false;
    size_t n_items = 0;
    while (status_.ok() && !at_end() && peek() != '|' && peek() != ')') {
      if (take("$")) {
        if (depth > 0 || (!at_end() && peek() != '|')) return fail("'$' before the end", true);
        ends = true;
        break;
      }
      const PatternContent item = quantified(depth);
      if (!status_.ok()) return {};
      parts.push_back(item.node);
      all.min_length = add_lengths(all.min_length, item.min_length);
      all.max_length = add_lengths(all.max_length, item.max_length);
      all.unit = n_items++ == 0 ? item.unit : -1;
    }
    if (depth == 0) {
      PatternContent wrapped = all;
      std::vector<Node> outer;
      if (!begins) append_any(wrapped, outer);
      outer.insert(outer.end(), parts.begin(), parts.end());
      if (!ends) append_any(wrapped, outer);
      wrapped.node = ir_.sequence(std::move(outer));
      return wrapped;
    }
    all.node = ir_.sequence(std::move(parts));
    return all;
  }

  PatternContent quantified(int depth) {
    PatternContent item = atom(depth);
    if (!status_.ok()) return item;
    int32_t min = 1, max = 1;
    if (take("*")) {
      min = 0, max = kUnbounded;
    } else if (take("+")) {
      max = kUnbounded;
    } else if (take("?")) {
      min = 0;
    } else if (peek() == '{') {
      if (!counts(min, max)) return {};
    } else {
      return item;
    }
    take("?");  // lazy: the same strings
    if (peek() == '*' || peek() == '+' || peek() == '?' || peek() == '{') return fail("nothing to repeat");
    if (item.min_length != 1 || item.max_length != 1) item.unit = -1;
    item.node = ir_.repeat(item.node, min, max);
    item.min_length = times(item.min_length, min);
    item.max_length = times(item.max_length, max);
    return item;
  }

  bool counts(int32_t& min, int32_t& max) {
    take("{");
    const auto number = [&](int32_t& value) {
      const size_t begin = pos_;
      int64_t n = 0;
      while (peek() >= '0' && peek() <= '9' && n <= kMaxCount) n = n * 10 + (text_[pos_++] - '0');
      value = static_cast<int32_t>(n);
      return pos_ > begin && n <= kMaxCount;
    };
    bool ok = number(min);
    max = min;
    if (ok && take(",")) {
      max = kUnbounded;
      if (peek() != '}') ok = number(max) && max >= min;
    }
    if (ok && take("}")) return true;
    fail("expected a quantifier {m}, {m,} or {m,n} with m <= n <= " + std::to_string(kMaxCount));
    return false;
  }

  PatternContent one_character(const Ranges& ranges) {
    PatternContent item;
    item.node = json_ != nullptr ? json_->character_of(normalise_ranges(ranges)) : ir_.char_class(ranges);
    item.min_length = item.max_length = 1;
    item.unit = item.node;
    return item;
  }

  PatternContent atom(int depth) {
    if (take("(")) {
      if (peek() == '?' && peek(1) != ':')
        return fail("look-around and named groups are not supported", true);
      take("?:");
      const PatternContent inside = alternatives(depth + 1);
      if (status_.ok() && !take(")")) return fail("a group is not closed");
      return inside;
    }
    if (peek() == '[') return char_class();
    if (take(".")) return one_character(complement_ranges(normalise_ranges(line_ends())));
    if (peek() == '*' || peek() == '+' || peek() == '?' || peek() == '{') return fail("nothing to repeat");
    if (peek() == '^') return fail("'^' inside a pattern", true);
    std::optional<Ranges> ranges = peek() == '\\' ? escape(false) : plain();
    if (!ranges) return {};
    return one_character(*ranges);
  }

  std::optional<Ranges> plain() {
    const size_t length = utf8_step(text_.substr(pos_)).length;
    uint32_t value = static_cast<uint8_t>(peek());
    if (length > 1) value &= 0x7Fu >> length;
    for (size_t i = 1; i < length; ++i) value = value << 6 | (static_cast<uint8_t>(peek(i)) & 0x3F);
    pos_ += length;
    return Ranges{{value, value}};
  }

  std::optional<Ranges> escape(bool in_class) {
    ++pos_;
    if (at_end()) {
      fail("a backslash at the end");
      return std::nullopt;
    }
    const char c = text_[pos_++];
    const auto one = [](uint32_t value) { return Ranges{{value, value}}; };
    switch (c) {
      case 'd':
        return digits();
      case 'D':
        return complement_ranges(normalise_ranges(digits()));
      case 'w':
        return word();
      case 'W':
        return complement_ranges(normalise_ranges(word()));
      case 's':
        return blanks();
      case 'S':
        return complement_ranges(normalise_ranges(blanks()));
      case 'n':
        return one('\n');
      case 'r':
        return one('\r');
      case 't':
        return one('\t');
      case 'f':
        return one('\f');
      case 'v':
        return one('\v');
      case '0':
        return one(0);
      case 'x':
        return hex(2);
      case 'u':
        return hex(4);
      default:
        break;
    }
    if (c == 'b' && in_class) return one('\b');
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '1' && c <= '9')) {
      fail(std::string("'\\") + c + "' is not supported", true);
      return std::nullopt;
    }
    --pos_;
    return plain();
  }

  std::optional<Ranges> hex(int n_digits) {
    uint32_t value = 0;
    for (int i = 0; i < n_digits; ++i, ++pos_) {
      const char c = peek();
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) {
        fail("expected " + std::to_string(n_digits) + " hexadecimal digits");
        return std::nullopt;
      }
      value = value << 4 | static_cast<uint32_t>(digit);
    }
    return Ranges{{value, value}};
  }

  PatternContent char_class() {
    take("[");
    const bool negated = take("^");
    Ranges all;
    while (!at_end() && peek() != ']') {
      std::optional<Ranges> first = peek() == '\\' ? escape(true) : plain();
      if (!first) return {};
      const bool is_one = first->size() == 1 && (*first)[0].first == (*first)[0].last;
      if (is_one && peek() == '-' && peek(1) != ']' && peek(1) != '\0') {
        ++pos_;
        const std::optional<Ranges> last = peek() == '\\' ? escape(true) : plain();
        if (!last) return {};
        if (last->size() != 1 || (*last)[0].first != (*last)[0].last ||
            (*last)[0].first < (*first)[0].first) {
          return fail("a range of a class must run from a lower to a higher character");
        }
        (*first)[0].last = (*last)[0].first;
      }
      all.insert(all.end(), first->begin(), first->end());
    }
    if (!take("]")) return fail("a class is not closed");
    all = normalise_ranges(std::move(all));
    return one_character(negated ? complement_ranges(all) : all);
  }

  std::string_view text_;
  size_t pos_ = 0;
  GrammarIr& ir_;
  JsonTerminals* json_;
  Status status_;
};

}  // namespace

Result<PatternContent> compile_pattern(std::string_view pattern, GrammarIr& ir, JsonTerminals& json) {
  return PatternParser(pattern, ir, &json).run();
}

Result<Node> compile_plain_pattern(std::string_view pattern, GrammarIr& ir) {
  DSPARK_ASSIGN_OR_RETURN(const PatternContent content, PatternParser(pattern, ir, nullptr).run());
  return content.node;
}

}  // namespace dspark
