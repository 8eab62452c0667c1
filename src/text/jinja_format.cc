// "%s" % x and "{}".format(x); see jinja_builtins.h.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "text/jinja_builtins.h"
#include "text/jinja_error.h"
#include "text/jinja_eval.h"
#include "text/jinja_ops.h"
#include "text/jinja_unicode.h"
#include "text/utf8.h"

namespace dspark::jinja {
namespace {

constexpr Int kMaxPrecision = 350;
constexpr Int kMaxWidth = Int{1} << 40;  // checked against the limit on strings before anything is built

// What both syntaxes say about one field.
struct Spec {
  std::string fill = " ";
  char align = 0;  // '<', '>', '^', '=' or 0: the type's own
  char sign = '-';
  bool alternate = false;
  char grouping = 0;  // ',' or '_'
  Int width = 0;
  Int precision = -1;
  char type = 0;
};

[[noreturn]] void value_error(std::string message) {
  fail(ErrorKind::kValue, std::move(message));
}

// A run of digits as a number, at most kMaxWidth.
Int read_number(std::string_view s, size_t& pos) {
  Int value = 0;
  for (; pos < s.size() && s[pos] >= '0' && s[pos] <= '9'; ++pos)
    value = std::min(value * 10 + (s[pos] - '0'), kMaxWidth);
  return value;
}

// `sign` and `prefix` stand before the padding of '='.
std::string padded(Heap& heap, const Spec& spec, const std::string& prefix, const std::string& body,
                   char own_align) {
  const auto n = static_cast<Int>(count_code_points(prefix) + count_code_points(body));
  if (spec.width <= n) return prefix + body;
  const Int missing = spec.width - n;
  heap.check_string(static_cast<size_t>(spec.width) * spec.fill.size());
  heap.work_bytes(static_cast<size_t>(spec.width) * spec.fill.size());
  const char align = spec.align != 0 ? spec.align : own_align;
  const auto fill = [&](Int count) {
    std::string out;
    for (Int i = 0; i < count; ++i) out += spec.fill;
    return out;
  };
  switch (align) {
    case '<':
      return prefix + body + fill(missing);
    case '^':
      return fill(missing / 2) + prefix + body + fill(missing - missing / 2);
    case '=':
      return prefix + fill(missing) + body;
    default:
      return fill(missing) + prefix + body;
  }
}

std::string sign_prefix(const Spec& spec, bool negative) {
  if (negative) return "-";
  return spec.sign == '+' || spec.sign == ' ' ? std::string(1, spec.sign) : "";
}

std::string grouped(const std::string& digits, char separator, size_t group) {
  if (separator == 0) return digits;
  std::string out;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % group == 0) out += separator;
    out += digits[i];
  }
  return out;
}

std::string digits_of(Int value, int base, bool upper) {
  std::string out;
  do {
    int digit = static_cast<int>(value % base);
    if (digit < 0) digit = -digit;
    out += (upper ? "0123456789ABCDEF" : "0123456789abcdef")[digit];
    value /= base;
  } while (value != 0);
  return {out.rbegin(), out.rend()};
}

std::string format_int(Heap& heap, const Spec& spec, Int value) {
  if (spec.type == 'c') {
    if (value < 0 || value > 0x10FFFF) fail(ErrorKind::kOverflow, "%c arg not in range(0x110000)");
    std::string text;
    append_utf8(text, value >= 0xD800 && value < 0xE000 ? 0xFFFD : static_cast<uint32_t>(value));
    return padded(heap, spec, "", text, '>');
  }
  const int base = spec.type == 'x' || spec.type == 'X' ? 16
                   : spec.type == 'o'                   ? 8
                   : spec.type == 'b'                   ? 2
                                                        : 10;
  std::string prefix = sign_prefix(spec, value < 0);
  if (spec.alternate && base != 10) prefix += std::string("0") + spec.type;
  std::string digits = digits_of(value, base, spec.type == 'X');
  if (spec.precision > static_cast<Int>(digits.size())) {
    digits.insert(0, static_cast<size_t>(spec.precision) - digits.size(), '0');
  }
  return padded(heap, spec, prefix, grouped(digits, spec.grouping, base == 10 ? 3 : 4), '>');
}

// "%.*f" and the like of the absolute value; nan and inf as Python writes them.
std::string plain_double(double magnitude, Int precision, char type, bool alternate) {
  const bool upper = type == 'F' || type == 'E' || type == 'G';
  if (!std::isfinite(magnitude))
    return std::isnan(magnitude) ? (upper ? "NAN" : "nan") : (upper ? "INF" : "inf");
  char pattern[8] = {'%', '#', '.', '*', type, 0};
  if (!alternate) std::snprintf(pattern, sizeof pattern, "%%.*%c", type);
  char buffer[800];
  std::snprintf(buffer, sizeof buffer, pattern, static_cast<int>(precision), magnitude);
  return buffer;
}

std::string format_double(Heap& heap, const Spec& spec, double value) {
  if (spec.precision > kMaxPrecision) fail(ErrorKind::kLimit, "more than 350 digits behind the point");
  const bool negative = std::signbit(value) && !std::isnan(value);
  const double magnitude = std::abs(value);
  const Int precision = spec.precision < 0 ? 6 : spec.precision;
  std::string body;
  if (spec.type == 0 && spec.precision < 0) {
    body = float_repr(magnitude);
  } else if (spec.type == 0) {
    body = plain_double(magnitude, std::max<Int>(precision, 1), 'g', false);
    if (body.find_first_of(".en") == std::string::npos) body += ".0";
  } else if (spec.type == '%') {
    body = plain_double(magnitude * 100, precision, 'f', spec.alternate) + "%";
  } else {
    body = plain_double(magnitude, precision, spec.type == 'n' ? 'g' : spec.type, spec.alternate);
  }
  if (spec.grouping != 0) {
    const size_t whole = std::min(body.find_first_not_of("0123456789"), body.size());
    body = grouped(body.substr(0, whole), spec.grouping, 3) + body.substr(whole);
  }
  return padded(heap, spec, sign_prefix(spec, negative), body, '>');
}

std::string format_text(Heap& heap, const Spec& spec, std::string text) {
  if (spec.precision >= 0 && spec.precision < kMaxWidth) {
    text.resize(byte_of_code_point(text, static_cast<size_t>(spec.precision)));
  }
  return padded(heap, spec, "", text, '<');
}

std::string repr(Heap& heap, const Value& v) {
  TextBuilder out(heap);
  append_repr(out, v);
  return out.take();
}

// ---- "format" % args
// ------------------------------------------------------------------------------------------

class PercentFormat {
 public:
  PercentFormat(Heap& heap, std::string_view format, const Value& args)
      : heap_(heap), format_(format), args_(args), out_(heap) {}
  std::string run();

 private:
  const Value& next_arg();
  Int star_or_number();
  void read_flags(Spec& spec);
  void conversion();
  std::string convert(const Spec& spec, const Value& v);
  char at() const { return pos_ < format_.size() ? format_[pos_] : '\0'; }

  Heap& heap_;
  std::string_view format_;
  const Value& args_;
  TextBuilder out_;
  size_t pos_ = 0;
  size_t used_ = 0;
  bool named_ = false;
};

const Value& PercentFormat::next_arg() {
  const bool tuple = args_.is(Kind::kTuple);
  const size_t n = tuple ? args_.items().size() : 1;
  if (used_ >= n) type_error("not enough arguments for format string");
  ++used_;
  return tuple ? args_.items()[used_ - 1] : args_;
}

Int PercentFormat::star_or_number() {
  if (at() != '*') return read_number(format_, pos_);
  ++pos_;
  const Value& v = next_arg();
  if (!v.is_int_or_bool()) type_error("* wants int");
  return std::clamp(v.as_int(), -kMaxWidth, kMaxWidth);
}

void PercentFormat::read_flags(Spec& spec) {
  for (;; ++pos_) {
    switch (at()) {
      case '-':
        spec.align = '<';
        break;
      case '+':
        spec.sign = '+';
        break;
      case ' ':
        spec.sign = spec.sign == '+' ? '+' : ' ';
        break;
      case '#':
        spec.alternate = true;
        break;
      case '0':
        spec.fill = "0";
        break;
      default:
        return;
    }
  }
}

std::string PercentFormat::convert(const Spec& given, const Value& v) {
  Spec spec = given;
  const bool zero = spec.fill == "0";
  const bool text = spec.type == 's' || spec.type == 'r' || spec.type == 'a' || spec.type == 'c';
  if (text || spec.align == '<') spec.fill = " ";
  if (text && spec.align == 0) spec.align = '>';
  if (!text && zero && spec.align == 0) spec.align = '=';
  switch (spec.type) {
    case 's':
      return format_text(heap_, spec, to_text(heap_, v));
    case 'r':
    case 'a':
      return format_text(heap_, spec, repr(heap_, v));
    case 'c':
      if (v.is_string() && v.string_obj().n_chars == 1) return format_text(heap_, spec, v.str());
      if (v.is_int_or_bool()) return format_int(heap_, spec, v.as_int());
      type_error("%c requires int or char");
    case 'd':
    case 'i':
    case 'u':
      if (v.is_undefined()) raise_undefined(v);
      if (!v.is_number()) {
        type_error(std::string("%") + spec.type + " format: a real number is required, not " + type_name(v));
      }
      spec.type = 'd';
      if (spec.precision > kMaxPrecision) fail(ErrorKind::kLimit, "more than 350 digits");
      return format_int(heap_, spec, v.is_int_or_bool() ? v.as_int() : int_of_double(v.as_double()));
    case 'x':
    case 'X':
    case 'o':
      if (!v.is_int_or_bool()) {
        type_error(std::string("%") + spec.type + " format: an integer is required, not " + type_name(v));
      }
      if (spec.precision > kMaxPrecision) fail(ErrorKind::kLimit, "more than 350 digits");
      return format_int(heap_, spec, v.as_int());
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G':
      if (v.is_undefined()) raise_undefined(v);
      if (!v.is_number()) type_error(std::string("must be real number, not ") + type_name(v));
      return format_double(heap_, spec, v.as_double());
    default:
      value_error(std::string("unsupported format character '") + spec.type + "' at index " +
                  std::to_string(pos_ - 1));
  }
}

void PercentFormat::conversion() {
  Spec spec;
  const Value* named = nullptr;
  if (at() == '(') {
    const size_t end = format_.find(')', pos_);
    if (end == std::string_view::npos) value_error("incomplete format key");
    if (!args_.is(Kind::kDict)) type_error("format requires a mapping");
    const std::string_view key = format_.substr(pos_ + 1, end - pos_ - 1);
    named = args_.dict().find(key);
    if (named == nullptr) fail(ErrorKind::kLookup, "'" + std::string(key) + "'");
    named_ = true;
    pos_ = end + 1;
  }
  read_flags(spec);
  spec.width = star_or_number();
  if (spec.width < 0) {
    spec.align = '<';
    spec.width = -spec.width;
  }
  if (at() == '.') {
    ++pos_;
    spec.precision = std::max<Int>(star_or_number(), 0);
  }
  while (at() == 'l' || at() == 'h' || at() == 'L') ++pos_;
  if (pos_ >= format_.size()) value_error("incomplete format");
  spec.type = format_[pos_++];
  if (spec.type == '%') return out_.add('%');
  out_.add(convert(spec, named != nullptr ? *named : next_arg()));
}

std::string PercentFormat::run() {
  while (pos_ < format_.size()) {
    const size_t percent = std::min(format_.find('%', pos_), format_.size());
    out_.add(format_.substr(pos_, percent - pos_));
    pos_ = percent;
    if (pos_ < format_.size()) {
      ++pos_;
      conversion();
    }
  }
  const size_t n = args_.is(Kind::kTuple) ? args_.items().size() : 1;
  const bool may_stay = named_ || args_.is(Kind::kDict) || args_.is(Kind::kList);
  if (used_ < n && !may_stay) type_error("not all arguments converted during string formatting");
  return out_.take();
}

// ---- "format".format(args)
// ------------------------------------------------------------------------------------

Spec read_spec(std::string_view s) {
  Spec spec;
  size_t pos = 0;
  const auto is_align = [&](size_t i) {
    return i < s.size() && std::string_view("<>^=").find(s[i]) != std::string_view::npos;
  };
  size_t after_fill = 0;
  if (!s.empty()) next_code_point(s, after_fill);
  if (!s.empty() && is_align(after_fill)) {
    spec.fill = std::string(s.substr(0, after_fill));
    spec.align = s[after_fill];
    pos = after_fill + 1;
  } else if (is_align(0)) {
    spec.align = s[0];
    pos = 1;
  }
  const auto skip = [&](char c) { return pos < s.size() && s[pos] == c ? (++pos, true) : false; };
  if (pos < s.size() && (s[pos] == '+' || s[pos] == '-' || s[pos] == ' ')) spec.sign = s[pos++];
  spec.alternate = skip('#');
  if (skip('0') && spec.align == 0) {
    spec.fill = "0";
    spec.align = '=';
  }
  spec.width = read_number(s, pos);
  if (skip(',')) spec.grouping = ',';
  if (skip('_')) spec.grouping = '_';
  if (skip('.')) {
    if (pos >= s.size() || s[pos] < '0' || s[pos] > '9') value_error("Format specifier missing precision");
    spec.precision = read_number(s, pos);
  }
  if (pos < s.size()) spec.type = s[pos++];
  if (pos < s.size()) value_error("Invalid format specifier");
  return spec;
}

// format(v, spec) of Python.
std::string format_value(Heap& heap, const Value& v, std::string_view spec_text) {
  if (spec_text.empty()) return to_text(heap, v);
  Spec spec = read_spec(spec_text);
  const bool for_double =
      spec.type != 0 && std::string_view("eEfFgGn%").find(spec.type) != std::string_view::npos;
  if (v.is(Kind::kFloat) || (v.is_int_or_bool() && for_double && spec.type != 'n')) {
    if (spec.type != 0 && !for_double) value_error("Unknown format code for object of type 'float'");
    return format_double(heap, spec, v.as_double());
  }
  if (v.is_int_or_bool()) {
    if (spec.type != 0 && std::string_view("dboxXcn").find(spec.type) == std::string_view::npos) {
      value_error("Unknown format code for object of type 'int'");
    }
    if (spec.precision >= 0) value_error("Precision not allowed in integer format specifier");
    return format_int(heap, spec, v.as_int());
  }
  if (v.is_string()) {
    if (spec.type != 0 && spec.type != 's') value_error("Unknown format code for object of type 'str'");
    if (spec.align == '=') {
      if (spec.fill != "0") value_error("'=' alignment not allowed in string format specifier");
      spec.align = '<';
    }
    return format_text(heap, spec, v.str());
  }
  type_error(std::string("unsupported format string passed to ") + type_name(v) + ".__format__");
}

class BraceFormat {
 public:
  BraceFormat(Interp& interp, const CallArgs& args) : interp_(interp), args_(args) {}
  std::string run(std::string_view format, int depth);

 private:
  Value field(std::string_view name);
  Value first_part(std::string_view name);

  Interp& interp_;
  const CallArgs& args_;
  size_t next_ = 0;
};

Value BraceFormat::first_part(std::string_view name) {
  Int index = 0;
  if (name.empty()) {
    index = static_cast<Int>(next_++);
  } else if (!parse_int(name, 10, index) || name[0] < '0' || name[0] > '9') {
    for (const auto& [keyword, value] : args_.keyword) {
      if (keyword == name) return value;
    }
    fail(ErrorKind::kLookup, "'" + std::string(name) + "'");
  }
  if (index < 0 || index >= static_cast<Int>(args_.positional.size())) {
    fail(ErrorKind::kLookup,
         "Replacement index " + int_text(index) + " out of range for positional args tuple");
  }
  return args_.positional[static_cast<size_t>(index)];
}

// "name", "0.attribute", "name[key]".
Value BraceFormat::field(std::string_view name) {
  size_t pos = std::min(name.find_first_of(".["), name.size());
  Value value = first_part(name.substr(0, pos));
  while (pos < name.size()) {
    if (name[pos] == '.') {
      const size_t end = std::min(name.find_first_of(".[", pos + 1), name.size());
      value = interp_.get_attribute(value, name.substr(pos + 1, end - pos - 1));
      pos = end;
    } else if (name[pos] == '[') {
      const size_t end = name.find(']', pos);
      if (end == std::string_view::npos) value_error("Missing ']' in format string");
      const std::string_view key = name.substr(pos + 1, end - pos - 1);
      Int index = 0;
      const bool number = !key.empty() && key[0] >= '0' && key[0] <= '9' && parse_int(key, 10, index);
      value = interp_.get_item(value, number ? Value::integer(index) : interp_.string(std::string(key)));
      pos = end + 1;
    } else {
      value_error("Only '.' or '[' may follow ']' in format field specifier");
    }
  }
  return value;
}

std::string BraceFormat::run(std::string_view format, int depth) {
  if (depth > 2) value_error("Max string recursion exceeded");
  Heap& heap = interp_.heap();
  TextBuilder out(heap);
  for (size_t pos = 0; pos < format.size();) {
    const char c = format[pos];
    if (c != '{' && c != '}') {
      const size_t end = std::min(format.find_first_of("{}", pos), format.size());
      out.add(format.substr(pos, end - pos));
      pos = end;
      continue;
    }
    if (pos + 1 < format.size() && format[pos + 1] == c) {
      out.add(c);
      pos += 2;
      continue;
    }
    if (c == '}') value_error("Single '}' encountered in format string");
    size_t end = pos + 1;
    for (int open = 1; end < format.size(); ++end) {
      open += format[end] == '{' ? 1 : format[end] == '}' ? -1 : 0;
      if (open == 0) break;
    }
    if (end >= format.size()) value_error("expected '}' before end of string");
    const std::string_view inside = format.substr(pos + 1, end - pos - 1);
    const size_t name_end = std::min(inside.find_first_of("!:"), inside.size());
    Value value = field(inside.substr(0, name_end));
    std::string_view rest = inside.substr(name_end);
    if (!rest.empty() && rest[0] == '!') {
      if (rest.size() < 2) value_error("end of string while looking for conversion specifier");
      value = interp_.string(rest[1] == 's' ? to_text(heap, value) : repr(heap, value));
      rest.remove_prefix(2);
    }
    if (!rest.empty() && rest[0] != ':') value_error("expected ':' after conversion specifier");
    const std::string spec = rest.empty() ? "" : run(rest.substr(1), depth + 1);
    out.add(format_value(heap, value, spec));
    pos = end + 1;
  }
  return out.take();
}

}  // namespace

Value format_percent(Heap& heap, const Value& format, const Value& args) {
  return heap.string(PercentFormat(heap, format.str(), args).run(), format.string_obj().markup);
}

Value format_braces(Interp& interp, const Value& self, CallArgs& args) {
  return interp.heap().string(BraceFormat(interp, args).run(self.str(), 1), self.string_obj().markup);
}

}  // namespace dspark::jinja
