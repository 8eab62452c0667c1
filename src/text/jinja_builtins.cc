// Lookup of builtins and what they share; see jinja_builtins.h.
#include "text/jinja_builtins.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "text/jinja_error.h"
#include "text/jinja_eval.h"
#include "text/jinja_ops.h"
#include "text/jinja_unicode.h"

namespace dspark::jinja {
namespace {

const Builtin* find_in(const Builtin* table, std::string_view name) {
  for (; table->name != nullptr; ++table) {
    if (name == table->name) return table;
  }
  return nullptr;
}

bool is_one_of(std::string_view name, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

BoundArgs::BoundArgs(const char* function, const CallArgs& args, std::initializer_list<const char*> names)
    : function_(function), names_(names), values_(names.size(), nullptr) {
  if (args.positional.size() > names_.size()) {
    type_error(std::string(function) + "() takes at most " + std::to_string(names_.size()) +
               " argument(s), got " + std::to_string(args.positional.size()));
  }
  for (size_t i = 0; i < args.positional.size(); ++i) values_[i] = &args.positional[i];
  for (const auto& [name, value] : args.keyword) {
    const auto at =
        std::find_if(names_.begin(), names_.end(), [n = &name](const char* own) { return *n == own; });
    if (at == names_.end()) {
      type_error(std::string(function) + "() got an unexpected keyword argument '" + name + "'");
    }
    const Value*& slot = values_[static_cast<size_t>(at - names_.begin())];
    if (slot != nullptr)
      type_error(std::string(function) + "() got multiple values for argument '" + name + "'");
    slot = &value;
  }
}

const Value& BoundArgs::get(size_t i) const {
  if (!has(i)) type_error(std::string(function_) + "() missing required argument: '" + names_[i] + "'");
  return *values_[i];
}

Int BoundArgs::integer(size_t i, Int otherwise) const {
  if (!has(i)) return otherwise;
  const Value& v = *values_[i];
  if (v.is_int_or_bool()) return v.as_int();
  if (v.is_undefined()) raise_undefined(v);
  type_error(std::string("'") + type_name(v) + "' object cannot be interpreted as an integer");
}

bool BoundArgs::flag(size_t i, bool otherwise) const {
  return has(i) ? truthy(*values_[i]) : otherwise;
}

std::string_view BoundArgs::text(size_t i, std::string_view otherwise) const {
  if (!has(i)) return otherwise;
  const Value& v = *values_[i];
  if (v.is_string()) return v.str();
  if (v.is_undefined()) raise_undefined(v);
  type_error(std::string(function_) + "() argument '" + names_[i] + "' must be str, not " + type_name(v));
}

const Builtin* find_filter(std::string_view name) {
  for (const Builtin* table : {kTextFilters, kSequenceFilters, kSelectionFilters}) {
    if (const Builtin* filter = find_in(table, name)) return filter;
  }
  return nullptr;
}

bool is_mutating_method(const Value& v, std::string_view name) {
  switch (v.kind()) {
    case Kind::kList:
      return is_one_of(name, {"append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove"});
    case Kind::kDict:
      return is_one_of(name, {"clear", "pop", "popitem", "setdefault", "update"});
    default:
      return false;
  }
}

bool same_callable(const Value& a, const Value& b) {
  if (a.is(Kind::kFunction)) return a.as<FunctionObj>().builtin.fn == b.as<FunctionObj>().builtin.fn;
  const auto &x = a.as<MethodObj>(), &y = b.as<MethodObj>();
  return x.builtin.fn == y.builtin.fn && same_as(x.self, y.self);
}

std::string describe_object(const Value& v) {
  switch (v.kind()) {
    case Kind::kFunction:
      return std::string("function ") + v.as<FunctionObj>().builtin.name;
    case Kind::kMethod: {
      const auto& method = v.as<MethodObj>();
      return std::string("built-in method ") + method.builtin.name + " of " + type_name(method.self) +
             " object";
    }
    case Kind::kMacro:
      return "Macro '" + v.as<MacroObj>().def->name + "'";
    case Kind::kLoop: {
      const auto& loop = v.as<LoopObj>();
      return "LoopContext " + std::to_string(loop.index0 + 1) + "/" + std::to_string(loop.items.size());
    }
    case Kind::kIterator:
      return "generator object";
    default:
      return type_name(v);
  }
}

Value follow_attribute(Interp& interp, const Value& item, const Value& path) {
  if (path.is_none() || path.is_undefined()) return item;
  if (!path.is_string()) return interp.get_item(item, path);
  Value at = item;
  std::string_view rest = path.str();
  for (;;) {
    const size_t dot = rest.find('.');
    const std::string_view part = rest.substr(0, dot);
    const bool digits =
        !part.empty() && std::all_of(part.begin(), part.end(), [](char c) { return c >= '0' && c <= '9'; });
    Int index = 0;
    if (digits && parse_int(part, 10, index)) {
      at = interp.get_item(at, Value::integer(index));
    } else {
      at = interp.get_item(at, interp.string(std::string(part)));
    }
    if (dot == std::string_view::npos) return at;
    rest = rest.substr(dot + 1);
  }
}

Value ignore_case(Heap& heap, const Value& v) {
  return v.is_string() ? heap.string(to_lower(v.str())) : v;
}

Values sort_by(Heap& heap, const Values& keys, const Values& values, bool reverse) {
  // A merge sort of its own: std::stable_sort wants a strict order, which nan does not give.
  const size_t n = keys.size();
  std::vector<size_t> order(n), merged(n);
  for (size_t i = 0; i < n; ++i) order[i] = i;
  const auto before = [&](size_t a, size_t b) {
    return reverse ? less(heap, keys[b], keys[a]) : less(heap, keys[a], keys[b]);
  };
  for (size_t width = 1; width < n; width *= 2) {
    for (size_t begin = 0; begin < n; begin += 2 * width) {
      const size_t middle = std::min(begin + width, n), end = std::min(begin + 2 * width, n);
      size_t left = begin, right = middle;
      for (size_t out = begin; out < end; ++out) {
        const bool take_right = right < end && (left >= middle || before(order[right], order[left]));
        merged[out] = take_right ? order[right++] : order[left++];
      }
    }
    std::swap(order, merged);
  }
  Values sorted;
  sorted.reserve(n);
  for (size_t i : order) sorted.push_back(values[i]);
  return sorted;
}

bool parse_int(std::string_view text, int base, Int& out) {
  text = strip_space(text);
  const bool negative = !text.empty() && text[0] == '-';
  if (negative || (!text.empty() && text[0] == '+')) text.remove_prefix(1);
  if (text.size() > 2 && text[0] == '0') {
    const char letter = static_cast<char>(text[1] | 0x20);
    const int prefix = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;
    if (prefix != 0 && (base == 0 || base == prefix)) {
      base = prefix;
      text.remove_prefix(text[2] == '_' ? 3 : 2);
    }
  }
  if (base == 0) base = 10;
  if (text.empty()) return false;
  Int value = 0;
  bool digit_before = false;
  for (char c : text) {
    if (c == '_' && digit_before) {
      digit_before = false;
      continue;
    }
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'z' ? c - 'a' + 10
                      : c >= 'A' && c <= 'Z' ? c - 'A' + 10
                                             : 99;
    if (digit >= base) return false;
    if (__builtin_mul_overflow(value, Int{base}, &value) ||
        __builtin_add_overflow(value, Int{digit}, &value)) {
      fail(ErrorKind::kOverflow, "integer beyond 128 bits");
    }
    digit_before = true;
  }
  out = negative ? -value : value;
  return digit_before;
}

bool parse_float(std::string_view text, double& out) {
  text = strip_space(text);
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool between = i > 0 && i + 1 < text.size() && text[i - 1] >= '0' && text[i - 1] <= '9' &&
                         text[i + 1] >= '0' && text[i + 1] <= '9';
    if (text[i] == '_' && between) continue;
    plain += text[i];
  }
  const bool negative = !plain.empty() && plain[0] == '-';
  std::string_view body = plain;
  if (negative || (!body.empty() && body[0] == '+')) body.remove_prefix(1);
  const std::string word = to_lower(body);
  if (word == "inf" || word == "infinity") {
    out = HUGE_VAL;
  } else if (word == "nan") {
    out = std::nan("");
  } else {
    if (body.empty() || !((body[0] >= '0' && body[0] <= '9') || body[0] == '.')) return false;
    const auto [end, error] = std::from_chars(body.data(), body.data() + body.size(), out);
    if (end != body.data() + body.size() || error == std::errc::invalid_argument) return false;
    if (error == std::errc::result_out_of_range) out = std::strtod(std::string(body).c_str(), nullptr);
  }
  if (negative) out = -out;
  return true;
}

Int int_of_double(double d) {
  if (std::isnan(d)) fail(ErrorKind::kValue, "cannot convert float NaN to integer");
  if (std::isinf(d)) fail(ErrorKind::kOverflow, "cannot convert float infinity to integer");
  if (std::abs(d) >= 0x1p126) fail(ErrorKind::kOverflow, "integer beyond 128 bits");
  return static_cast<Int>(d);
}

double round_half_even(double d, Int digits) {
  if (!std::isfinite(d) || digits > 340) return d;
  if (digits < -310) return std::copysign(0.0, d);
  if (digits < 0) {
    // As CPython: the nearest multiple of the power of ten, ties to even, computed through the decimal text.
    const double scale = std::pow(10.0, static_cast<double>(-digits));
    return std::nearbyint(d / scale) * scale;
  }
  if (d == 0 || static_cast<double>(digits) > 17 - std::floor(std::log10(std::abs(d)))) return d;
  char buffer[700];
  std::snprintf(buffer, sizeof buffer, "%.*f", static_cast<int>(digits), d);
  double out = d;
  std::from_chars(buffer, buffer + std::char_traits<char>::length(buffer), out);
  return out;
}

}  // namespace dspark::jinja
