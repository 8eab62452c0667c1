// Attributes and items as the sandbox of Jinja hands them out; see jinja_eval.h.
#include <algorithm>

#include "text/jinja_error.h"
#include "text/jinja_eval.h"
#include "text/jinja_ops.h"

namespace dspark::jinja {
namespace {

std::string quoted(std::string_view name) {
  return "'" + std::string(name) + "'";
}

Value loop_cycle(Interp& interp, const Value& self, CallArgs& args) {
  interp.heap().work();
  if (args.positional.empty()) type_error("no items for cycling given");
  return args.positional[self.as<LoopObj>().index0 % args.positional.size()];
}

Value loop_changed(Interp& interp, const Value& self, CallArgs& args) {
  auto& loop = self.as<LoopObj>();
  bool changed = !loop.has_last || loop.last.size() != args.positional.size();
  for (size_t i = 0; !changed && i < loop.last.size(); ++i) {
    changed = !equals(interp.heap(), loop.last[i], args.positional[i]);
  }
  if (!loop.has_last) interp.heap().keep(std::static_pointer_cast<LoopObj>(self.object()));
  loop.has_last = true;
  if (changed) loop.last = args.positional;
  return Value::boolean(changed);
}

Value cycler_next(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("next", args, {});
  interp.heap().work();
  auto& cycler = self.as<CyclerObj>();
  const Value value = cycler.values[cycler.at];
  cycler.at = (cycler.at + 1) % cycler.values.size();
  return value;
}

Value cycler_reset(Interp&, const Value& self, CallArgs& args) {
  const BoundArgs bound("reset", args, {});
  self.as<CyclerObj>().at = 0;
  return Value::none();
}

constexpr Builtin kLoopMethods[] = {{"cycle", loop_cycle}, {"changed", loop_changed}};
constexpr Builtin kCyclerMethods[] = {{"next", cycler_next}, {"reset", cycler_reset}};

template <size_t N>
const Builtin* find_in(const Builtin (&table)[N], std::string_view name) {
  const auto* at = std::find_if(table, table + N, [name](const Builtin& b) { return name == b.name; });
  return at == table + N ? nullptr : at;
}

}  // namespace

Value Interp::bind_method(const Value& object, const Builtin& method) {
  return {Kind::kMethod,
          std::make_shared<MethodObj>(&heap_, object, method, heap_.depth_above(object.depth()))};
}

Value Interp::missing_attribute(const Value& object, std::string_view name) {
  return heap_.undefined(quoted(object_name(object)) + " has no attribute " + quoted(name));
}

Value Interp::loop_attribute(const Value& object, std::string_view name) {
  const auto& loop = object.as<LoopObj>();
  const auto number = [](size_t n) { return Value::integer(static_cast<Int>(n)); };
  const size_t n = loop.items.size(), i = loop.index0;
  if (name == "index") return number(i + 1);
  if (name == "index0") return number(i);
  if (name == "revindex") return number(n - i);
  if (name == "revindex0") return number(n - i - 1);
  if (name == "first") return Value::boolean(i == 0);
  if (name == "last") return Value::boolean(i + 1 >= n);
  if (name == "length") return number(n);
  if (name == "depth") return number(static_cast<size_t>(loop.depth0) + 1);
  if (name == "depth0") return number(static_cast<size_t>(loop.depth0));
  if (name == "previtem") return i > 0 ? loop.items[i - 1] : heap_.undefined("there is no previous item");
  if (name == "nextitem") return i + 1 < n ? loop.items[i + 1] : heap_.undefined("there is no next item");
  if (const Builtin* method = find_in(kLoopMethods, name)) return bind_method(object, *method);
  return missing_attribute(object, name);
}

// Attributes that are neither methods nor dict keys. True when `object` is of a kind that has such.
bool Interp::special_attribute(const Value& object, std::string_view name, Value& out) {
  switch (object.kind()) {
    case Kind::kLoop:
      out = loop_attribute(object, name);
      return true;
    case Kind::kNamespace: {
      const Value* field = object.as<NamespaceObj>().find(name);
      out = field != nullptr ? *field : missing_attribute(object, name);
      return true;
    }
    case Kind::kMacro: {
      const MacroDef& def = *object.as<MacroObj>().def;
      if (name == "name") {
        out = string(def.name);
      } else if (name == "arguments") {
        Values params;
        for (const std::string& param : def.params) params.push_back(string(param));
        out = heap_.tuple(std::move(params));
      } else if (name == "caller" || name == "catch_kwargs" || name == "catch_varargs") {
        out = Value::boolean(name == "caller"         ? def.uses_caller
                             : name == "catch_kwargs" ? def.uses_kwargs
                                                      : def.uses_varargs);
      } else {
        return false;
      }
      return true;
    }
    case Kind::kCycler:
      if (name == "current") {
        const auto& cycler = object.as<CyclerObj>();
        out = cycler.values[cycler.at];
      } else if (const Builtin* method = find_in(kCyclerMethods, name)) {
        out = bind_method(object, *method);
      } else {
        return false;
      }
      return true;
    case Kind::kTuple: {
      const auto& tuple = object.as<SeqObj>();
      if (tuple.view_name == nullptr || (name != "grouper" && name != "list")) return false;
      out = tuple.values[name == "grouper" ? 0 : 1];
      return true;
    }
    default:
      return false;
  }
}

Value Interp::get_attribute(const Value& object, std::string_view name) {
  if (object.is_undefined()) raise_undefined(object);
  heap_.work_bytes(name.size());
  const bool dunder = name.size() > 4 && name.substr(0, 2) == "__" && name.substr(name.size() - 2) == "__";
  if (dunder || is_mutating_method(object, name)) {
    return heap_.undefined(
        "access to attribute " + quoted(name) + " of " + quoted(type_name(object)) + " object is unsafe.",
        true);
  }
  Value out;
  if (special_attribute(object, name, out)) return out;
  if (const Builtin* method = find_method(object, name)) return bind_method(object, *method);
  if (object.is(Kind::kDict)) {
    if (const Value* value = object.dict().find(name)) return *value;
  }
  return missing_attribute(object, name);
}

Value Interp::get_item(const Value& object, const Value& key) {
  heap_.work();
  switch (object.kind()) {
    case Kind::kUndefined:
      raise_undefined(object);
    case Kind::kString:
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kRange:
      if (key.is_int_or_bool()) return item_at(heap_, object, key.as_int());
      break;
    case Kind::kDict: {
      if (key.is(Kind::kList) || key.is(Kind::kDict)) break;  // unhashable: nothing has such a key
      const int64_t at = dict_find(heap_, object.dict(), key);
      if (at >= 0) return object.dict().entries[static_cast<size_t>(at)].second;
      break;
    }
    default:
      break;
  }
  if (key.is_string()) return get_attribute(object, key.str());
  TextBuilder text(heap_);
  append_repr(text, key);
  return heap_.undefined(quoted(object_name(object)) + " has no attribute " + text.take());
}

}  // namespace dspark::jinja
