// map, select and their relatives; see jinja_builtins.h.
#include "text/jinja_builtins.h"
#include "text/jinja_error.h"
#include "text/jinja_eval.h"
#include "text/jinja_ops.h"

namespace dspark::jinja {
namespace {

// The arguments behind the first `skip` positional ones.
CallArgs rest_of(const CallArgs& args, size_t skip) {
  CallArgs rest;
  for (size_t i = skip; i < args.positional.size(); ++i) rest.positional.push_back(args.positional[i]);
  rest.keyword = args.keyword;
  return rest;
}

std::string_view name_argument(const CallArgs& args, size_t i, const char* what) {
  if (i >= args.positional.size()) fail(ErrorKind::kRuntime, std::string(what) + " requires a name");
  if (!args.positional[i].is_string())
    fail(ErrorKind::kRuntime, std::string(what) + " requires a name as text");
  return args.positional[i].str();
}

Value map_attribute(Interp& interp, const Values& items, const CallArgs& args) {
  Value attribute, otherwise;
  bool has_default = false;
  for (const auto& [name, value] : args.keyword) {
    if (name == "attribute") {
      attribute = value;
    } else if (name == "default") {
      otherwise = value;
      has_default = !value.is_none();
    } else {
      fail(ErrorKind::kRuntime, "Unexpected keyword argument '" + name + "'");
    }
  }
  Values out;
  for (const Value& item : items) {
    Value value = follow_attribute(interp, item, attribute);
    if (value.is_undefined() && has_default) value = otherwise;
    out.push_back(std::move(value));
  }
  return interp.heap().iterator(std::move(out));
}

Value filter_map(Interp& interp, const Value& self, CallArgs& args) {
  const Values items = to_items(interp.heap(), self);
  bool by_attribute = false;
  for (const auto& keyword : args.keyword) by_attribute |= keyword.first == "attribute";
  if (args.positional.empty() && by_attribute) return map_attribute(interp, items, args);
  const std::string_view filter = name_argument(args, 0, "map");
  const CallArgs rest = rest_of(args, 1);
  Values out;
  for (const Value& item : items) {
    CallArgs own = rest;
    out.push_back(interp.apply_filter(filter, item, own));
  }
  return interp.heap().iterator(std::move(out));
}

// select, reject (of_attribute = false), selectattr, rejectattr.
Value pick(Interp& interp, const Value& self, CallArgs& args, bool of_attribute, bool wanted) {
  const size_t first = of_attribute ? 1 : 0;
  if (of_attribute && args.positional.empty())
    fail(ErrorKind::kRuntime, "Missing parameter for attribute name");
  const bool has_test = args.positional.size() > first;
  const std::string_view test = has_test ? name_argument(args, first, "select") : "";
  const CallArgs rest = rest_of(args, first + 1);
  Values out;
  for (const Value& item : to_items(interp.heap(), self)) {
    interp.heap().work();
    const Value subject = of_attribute ? follow_attribute(interp, item, args.positional[0]) : item;
    CallArgs own = rest;
    const bool passed = has_test ? interp.apply_test(test, subject, own) : truthy(subject);
    if (passed == wanted) out.push_back(item);
  }
  return interp.heap().iterator(std::move(out));
}

Value filter_select(Interp& interp, const Value& self, CallArgs& args) {
  return pick(interp, self, args, false, true);
}
Value filter_reject(Interp& interp, const Value& self, CallArgs& args) {
  return pick(interp, self, args, false, false);
}
Value filter_selectattr(Interp& interp, const Value& self, CallArgs& args) {
  return pick(interp, self, args, true, true);
}
Value filter_rejectattr(Interp& interp, const Value& self, CallArgs& args) {
  return pick(interp, self, args, true, false);
}

}  // namespace

const Builtin kSelectionFilters[] = {
    {"map", filter_map},
    {"select", filter_select},
    {"reject", filter_reject},
    {"selectattr", filter_selectattr},
    {"rejectattr", filter_rejectattr},
    {nullptr, nullptr},
};

}  // namespace dspark::jinja
