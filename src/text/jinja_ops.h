#pragma once
// Python's operators on Values: truth, equality, order, arithmetic, membership, iteration, text forms.
// All throw JinjaError as Python would raise, and count their work in the heap.

#include <string>
#include <string_view>

#include "text/jinja_value.h"

namespace dspark::jinja {

enum class BinaryOp { kAdd, kSub, kMul, kDiv, kFloorDiv, kMod, kPow };
enum class CompareOp { kEq, kNe, kLt, kLe, kGt, kGe, kIn, kNotIn };

/// Python's name of the type: "str", "NoneType", "generator", ...
const char* type_name(const Value& v);
/// Throws the error that the undefined value carries.
[[noreturn]] void raise_undefined(const Value& v);
/// "dict object", "None": how Jinja names an object in messages about its attributes.
std::string object_name(const Value& v);

bool truthy(const Value& v);
bool equals(Heap& heap, const Value& a, const Value& b);
/// a < b. Throws TypeError when the kinds have no order.
bool less(Heap& heap, const Value& a, const Value& b);
bool compare(Heap& heap, CompareOp op, const Value& a, const Value& b);
/// `item in container`.
bool contains(Heap& heap, const Value& container, const Value& item);
/// Python's `is`, as far as it can be observed: same object, or equal scalars of one kind.
bool same_as(const Value& a, const Value& b);

Value binary(Heap& heap, BinaryOp op, const Value& a, const Value& b);
Value negate(Heap& heap, const Value& v);
Value positive(const Value& v);

/// The elements that a `for` would see. Empties one-shot iterators. Throws TypeError for what cannot be
/// walked.
Values to_items(Heap& heap, const Value& v);
bool is_iterable(const Value& v);
/// len(v); throws TypeError where Python has none.
size_t length_of(const Value& v);

/// Element of a list, tuple, string or range; negative counts from the end. Undefined when out of range.
Value item_at(Heap& heap, const Value& v, Int index);
/// v[start:stop:step]; the parts are integers or None.
Value slice(Heap& heap, const Value& v, const Value& start, const Value& stop, const Value& step);
/// Position of a key in the entries of a dict, -1 when absent. Throws TypeError for unhashable keys.
int64_t dict_find(Heap& heap, const DictObj& dict, const Value& key);
/// A dict of these entries, later ones replacing the value of earlier ones.
Value make_dict(Heap& heap, const std::vector<DictObj::Entry>& entries);
/// Throws TypeError for keys that Python cannot hash.
void require_hashable(const Value& key);

/// str(v) and repr(v).
std::string to_text(Heap& heap, const Value& v);
void append_text(TextBuilder& out, const Value& v);
void append_repr(TextBuilder& out, const Value& v);
/// Python's repr of a float: 1.0, 1e+16, 0.1, inf, nan.
std::string float_repr(double d);
std::string int_text(Int i);

/// Where `needle` starts in `text` at or behind `from`, npos when nowhere; linear in time.
size_t find_bytes(std::string_view text, std::string_view needle, size_t from = 0);
/// The same for the last place.
size_t rfind_bytes(std::string_view text, std::string_view needle);
/// text.replace(from, to, count); count < 0 replaces all.
std::string replace_all(Heap& heap, std::string_view text, std::string_view from, std::string_view to,
                        Int count);
/// "&amp;" and so on, as markupsafe writes them.
std::string escape_markup(Heap& heap, std::string_view text);

}  // namespace dspark::jinja
