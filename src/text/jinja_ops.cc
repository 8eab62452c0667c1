#include "text/jinja_ops.h"

#include <algorithm>
#include <cmath>

#include "text/jinja_builtins.h"
#include "text/jinja_error.h"

namespace dspark::jinja {
namespace {

const char* op_symbol(BinaryOp op) {
  switch (op) {
    case BinaryOp::kAdd:
      return "+";
    case BinaryOp::kSub:
      return "-";
    case BinaryOp::kMul:
      return "*";
    case BinaryOp::kDiv:
      return "/";
    case BinaryOp::kFloorDiv:
      return "//";
    case BinaryOp::kMod:
      return "%";
    case BinaryOp::kPow:
      return "** or pow()";
  }
  return "?";
}

[[noreturn]] void overflow() {
  fail(ErrorKind::kOverflow, "integer beyond 128 bits");
}

/// By reference: the value is read after the arithmetic of the first argument, whatever order the compiler
/// takes.
Int checked(bool overflowed, const Int& result) {
  if (overflowed) overflow();
  return result;
}

Int floor_div(Int a, Int b) {
  if (b == -1) {
    Int r;
    return checked(__builtin_sub_overflow(Int{0}, a, &r), r);
  }
  const Int q = a / b;
  return a % b != 0 && (a % b < 0) != (b < 0) ? q - 1 : q;
}

Int floor_mod(Int a, Int b) {
  if (b == -1) return 0;
  const Int r = a % b;
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}

Int int_pow(Int base, Int exponent) {
  Int result = 1;
  if (base == 0 || base == 1) return exponent == 0 ? 1 : base;
  if (base == -1) return exponent % 2 == 0 ? 1 : -1;
  if (exponent > 127) overflow();
  for (Int i = 0; i < exponent; ++i) {
    if (__builtin_mul_overflow(result, base, &result)) overflow();
  }
  return result;
}

Value float_pow(double a, double b) {
  if (a == 0 && b < 0) fail(ErrorKind::kZeroDivision, "0.0 cannot be raised to a negative power");
  if (a < 0 && std::floor(b) != b && std::isfinite(b)) fail(ErrorKind::kUnsupported, "complex numbers");
  const double r = std::pow(a, b);
  if (std::isinf(r) && std::isfinite(a) && std::isfinite(b)) {
    fail(ErrorKind::kOverflow, "(34, 'Numerical result out of range')");
  }
  return Value::real(r);
}

Value int_binary(BinaryOp op, Int a, Int b) {
  Int r;
  switch (op) {
    case BinaryOp::kAdd:
      return Value::integer(checked(__builtin_add_overflow(a, b, &r), r));
    case BinaryOp::kSub:
      return Value::integer(checked(__builtin_sub_overflow(a, b, &r), r));
    case BinaryOp::kMul:
      return Value::integer(checked(__builtin_mul_overflow(a, b, &r), r));
    case BinaryOp::kPow:
      if (b < 0) return float_pow(static_cast<double>(a), static_cast<double>(b));
      return Value::integer(int_pow(a, b));
    default:
      break;
  }
  if (b == 0) {
    fail(ErrorKind::kZeroDivision,
         op == BinaryOp::kDiv ? "division by zero" : "integer division or modulo by zero");
  }
  if (op == BinaryOp::kDiv) return Value::real(static_cast<double>(a) / static_cast<double>(b));
  return Value::integer(op == BinaryOp::kFloorDiv ? floor_div(a, b) : floor_mod(a, b));
}

Value float_binary(BinaryOp op, double a, double b) {
  switch (op) {
    case BinaryOp::kAdd:
      return Value::real(a + b);
    case BinaryOp::kSub:
      return Value::real(a - b);
    case BinaryOp::kMul:
      return Value::real(a * b);
    case BinaryOp::kPow:
      return float_pow(a, b);
    default:
      break;
  }
  if (b == 0) fail(ErrorKind::kZeroDivision, "float division by zero");
  if (op == BinaryOp::kDiv) return Value::real(a / b);
  double mod = std::fmod(a, b);
  double quotient = (a - mod) / b;
  if (mod != 0 && (b < 0) != (mod < 0)) {
    mod += b;
    quotient -= 1;
  } else if (mod == 0) {
    mod = std::copysign(0.0, b);
  }
  if (op == BinaryOp::kMod) return Value::real(mod);
  const double floored = std::floor(quotient);
  return Value::real(quotient - floored > 0.5 ? floored + 1 : floored);
}

// How often a sequence of `size` is repeated; the product is within Int.
size_t repeat_count(Int times, size_t size, size_t limit, const Heap& heap) {
  if (times <= 0 || size == 0) return 0;
  if (times > static_cast<Int>(limit) || static_cast<Int>(size) * times > static_cast<Int>(limit)) {
    heap.too_much("the size of a repeated sequence");
  }
  return static_cast<size_t>(times);
}

Value repeat(Heap& heap, const Value& v, Int times) {
  if (v.is_string()) {
    const std::string& s = v.str();
    const size_t n = repeat_count(times, s.size(), heap.limits().max_string_bytes, heap);
    std::string out;
    out.reserve(n * s.size());
    for (size_t i = 0; i < n; ++i) out += s;
    return heap.string(std::move(out), v.string_obj().markup);
  }
  const Values& items = v.items();
  const size_t n = repeat_count(times, items.size(), heap.limits().max_items, heap);
  Values out;
  out.reserve(n * items.size());
  for (size_t i = 0; i < n; ++i) out.insert(out.end(), items.begin(), items.end());
  return v.is(Kind::kTuple) ? heap.tuple(std::move(out)) : heap.list(std::move(out));
}

Value add_strings(Heap& heap, const StringObj& a, const StringObj& b) {
  const bool markup = a.markup || b.markup;
  std::string left = markup && !a.markup ? escape_markup(heap, a.text) : a.text;
  const std::string right = markup && !b.markup ? escape_markup(heap, b.text) : b.text;
  heap.check_string(left.size() + right.size());
  left += right;
  return heap.string(std::move(left), markup);
}

Value add_sequences(Heap& heap, const Value& a, const Value& b) {
  heap.check_items(a.items().size() + b.items().size());
  Values out = a.items();
  out.insert(out.end(), b.items().begin(), b.items().end());
  return a.is(Kind::kTuple) ? heap.tuple(std::move(out)) : heap.list(std::move(out));
}

[[noreturn]] void bad_operands(BinaryOp op, const Value& a, const Value& b) {
  if (op == BinaryOp::kAdd && (a.is_string() || a.is_sequence())) {
    type_error(std::string("can only concatenate ") + type_name(a) + " (not \"" + type_name(b) + "\") to " +
               type_name(a));
  }
  type_error(std::string("unsupported operand type(s) for ") + op_symbol(op) + ": '" + type_name(a) +
             "' and '" + type_name(b) + "'");
}

bool ordered_less(Heap& heap, const Value& a, const Value& b, const char* symbol) {
  heap.work();
  if (a.is_int_or_bool() && b.is_int_or_bool()) return a.as_int() < b.as_int();
  if (a.is_number() && b.is_number()) return a.as_double() < b.as_double();
  if (a.is_string() && b.is_string()) {
    heap.work_bytes(std::min(a.str().size(), b.str().size()));
    return a.str() < b.str();  // UTF-8 keeps the order of code points
  }
  if (a.is_sequence() && a.kind() == b.kind()) {
    const Values &x = a.items(), &y = b.items();
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
      if (!equals(heap, x[i], y[i])) return ordered_less(heap, x[i], y[i], symbol);
    }
    return x.size() < y.size();
  }
  if (a.is_undefined()) raise_undefined(a);
  if (b.is_undefined()) raise_undefined(b);
  type_error(std::string("'") + symbol + "' not supported between instances of '" + type_name(a) + "' and '" +
             type_name(b) + "'");
}

bool equal_dicts(Heap& heap, const DictObj& a, const DictObj& b) {
  if (a.entries.size() != b.entries.size()) return false;
  for (const auto& [key, value] : a.entries) {
    const int64_t at = dict_find(heap, b, key);
    if (at < 0 || !equals(heap, value, b.entries[static_cast<size_t>(at)].second)) return false;
  }
  return true;
}

bool equal_items(Heap& heap, const Values& a, const Values& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!equals(heap, a[i], b[i])) return false;
  }
  return true;
}

}  // namespace

const char* type_name(const Value& v) {
  switch (v.kind()) {
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "NoneType";
    case Kind::kBool:
      return "bool";
    case Kind::kInt:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kString:
      return v.string_obj().markup ? "Markup" : "str";
    case Kind::kList:
      return "list";
    case Kind::kTuple:
      return "tuple";
    case Kind::kDict:
      return "dict";
    case Kind::kRange:
      return "range";
    case Kind::kView:
      return v.as<SeqObj>().view_name;
    case Kind::kIterator:
      return "generator";
    case Kind::kNamespace:
      return "Namespace";
    case Kind::kFunction:
      return "function";
    case Kind::kMethod:
      return "builtin_function_or_method";
    case Kind::kMacro:
      return "Macro";
    case Kind::kLoop:
      return "LoopContext";
    case Kind::kCycler:
      return "Cycler";
    case Kind::kJoiner:
      return "Joiner";
  }
  return "object";
}

std::string object_name(const Value& v) {
  return v.is_none() ? "None" : std::string(type_name(v)) + " object";
}

void raise_undefined(const Value& v) {
  if (!v.object()) fail(ErrorKind::kUndefined, "value is undefined");
  const auto& undefined = v.as<UndefinedObj>();
  fail(undefined.unsafe ? ErrorKind::kSecurity : ErrorKind::kUndefined, undefined.message);
}

bool truthy(const Value& v) {
  switch (v.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
    case Kind::kInt:
      return v.as_int() != 0;
    case Kind::kFloat:
      return v.as_double() != 0;
    case Kind::kString:
      return !v.str().empty();
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kView:
      return !v.items().empty();
    case Kind::kDict:
      return !v.dict().entries.empty();
    case Kind::kRange:
      return v.as<RangeObj>().length > 0;
    default:
      return true;
  }
}

bool equals(Heap& heap, const Value& a, const Value& b) {
  heap.work();
  if (a.is_int_or_bool() && b.is_int_or_bool()) return a.as_int() == b.as_int();
  if (a.is_number() && b.is_number()) return a.as_double() == b.as_double();
  if (a.kind() != b.kind()) return false;
  if (a.object() == b.object()) return true;  // also none == none
  switch (a.kind()) {
    case Kind::kUndefined:
      return true;
    case Kind::kString:
      heap.work_bytes(a.str().size());
      return a.str() == b.str();
    case Kind::kList:
    case Kind::kTuple:
      return equal_items(heap, a.items(), b.items());
    case Kind::kDict:
      return equal_dicts(heap, a.dict(), b.dict());
    case Kind::kRange: {
      const auto &x = a.as<RangeObj>(), &y = b.as<RangeObj>();
      return x.length == y.length &&
             (x.length == 0 || (x.start == y.start && (x.length == 1 || x.step == y.step)));
    }
    case Kind::kFunction:
    case Kind::kMethod:
      return same_callable(a, b);
    default:
      return false;
  }
}

bool less(Heap& heap, const Value& a, const Value& b) {
  return ordered_less(heap, a, b, "<");
}

bool compare(Heap& heap, CompareOp op, const Value& a, const Value& b) {
  const bool has_nan =
      (a.is(Kind::kFloat) && std::isnan(a.as_double())) || (b.is(Kind::kFloat) && std::isnan(b.as_double()));
  switch (op) {
    case CompareOp::kEq:
      return equals(heap, a, b);
    case CompareOp::kNe:
      return !equals(heap, a, b);
    case CompareOp::kLt:
      return ordered_less(heap, a, b, "<");
    case CompareOp::kLe:
      return !ordered_less(heap, b, a, "<=") && !has_nan;
    case CompareOp::kGt:
      return ordered_less(heap, b, a, ">");
    case CompareOp::kGe:
      return !ordered_less(heap, a, b, ">=") && !has_nan;
    case CompareOp::kIn:
      return contains(heap, b, a);
    case CompareOp::kNotIn:
      return !contains(heap, b, a);
  }
  return false;
}

bool same_as(const Value& a, const Value& b) {
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::kNone:
      return true;
    case Kind::kBool:
    case Kind::kInt:
      return a.as_int() == b.as_int();
    case Kind::kFloat:
      return a.as_double() == b.as_double();
    case Kind::kString:
      return a.object() == b.object() || a.str() == b.str();
    default:
      return a.object() == b.object();
  }
}

Value binary(Heap& heap, BinaryOp op, const Value& a, const Value& b) {
  if (a.is_int_or_bool() && b.is_int_or_bool()) return int_binary(op, a.as_int(), b.as_int());
  if (a.is_number() && b.is_number()) return float_binary(op, a.as_double(), b.as_double());
  if (op == BinaryOp::kMod && a.is_string()) return format_percent(heap, a, b);
  if (a.is_undefined()) raise_undefined(a);
  if (b.is_undefined()) raise_undefined(b);
  if (op == BinaryOp::kAdd) {
    if (a.is_string() && b.is_string()) return add_strings(heap, a.string_obj(), b.string_obj());
    if (a.is_sequence() && a.kind() == b.kind()) return add_sequences(heap, a, b);
  }
  if (op == BinaryOp::kMul) {
    if ((a.is_string() || a.is_sequence()) && b.is_int_or_bool()) return repeat(heap, a, b.as_int());
    if ((b.is_string() || b.is_sequence()) && a.is_int_or_bool()) return repeat(heap, b, a.as_int());
  }
  bad_operands(op, a, b);
}

Value negate(Heap& heap, const Value& v) {
  if (v.is_int_or_bool()) return int_binary(BinaryOp::kSub, 0, v.as_int());
  if (v.is(Kind::kFloat)) return Value::real(-v.as_double());
  if (v.is_undefined()) raise_undefined(v);
  heap.work();
  type_error(std::string("bad operand type for unary -: '") + type_name(v) + "'");
}

Value positive(const Value& v) {
  if (v.is_int_or_bool()) return Value::integer(v.as_int());
  if (v.is(Kind::kFloat)) return v;
  if (v.is_undefined()) raise_undefined(v);
  type_error(std::string("bad operand type for unary +: '") + type_name(v) + "'");
}

}  // namespace dspark::jinja
