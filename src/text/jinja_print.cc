// Text forms of values as Python's str() and repr() write them; see jinja_ops.h.
#include <charconv>
#include <cmath>
#include <cstdio>

#include "text/jinja_builtins.h"
#include "text/jinja_error.h"
#include "text/jinja_ops.h"
#include "text/jinja_unicode.h"
#include "text/utf8.h"

namespace dspark::jinja {
namespace {

void append_escape(TextBuilder& out, uint32_t c) {
  char buffer[16];
  const char* format = c <= 0xFF ? "\\x%02x" : c <= 0xFFFF ? "\\u%04x" : "\\U%08x";
  std::snprintf(buffer, sizeof buffer, format, static_cast<unsigned>(c));
  out.add(buffer);
}

void append_string_repr(TextBuilder& out, std::string_view s) {
  const bool double_quotes = s.find('\'') != std::string_view::npos && s.find('"') == std::string_view::npos;
  const char quote = double_quotes ? '"' : '\'';
  out.add(quote);
  size_t plain = 0;
  const auto flush = [&](size_t until) { out.add(s.substr(plain, until - plain)); };
  for (size_t pos = 0; pos < s.size();) {
    const size_t start = pos;
    const uint32_t c = next_code_point(s, pos);
    if (is_printable(c) && c != static_cast<uint32_t>(quote) && c != '\\') continue;
    flush(start);
    plain = pos;
    if (c == '\n') {
      out.add("\\n");
    } else if (c == '\r') {
      out.add("\\r");
    } else if (c == '\t') {
      out.add("\\t");
    } else if (c < 0x80 && is_printable(c)) {
      out.add('\\');
      out.add(static_cast<char>(c));
    } else {
      append_escape(out, c);
    }
  }
  flush(s.size());
  out.add(quote);
}

void append_items(TextBuilder& out, const Values& items) {
  bool first = true;
  for (const Value& item : items) {
    if (!first) out.add(", ");
    first = false;
    append_repr(out, item);
  }
}

void append_dict(TextBuilder& out, const DictObj& dict) {
  out.add('{');
  bool first = true;
  for (const auto& [key, value] : dict.entries) {
    if (!first) out.add(", ");
    first = false;
    append_repr(out, key);
    out.add(": ");
    append_repr(out, value);
  }
  out.add('}');
}

void append_range(TextBuilder& out, const RangeObj& range) {
  out.add("range(" + std::to_string(range.start) + ", " + std::to_string(range.stop));
  if (range.step != 1) out.add(", " + std::to_string(range.step));
  out.add(')');
}

void append_tuple(TextBuilder& out, const Values& items) {
  out.add('(');
  append_items(out, items);
  out.add(items.size() == 1 ? ",)" : ")");
}

void append_namespace(TextBuilder& out, const NamespaceObj& space) {
  out.add("<Namespace {");
  bool first = true;
  for (const auto& [name, value] : space.fields()) {
    if (!first) out.add(", ");
    first = false;
    append_string_repr(out, name);
    out.add(": ");
    append_repr(out, value);
  }
  out.add("}>");
}

}  // namespace

std::string int_text(Int i) {
  if (i == 0) return "0";
  std::string digits;
  const bool negative = i < 0;
  while (i != 0) {
    const int digit = static_cast<int>(i % 10);
    digits += static_cast<char>('0' + (digit < 0 ? -digit : digit));
    i /= 10;
  }
  if (negative) digits += '-';
  return {digits.rbegin(), digits.rend()};
}

std::string float_repr(double d) {
  if (std::isnan(d)) return "nan";
  if (std::isinf(d)) return d < 0 ? "-inf" : "inf";
  char buffer[64];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, d, std::chars_format::scientific).ptr;
  const std::string_view text(buffer, static_cast<size_t>(end - buffer));
  const size_t e = text.find('e');
  const std::string sign = text[0] == '-' ? "-" : "";
  std::string digits;
  for (char c : text.substr(0, e)) {
    if (c >= '0' && c <= '9') digits += c;
  }
  const int exponent = std::atoi(std::string(text.substr(e + 1)).c_str());
  if (exponent < -4 || exponent >= 16) {
    std::string out = sign + digits.substr(0, 1);
    if (digits.size() > 1) out += "." + digits.substr(1);
    std::snprintf(buffer, sizeof buffer, "e%c%02d", exponent < 0 ? '-' : '+', std::abs(exponent));
    return out + buffer;
  }
  if (exponent < 0) return sign + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  const auto whole = static_cast<size_t>(exponent) + 1;
  if (digits.size() < whole) digits.append(whole - digits.size(), '0');
  const std::string fraction = digits.substr(whole);
  return sign + digits.substr(0, whole) + "." + (fraction.empty() ? "0" : fraction);
}

void append_repr(TextBuilder& out, const Value& v) {
  out.heap().work();
  out.enter();
  switch (v.kind()) {
    case Kind::kUndefined:
      out.add("Undefined");
      break;
    case Kind::kNone:
      out.add("None");
      break;
    case Kind::kBool:
      out.add(v.as_int() != 0 ? "True" : "False");
      break;
    case Kind::kInt:
      out.add(int_text(v.as_int()));
      break;
    case Kind::kFloat:
      out.add(float_repr(v.as_double()));
      break;
    case Kind::kString:
      if (v.string_obj().markup) out.add("Markup(");
      append_string_repr(out, v.str());
      if (v.string_obj().markup) out.add(')');
      break;
    case Kind::kList:
      out.add('[');
      append_items(out, v.items());
      out.add(']');
      break;
    case Kind::kTuple:
      append_tuple(out, v.items());
      break;
    case Kind::kDict:
      append_dict(out, v.dict());
      break;
    case Kind::kRange:
      append_range(out, v.as<RangeObj>());
      break;
    case Kind::kView:
      out.add(v.as<SeqObj>().view_name);
      out.add("([");
      append_items(out, v.items());
      out.add("])");
      break;
    case Kind::kNamespace:
      append_namespace(out, v.as<NamespaceObj>());
      break;
    default:
      // Python prints addresses here; nothing sensible depends on them.
      out.add('<');
      out.add(describe_object(v));
      out.add('>');
      break;
  }
  out.leave();
}

void append_text(TextBuilder& out, const Value& v) {
  if (v.is_string()) {
    out.add(v.str());
  } else if (!v.is_undefined()) {
    append_repr(out, v);
  }
}

std::string to_text(Heap& heap, const Value& v) {
  if (v.is_string()) {
    heap.work_bytes(v.str().size());
    return v.str();
  }
  TextBuilder out(heap);
  append_text(out, v);
  return out.take();
}

}  // namespace dspark::jinja
