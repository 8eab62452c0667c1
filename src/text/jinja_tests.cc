// The tests of `x is name`; see jinja_builtins.h.
#include "text/jinja_builtins.h"
#include "text/jinja_error.h"
#include "text/jinja_eval.h"
#include "text/jinja_ops.h"
#include "text/jinja_unicode.h"

namespace dspark::jinja {
namespace {

// A test that looks at the kind of the value only.
template <bool (*kPredicate)(const Value&)>
Value by_kind(Interp&, const Value& self, CallArgs& args) {
  const BoundArgs bound("test", args, {});
  return Value::boolean(kPredicate(self));
}

template <CompareOp kOp>
Value by_comparison(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("test", args, {"other"});
  return Value::boolean(compare(interp.heap(), kOp, self, bound.get(0)));
}

bool is_defined(const Value& v) {
  return !v.is_undefined();
}
bool is_undefined(const Value& v) {
  return v.is_undefined();
}
bool is_none(const Value& v) {
  return v.is_none();
}
bool is_string(const Value& v) {
  return v.is_string();
}
bool is_mapping(const Value& v) {
  return v.is(Kind::kDict);
}
bool is_number(const Value& v) {
  return v.is_number();
}
bool is_integer(const Value& v) {
  return v.is(Kind::kInt);
}
bool is_float(const Value& v) {
  return v.is(Kind::kFloat);
}
bool is_boolean(const Value& v) {
  return v.is(Kind::kBool);
}
bool is_true(const Value& v) {
  return v.is(Kind::kBool) && v.as_int() != 0;
}
bool is_false(const Value& v) {
  return v.is(Kind::kBool) && v.as_int() == 0;
}
bool is_escaped(const Value& v) {
  return v.is_string() && v.string_obj().markup;
}

// What has a length and can be indexed; Jinja's undefined passes too.
bool is_sequence(const Value& v) {
  return v.is_string() || v.is_sequence() || v.is(Kind::kDict) || v.is(Kind::kRange) || v.is_undefined();
}

bool is_callable(const Value& v) {
  switch (v.kind()) {
    case Kind::kUndefined:  // the class defines __call__, if only to raise
    case Kind::kFunction:
    case Kind::kMethod:
    case Kind::kMacro:
    case Kind::kLoop:
    case Kind::kJoiner:
      return true;
    default:
      return false;
  }
}

Value remainder(Interp& interp, const Value& self, Int divisor) {
  return binary(interp.heap(), BinaryOp::kMod, self, Value::integer(divisor));
}

Value test_even(Interp& interp, const Value& self, CallArgs&) {
  return Value::boolean(equals(interp.heap(), remainder(interp, self, 2), Value::integer(0)));
}

Value test_odd(Interp& interp, const Value& self, CallArgs&) {
  return Value::boolean(equals(interp.heap(), remainder(interp, self, 2), Value::integer(1)));
}

Value test_divisibleby(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("divisibleby", args, {"num"});
  const Value rest = binary(interp.heap(), BinaryOp::kMod, self, bound.get(0));
  return Value::boolean(equals(interp.heap(), rest, Value::integer(0)));
}

Value test_sameas(Interp&, const Value& self, CallArgs& args) {
  const BoundArgs bound("sameas", args, {"other"});
  return Value::boolean(same_as(self, bound.get(0)));
}

// Text without letters of the other case, and with at least one letter of this.
Value test_case(Interp& interp, const Value& self, bool upper) {
  const std::string text = to_text(interp.heap(), self);
  bool found = false;
  for (size_t pos = 0; pos < text.size();) {
    const uint32_t c = next_code_point(text, pos);
    if (upper ? is_lower(c) : is_upper(c)) return Value::boolean(false);
    found |= upper ? is_upper(c) : is_lower(c);
  }
  return Value::boolean(found);
}

Value test_upper(Interp& interp, const Value& self, CallArgs&) {
  return test_case(interp, self, true);
}
Value test_lower(Interp& interp, const Value& self, CallArgs&) {
  return test_case(interp, self, false);
}

Value test_filter(Interp&, const Value& self, CallArgs&) {
  return Value::boolean(self.is_string() && find_filter(self.str()) != nullptr);
}
Value test_test(Interp&, const Value& self, CallArgs&) {
  return Value::boolean(self.is_string() && find_test(self.str()) != nullptr);
}

constexpr Builtin kTests[] = {
    {"defined", by_kind<is_defined>},
    {"undefined", by_kind<is_undefined>},
    {"none", by_kind<is_none>},
    {"string", by_kind<is_string>},
    {"mapping", by_kind<is_mapping>},
    {"iterable", by_kind<is_iterable>},
    {"sequence", by_kind<is_sequence>},
    {"number", by_kind<is_number>},
    {"integer", by_kind<is_integer>},
    {"float", by_kind<is_float>},
    {"boolean", by_kind<is_boolean>},
    {"true", by_kind<is_true>},
    {"false", by_kind<is_false>},
    {"callable", by_kind<is_callable>},
    {"escaped", by_kind<is_escaped>},
    {"even", test_even},
    {"odd", test_odd},
    {"divisibleby", test_divisibleby},
    {"sameas", test_sameas},
    {"upper", test_upper},
    {"lower", test_lower},
    {"filter", test_filter},
    {"test", test_test},
    {"in", by_comparison<CompareOp::kIn>},
    {"eq", by_comparison<CompareOp::kEq>},
    {"equalto", by_comparison<CompareOp::kEq>},
    {"==", by_comparison<CompareOp::kEq>},
    {"ne", by_comparison<CompareOp::kNe>},
    {"!=", by_comparison<CompareOp::kNe>},
    {"lt", by_comparison<CompareOp::kLt>},
    {"lessthan", by_comparison<CompareOp::kLt>},
    {"<", by_comparison<CompareOp::kLt>},
    {"le", by_comparison<CompareOp::kLe>},
    {"<=", by_comparison<CompareOp::kLe>},
    {"gt", by_comparison<CompareOp::kGt>},
    {"greaterthan", by_comparison<CompareOp::kGt>},
    {">", by_comparison<CompareOp::kGt>},
    {"ge", by_comparison<CompareOp::kGe>},
    {">=", by_comparison<CompareOp::kGe>},
};

}  // namespace

const Builtin* find_test(std::string_view name) {
  for (const Builtin& test : kTests) {
    if (name == test.name) return &test;
  }
  return nullptr;
}

}  // namespace dspark::jinja
