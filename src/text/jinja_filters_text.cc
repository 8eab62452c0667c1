// Filters that give text or numbers; see jinja_builtins.h.
#include <algorithm>
#include <cmath>

#include "text/jinja_builtins.h"
#include "text/jinja_error.h"
#include "text/jinja_eval.h"
#include "text/jinja_ops.h"
#include "text/jinja_unicode.h"

namespace dspark::jinja {
namespace {

bool is_markup(const Value& v) {
  return v.is_string() && v.string_obj().markup;
}

// Calls the string method of this name on the text form of a value.
Value via_method(Interp& interp, const char* method, const Value& self, CallArgs& args) {
  const Value text = self.is_string() ? self : interp.string(to_text(interp.heap(), self));
  return find_method(text, method)->fn(interp, text, args);
}

Value filter_upper(Interp& interp, const Value& self, CallArgs& args) {
  return via_method(interp, "upper", self, args);
}
Value filter_lower(Interp& interp, const Value& self, CallArgs& args) {
  return via_method(interp, "lower", self, args);
}
Value filter_capitalize(Interp& interp, const Value& self, CallArgs& args) {
  return via_method(interp, "capitalize", self, args);
}

Value filter_trim(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("trim", args, {"chars"});
  CallArgs plain;
  if (bound.has(0)) plain.positional.push_back(bound.get(0));
  return via_method(interp, "strip", self, plain);
}

Value filter_center(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("center", args, {"width"});
  CallArgs plain;
  plain.positional.push_back(Value::integer(bound.integer(0, 80)));
  return via_method(interp, "center", self, plain);
}

// Jinja's own title(): a word begins after white space, '-', '(', '{', '[' or '<'.
Value filter_title(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("title", args, {});
  const std::string text = to_text(interp.heap(), self);
  std::string out;
  bool begins = true;
  for (size_t pos = 0; pos < text.size();) {
    const uint32_t c = next_code_point(text, pos);
    begins ? append_upper(out, c) : append_lower(out, c);
    begins = is_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
  }
  return interp.heap().string(std::move(out), is_markup(self));
}

Value filter_string(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("string", args, {});
  return self.is_string() ? self : interp.string(to_text(interp.heap(), self));
}

Value filter_replace(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("replace", args, {"old", "new", "count"});
  Heap& heap = interp.heap();
  const Int count = bound.has(2) && bound.get(2).is_none() ? -1 : bound.integer(2, -1);
  return heap.string(replace_all(heap, to_text(heap, self), to_text(heap, bound.get(0)),
                                 to_text(heap, bound.get(1)), count));
}

Value filter_escape(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("escape", args, {});
  if (is_markup(self)) return self;
  return interp.heap().string(escape_markup(interp.heap(), to_text(interp.heap(), self)), true);
}

Value filter_forceescape(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("forceescape", args, {});
  return interp.heap().string(escape_markup(interp.heap(), to_text(interp.heap(), self)), true);
}

Value filter_safe(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("safe", args, {});
  return interp.heap().string(to_text(interp.heap(), self), true);
}

Value filter_format(Interp& interp, const Value& self, CallArgs& args) {
  Heap& heap = interp.heap();
  if (!args.positional.empty() && !args.keyword.empty()) {
    type_error("can't handle positional and keyword arguments at the same time");
  }
  Value values;
  if (args.keyword.empty()) {
    values = heap.tuple(args.positional);
  } else {
    std::vector<DictObj::Entry> entries;
    for (const auto& [name, value] : args.keyword) entries.emplace_back(interp.string(name), value);
    values = make_dict(heap, entries);
  }
  const Value format = self.is_string() ? self : interp.string(to_text(heap, self));
  return format_percent(heap, format, values);
}

Value filter_indent(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("indent", args, {"width", "first", "blank"});
  Heap& heap = interp.heap();
  if (self.is_undefined()) raise_undefined(self);
  if (!self.is_string()) type_error(std::string("indent needs a str, not ") + type_name(self));
  std::string space;
  if (bound.has(0) && bound.get(0).is_string()) {
    space = bound.get(0).str();
  } else {
    const Int width = std::max<Int>(bound.integer(0, 4), 0);
    heap.check_string(width > Int{1} << 40 ? SIZE_MAX : static_cast<size_t>(width));
    space.assign(static_cast<size_t>(width), ' ');
  }
  CallArgs none;
  const Value text = interp.string(self.str() + "\n");
  const Value lines = find_method(text, "splitlines")->fn(interp, text, none);
  TextBuilder out(heap);
  bool first = true;
  for (const Value& line : lines.items()) {
    if (!first) out.add('\n');
    if (first ? bound.flag(1, false) : bound.flag(2, false) || !line.str().empty()) out.add(space);
    out.add(line.str());
    first = false;
  }
  return heap.string(out.take(), is_markup(self));
}

Value filter_truncate(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("truncate", args, {"length", "killwords", "end", "leeway"});
  Heap& heap = interp.heap();
  const Value text = self.is_string() ? self : interp.string(to_text(heap, self));
  const Int length = bound.integer(0, 255);
  const std::string_view end = bound.text(2, "...");
  const Int leeway = bound.has(3) && bound.get(3).is_none() ? 5 : bound.integer(3, 5);
  const auto end_chars = static_cast<Int>(count_code_points(end));
  if (length < end_chars) fail(ErrorKind::kValue, "truncate: expected length >= " + int_text(end_chars));
  if (leeway < 0) fail(ErrorKind::kValue, "truncate: expected leeway >= 0");
  const auto n_chars = static_cast<Int>(text.string_obj().n_chars);
  if (length >= n_chars || n_chars - length <= leeway) return text;
  std::string kept =
      text.str().substr(0, byte_of_code_point(text.str(), static_cast<size_t>(length - end_chars)));
  if (!bound.flag(1, false)) kept = kept.substr(0, kept.rfind(' '));
  return interp.string(kept + std::string(end));
}

Value filter_wordcount(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("wordcount", args, {});
  const std::string text = to_text(interp.heap(), self);
  Int words = 0;
  bool inside = false;
  for (size_t pos = 0; pos < text.size();) {
    const uint32_t c = next_code_point(text, pos);
    const bool letter = c == '_' || is_alpha(c) || is_decimal(c);
    words += letter && !inside ? 1 : 0;
    inside = letter;
  }
  return Value::integer(words);
}

void append_quoted(TextBuilder& out, std::string_view text, bool plus_for_space) {
  constexpr char kHex[] = "0123456789ABCDEF";
  for (char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    if (byte < 0x80 && (is_alpha(byte) || is_decimal(byte) ||
                        (c != 0 && std::string_view("_.-~").find(c) != std::string_view::npos) ||
                        (c == '/' && !plus_for_space))) {
      out.add(c);
    } else if (c == ' ' && plus_for_space) {
      out.add('+');
    } else {
      out.add('%');
      out.add(kHex[byte >> 4]);
      out.add(kHex[byte & 15]);
    }
  }
}

Value filter_urlencode(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("urlencode", args, {});
  Heap& heap = interp.heap();
  TextBuilder out(heap);
  if (self.is_string() || !is_iterable(self)) {
    append_quoted(out, to_text(heap, self), false);
    return heap.string(out.take());
  }
  Values pairs;
  if (self.is(Kind::kDict)) {
    for (const auto& [key, value] : self.dict().entries) pairs.push_back(heap.tuple({key, value}));
  } else {
    pairs = to_items(heap, self);
  }
  for (const Value& pair : pairs) {
    const Values parts = to_items(heap, pair);
    if (parts.size() != 2) fail(ErrorKind::kValue, "urlencode expects pairs");
    if (!out.text().empty()) out.add('&');
    append_quoted(out, to_text(heap, parts[0]), true);
    out.add('=');
    append_quoted(out, to_text(heap, parts[1]), true);
  }
  return heap.string(out.take());
}

Value filter_int(Interp&, const Value& self, CallArgs& args) {
  const BoundArgs bound("int", args, {"default", "base"});
  const Value otherwise = bound.get(0, Value::integer(0));
  if (self.is_undefined()) raise_undefined(self);
  if (self.is_int_or_bool()) return Value::integer(self.as_int());
  if (self.is(Kind::kFloat)) {
    return std::isfinite(self.as_double()) ? Value::integer(int_of_double(self.as_double())) : otherwise;
  }
  if (!self.is_string()) return otherwise;
  const Int base = bound.integer(1, 10);
  if (base != 0 && (base < 2 || base > 36)) return otherwise;
  Int value = 0;
  if (parse_int(self.str(), static_cast<int>(base), value)) return Value::integer(value);
  double real = 0;
  if (parse_float(self.str(), real) && std::isfinite(real)) return Value::integer(int_of_double(real));
  return otherwise;
}

Value filter_float(Interp&, const Value& self, CallArgs& args) {
  const BoundArgs bound("float", args, {"default"});
  if (self.is_undefined()) raise_undefined(self);
  if (self.is_number()) return Value::real(self.as_double());
  double real = 0;
  if (self.is_string() && parse_float(self.str(), real)) return Value::real(real);
  return bound.get(0, Value::real(0.0));
}

Value filter_abs(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("abs", args, {});
  if (self.is(Kind::kFloat)) return Value::real(std::abs(self.as_double()));
  if (self.is_int_or_bool()) return self.as_int() < 0 ? negate(interp.heap(), self) : positive(self);
  if (self.is_undefined()) raise_undefined(self);
  type_error(std::string("bad operand type for abs(): '") + type_name(self) + "'");
}

Value filter_round(Interp&, const Value& self, CallArgs& args) {
  const BoundArgs bound("round", args, {"precision", "method"});
  const Int digits = bound.integer(0, 0);
  const std::string_view method = bound.text(1, "common");
  if (method != "common" && method != "ceil" && method != "floor") {
    fail(ErrorKind::kRuntime, "method must be common, ceil or floor");
  }
  if (self.is_undefined()) raise_undefined(self);
  if (!self.is_number())
    type_error(std::string("type ") + type_name(self) + " doesn't define __round__ method");
  if (method == "common") {
    if (!self.is_int_or_bool()) return Value::real(round_half_even(self.as_double(), digits));
    if (digits >= 0) return Value::integer(self.as_int());
    return Value::integer(int_of_double(round_half_even(self.as_double(), digits)));
  }
  const double scale = std::pow(10.0, static_cast<double>(digits));
  const double scaled = self.as_double() * scale;
  if (!std::isfinite(scaled)) fail(ErrorKind::kOverflow, "cannot convert float infinity to integer");
  return Value::real((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale);
}

Value filter_tojson(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("tojson", args, {"ensure_ascii", "indent", "separators", "sort_keys"});
  Heap& heap = interp.heap();
  JsonStyle style;
  style.ensure_ascii = bound.flag(0, false);
  style.sort_keys = bound.flag(3, false);
  const Value indent = bound.get(1, Value::none());
  if (!indent.is_none()) {
    style.pretty = true;
    style.item_separator = ",";
    if (indent.is_string()) {
      style.indent = indent.str();
    } else {
      const Int width = std::max<Int>(bound.integer(1, 0), 0);
      if (width > 1000) fail(ErrorKind::kLimit, "tojson indents by at most 1000");
      style.indent.assign(static_cast<size_t>(width), ' ');
    }
  }
  const Value separators = bound.get(2, Value::none());
  if (!separators.is_none()) {
    const Values pair = to_items(heap, separators);
    if (pair.size() != 2 || !pair[0].is_string() || !pair[1].is_string()) {
      type_error("tojson: separators must be two strings");
    }
    style.item_separator = pair[0].str();
    style.key_separator = pair[1].str();
  }
  return heap.string(to_json(heap, self, style));
}

Value filter_from_json(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("from_json", args, {});
  if (self.is_undefined()) raise_undefined(self);
  if (!self.is_string()) {
    type_error(std::string("the JSON object must be str, bytes or bytearray, not ") + type_name(self));
  }
  return from_json(interp.heap(), self.str());
}

}  // namespace

const Builtin kTextFilters[] = {
    {"trim", filter_trim},
    {"upper", filter_upper},
    {"lower", filter_lower},
    {"capitalize", filter_capitalize},
    {"title", filter_title},
    {"center", filter_center},
    {"string", filter_string},
    {"replace", filter_replace},
    {"escape", filter_escape},
    {"e", filter_escape},
    {"forceescape", filter_forceescape},
    {"safe", filter_safe},
    {"format", filter_format},
    {"indent", filter_indent},
    {"truncate", filter_truncate},
    {"wordcount", filter_wordcount},
    {"urlencode", filter_urlencode},
    {"int", filter_int},
    {"float", filter_float},
    {"abs", filter_abs},
    {"round", filter_round},
    {"tojson", filter_tojson},
    {"from_json", filter_from_json},
    {nullptr, nullptr},
};

}  // namespace dspark::jinja
