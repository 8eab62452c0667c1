#pragma once
// Filters, tests, methods and global functions: native code that templates can call.

#include <ctime>
#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja_value.h"

namespace dspark::jinja {

class Interp;

/// Arguments of one call, already evaluated.
struct CallArgs {
  Values positional;
  std::vector<std::pair<std::string, Value>> keyword;
};

/// `self` is the filtered or tested value, the object of a method, undefined for global functions.
using NativeFn = Value (*)(Interp& interp, const Value& self, CallArgs& args);

/// Name and code of a builtin; tables end with a null name.
struct Builtin {
  const char* name;
  NativeFn fn;
};

struct FunctionObj final : Object {
  FunctionObj(Heap* heap, const Builtin& b) : Object(heap, 0, 1), builtin(b) {}
  const Builtin builtin;
};

struct MethodObj final : Object {
  MethodObj(Heap* heap, Value s, const Builtin& b, int depth)
      : Object(heap, 64, depth), self(std::move(s)), builtin(b) {}
  const Value self;
  const Builtin builtin;
};

/// Arguments matched to parameter names, as Python does for a call.
class BoundArgs {
 public:
  /// Throws TypeError for an argument too many, an unknown name or one given twice.
  BoundArgs(const char* function, const CallArgs& args, std::initializer_list<const char*> names);
  bool has(size_t i) const { return values_[i] != nullptr; }
  /// Throws TypeError when absent.
  const Value& get(size_t i) const;
  const Value& get(size_t i, const Value& otherwise) const { return has(i) ? *values_[i] : otherwise; }
  /// Throws TypeError unless an int.
  Int integer(size_t i, Int otherwise) const;
  bool flag(size_t i, bool otherwise) const;
  /// Throws TypeError unless a string; "" is returned for an absent one.
  std::string_view text(size_t i, std::string_view otherwise) const;

 private:
  const char* function_;
  std::vector<const char*> names_;
  std::vector<const Value*> values_;
};

/// Null when there is none of this name.
const Builtin* find_filter(std::string_view name);
const Builtin* find_test(std::string_view name);
const Builtin* find_global(std::string_view name);
/// A method of v's type; only those that change nothing.
const Builtin* find_method(const Value& v, std::string_view name);
/// True for list.append, dict.update and the like, which the sandbox refuses.
bool is_mutating_method(const Value& v, std::string_view name);

/// The parts of the filter table, by file.
extern const Builtin kTextFilters[], kSequenceFilters[], kSelectionFilters[];
/// The methods of strings, by file.
extern const Builtin kCuttingMethods[], kStringMethods[];

/// Two function or method values of the same kind are equal.
bool same_callable(const Value& a, const Value& b);
/// What stands between <> when a value without a text form is printed.
std::string describe_object(const Value& v);

/// "format" % args and "format".format(args).
Value format_percent(Heap& heap, const Value& format, const Value& args);
Value format_braces(Interp& interp, const Value& self, CallArgs& args);
/// Applies an attribute path ("a.b.0", an integer, or none) to an item, as map(attribute=...) does.
Value follow_attribute(Interp& interp, const Value& item, const Value& path);
/// Lower-case form of strings, other values as they are: the sort key of case-insensitive filters.
Value ignore_case(Heap& heap, const Value& v);
/// Python's sorted(), stable, for any order of values. `keys` and `values` have equal lengths.
Values sort_by(Heap& heap, const Values& keys, const Values& values, bool reverse);
/// int(text) / float(text) of Python. False when it is not a number.
bool parse_int(std::string_view text, int base, Int& out);
bool parse_float(std::string_view text, double& out);
/// int(d); throws for nan, infinities and what 128 bits cannot hold.
Int int_of_double(double d);
/// Python's round(d, digits).
double round_half_even(double d, Int digits);
/// time.strftime for the C locale.
std::string format_time(const std::tm& time, std::string_view format);
/// The tojson filter's text.
struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  bool pretty = false;  // with `indent`
  std::string indent;
  std::string item_separator = ", ", key_separator = ": ";
};
std::string to_json(Heap& heap, const Value& v, const JsonStyle& style);
/// The from_json filter; throws ValueError.
Value from_json(Heap& heap, std::string_view text);

}  // namespace dspark::jinja
