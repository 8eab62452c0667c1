// Methods of lists, tuples, dicts and numbers, and the lookup of all methods; see jinja_builtins.h.
#include <algorithm>
#include <cmath>

#include "text/jinja_builtins.h"
#include "text/jinja_error.h"
#include "text/jinja_eval.h"
#include "text/jinja_ops.h"

namespace dspark::jinja {
namespace {

Value sequence_count(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("count", args, {"value"});
  Int n = 0;
  for (const Value& item : self.items()) n += equals(interp.heap(), item, bound.get(0)) ? 1 : 0;
  return Value::integer(n);
}

Value sequence_index(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("index", args, {"value", "start", "stop"});
  const Values& items = self.items();
  const auto n = static_cast<Int>(items.size());
  const auto place = [n](Int at) { return std::clamp<Int>(at < 0 ? at + n : at, 0, n); };
  for (Int i = place(bound.integer(1, 0)); i < place(bound.integer(2, n)); ++i) {
    if (equals(interp.heap(), items[static_cast<size_t>(i)], bound.get(0))) return Value::integer(i);
  }
  fail(ErrorKind::kValue, "value is not in the sequence");
}

Value list_copy(Interp&, const Value& self, CallArgs& args) {
  const BoundArgs bound("copy", args, {});
  return self;  // nothing can tell: lists and dicts do not change
}

Value dict_get(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("get", args, {"key", "default"});
  const int64_t at = dict_find(interp.heap(), self.dict(), bound.get(0));
  if (at >= 0) return self.dict().entries[static_cast<size_t>(at)].second;
  return bound.get(1, Value::none());
}

Value dict_keys(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("keys", args, {});
  return interp.heap().view(to_items(interp.heap(), self), "dict_keys");
}

Value dict_values(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("values", args, {});
  Values values;
  for (const auto& entry : self.dict().entries) values.push_back(entry.second);
  return interp.heap().view(std::move(values), "dict_values");
}

Value dict_items(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("items", args, {});
  Values pairs;
  for (const auto& [key, value] : self.dict().entries) pairs.push_back(interp.heap().tuple({key, value}));
  return interp.heap().view(std::move(pairs), "dict_items");
}

Value float_is_integer(Interp&, const Value& self, CallArgs& args) {
  const BoundArgs bound("is_integer", args, {});
  return Value::boolean(std::isfinite(self.as_double()) && std::floor(self.as_double()) == self.as_double());
}

Value int_bit_length(Interp&, const Value& self, CallArgs& args) {
  const BoundArgs bound("bit_length", args, {});
  Int bits = 0;
  for (Int i = self.as_int(); i != 0; i /= 2) ++bits;
  return Value::integer(bits);
}

constexpr Builtin kListMethods[] = {
    {"count", sequence_count}, {"index", sequence_index}, {"copy", list_copy}};
constexpr Builtin kTupleMethods[] = {{"count", sequence_count}, {"index", sequence_index}};
constexpr Builtin kDictMethods[] = {{"items", dict_items},
                                    {"get", dict_get},
                                    {"keys", dict_keys},
                                    {"values", dict_values},
                                    {"copy", list_copy}};
constexpr Builtin kFloatMethods[] = {{"is_integer", float_is_integer}};
constexpr Builtin kIntMethods[] = {{"bit_length", int_bit_length}};

template <size_t N>
const Builtin* find_in(const Builtin (&table)[N], std::string_view name) {
  const auto* at = std::find_if(table, table + N, [name](const Builtin& b) { return name == b.name; });
  return at == table + N ? nullptr : at;
}

}  // namespace

const Builtin* find_method(const Value& v, std::string_view name) {
  switch (v.kind()) {
    case Kind::kString:
      for (const Builtin* table : {kCuttingMethods, kStringMethods}) {
        for (const Builtin* method = table; method->name != nullptr; ++method) {
          if (name == method->name) return method;
        }
      }
      return nullptr;
    case Kind::kList:
      return find_in(kListMethods, name);
    case Kind::kTuple:
      return find_in(kTupleMethods, name);
    case Kind::kDict:
      return find_in(kDictMethods, name);
    case Kind::kFloat:
      return find_in(kFloatMethods, name);
    case Kind::kBool:
    case Kind::kInt:
      return find_in(kIntMethods, name);
    default:
      return nullptr;
  }
}

}  // namespace dspark::jinja
