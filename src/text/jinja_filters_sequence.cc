// Filters over sequences and mappings; see jinja_builtins.h.
#include <algorithm>

#include "text/jinja_builtins.h"
#include "text/jinja_error.h"
#include "text/jinja_eval.h"
#include "text/jinja_ops.h"
#include "text/jinja_unicode.h"

namespace dspark::jinja {
namespace {

// The keys by which items are sorted or compared: their attribute, without case unless asked for.
Values sort_keys(Interp& interp, const Values& items, const Value& attribute, bool case_sensitive) {
  Heap& heap = interp.heap();
  const auto key_of = [&](const Value& item, const Value& path) {
    const Value key = follow_attribute(interp, item, path);
    return case_sensitive ? key : ignore_case(heap, key);
  };
  std::vector<Value> paths;  // "a,b" sorts by a, then by b
  if (attribute.is_string()) {
    std::string_view rest = attribute.str();
    for (size_t comma; (comma = rest.find(',')) != std::string_view::npos; rest = rest.substr(comma + 1)) {
      paths.push_back(interp.string(std::string(rest.substr(0, comma))));
    }
    paths.push_back(interp.string(std::string(rest)));
  } else {
    paths.push_back(attribute);
  }
  Values keys;
  keys.reserve(items.size());
  for (const Value& item : items) {
    if (paths.size() == 1) {
      keys.push_back(key_of(item, paths[0]));
      continue;
    }
    Values parts;
    for (const Value& path : paths) parts.push_back(key_of(item, path));
    keys.push_back(heap.list(std::move(parts)));
  }
  return keys;
}

Value filter_length(Interp&, const Value& self, CallArgs& args) {
  const BoundArgs bound("length", args, {});
  return Value::integer(static_cast<Int>(length_of(self)));
}

Value filter_list(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("list", args, {});
  return interp.heap().list(to_items(interp.heap(), self));
}

Value filter_first(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("first", args, {});
  if (self.is(Kind::kIterator)) {
    auto& it = self.as<IteratorObj>();
    if (it.next < it.values.size()) return it.values[it.next++];
  } else if (self.is_string() || self.is_sequence()) {
    if (length_of(self) > 0) return item_at(interp.heap(), self, 0);
  } else {
    const Values items = to_items(interp.heap(), self);
    if (!items.empty()) return items.front();
  }
  return interp.heap().undefined("No first item, sequence was empty.");
}

Value filter_last(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("last", args, {});
  if (self.is(Kind::kIterator)) type_error("'generator' object is not reversible");
  if (self.is_string() || self.is_sequence()) {
    if (length_of(self) > 0) return item_at(interp.heap(), self, -1);
  } else if (!is_iterable(self)) {
    type_error(std::string("'") + type_name(self) + "' object is not reversible");
  } else {
    const Values items = to_items(interp.heap(), self);
    if (!items.empty()) return items.back();
  }
  return interp.heap().undefined("No last item, sequence was empty.");
}

Value filter_reverse(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("reverse", args, {});
  Heap& heap = interp.heap();
  if (self.is_string()) return slice(heap, self, Value::none(), Value::none(), Value::integer(-1));
  Values items = to_items(heap, self);
  std::reverse(items.begin(), items.end());
  return heap.iterator(std::move(items));
}

Value filter_join(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("join", args, {"d", "attribute"});
  Heap& heap = interp.heap();
  const std::string separator = bound.has(0) ? to_text(heap, bound.get(0)) : "";
  TextBuilder out(heap);
  bool first = true;
  for (const Value& item : to_items(heap, self)) {
    if (!first) out.add(separator);
    first = false;
    append_text(out, bound.has(1) ? follow_attribute(interp, item, bound.get(1)) : item);
  }
  return heap.string(out.take());
}

Value filter_sort(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("sort", args, {"reverse", "case_sensitive", "attribute"});
  const Values items = to_items(interp.heap(), self);
  Values keys = sort_keys(interp, items, bound.get(2, Value::none()), bound.flag(1, false));
  // Jinja compares lists of keys, so equal keys need no order (none and none, undefined and undefined).
  for (Value& key : keys) key = interp.heap().list({key});
  return interp.heap().list(sort_by(interp.heap(), keys, items, bound.flag(0, false)));
}

Value filter_dictsort(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("dictsort", args, {"case_sensitive", "by", "reverse"});
  Heap& heap = interp.heap();
  const std::string_view by = bound.text(1, "key");
  if (by != "key" && by != "value")
    fail(ErrorKind::kRuntime, "You can only sort by either \"key\" or \"value\"");
  if (!self.is(Kind::kDict)) {
    if (self.is_undefined()) raise_undefined(self);
    type_error(std::string("'") + type_name(self) + "' object has no attribute 'items'");
  }
  Values keys, pairs;
  for (const auto& [key, value] : self.dict().entries) {
    const Value& sorted_by = by == "key" ? key : value;
    keys.push_back(bound.flag(0, false) ? sorted_by : ignore_case(heap, sorted_by));
    pairs.push_back(heap.tuple({key, value}));
  }
  return heap.list(sort_by(heap, keys, pairs, bound.flag(2, false)));
}

Value filter_items(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("items", args, {});
  Heap& heap = interp.heap();
  if (self.is_undefined()) return heap.iterator({});
  if (!self.is(Kind::kDict)) type_error("Can only get item pairs from a mapping.");
  Values pairs;
  for (const auto& [key, value] : self.dict().entries) pairs.push_back(heap.tuple({key, value}));
  return heap.iterator(std::move(pairs));
}

Value filter_unique(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("unique", args, {"case_sensitive", "attribute"});
  Heap& heap = interp.heap();
  const Values items = to_items(heap, self);
  const Values keys = sort_keys(interp, items, bound.get(1, Value::none()), bound.flag(0, false));
  Values kept, seen;
  for (size_t i = 0; i < items.size(); ++i) {
    require_hashable(keys[i]);
    const bool known =
        std::any_of(seen.begin(), seen.end(), [&](const Value& k) { return equals(heap, k, keys[i]); });
    if (known) continue;
    seen.push_back(keys[i]);
    kept.push_back(items[i]);
  }
  return heap.iterator(std::move(kept));
}

Value extreme(Interp& interp, const Value& self, CallArgs& args, bool largest) {
  const BoundArgs bound(largest ? "max" : "min", args, {"case_sensitive", "attribute"});
  Heap& heap = interp.heap();
  const Values items = to_items(heap, self);
  if (items.empty()) return heap.undefined("No aggregated item, sequence was empty.");
  const Values keys = sort_keys(interp, items, bound.get(1, Value::none()), bound.flag(0, false));
  size_t best = 0;
  for (size_t i = 1; i < items.size(); ++i) {
    if (largest ? less(heap, keys[best], keys[i]) : less(heap, keys[i], keys[best])) best = i;
  }
  return items[best];
}

Value filter_max(Interp& interp, const Value& self, CallArgs& args) {
  return extreme(interp, self, args, true);
}
Value filter_min(Interp& interp, const Value& self, CallArgs& args) {
  return extreme(interp, self, args, false);
}

Value filter_sum(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("sum", args, {"attribute", "start"});
  Heap& heap = interp.heap();
  Value total = bound.get(1, Value::integer(0));
  if (total.is_string()) type_error("sum() can't sum strings [use ''.join(seq) instead]");
  for (const Value& item : to_items(heap, self)) {
    heap.work();
    total = binary(heap, BinaryOp::kAdd, total, follow_attribute(interp, item, bound.get(0, Value::none())));
  }
  return total;
}

Value filter_batch(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("batch", args, {"linecount", "fill_with"});
  Heap& heap = interp.heap();
  bound.get(0);
  const Int size = bound.integer(0, 1);
  const Values items = to_items(heap, self);
  Values rows, row;
  for (const Value& item : items) {
    // As in Jinja, a size that never matches keeps everything in one row.
    if (static_cast<Int>(row.size()) == size) rows.push_back(heap.list(std::exchange(row, {})));
    row.push_back(item);
  }
  if (!row.empty()) {
    const Value fill = bound.get(1, Value::none());
    if (!fill.is_none() && static_cast<Int>(row.size()) < size) {
      heap.check_items(size > Int{1} << 40 ? SIZE_MAX : static_cast<size_t>(size));
      row.resize(static_cast<size_t>(size), fill);
    }
    rows.push_back(heap.list(std::move(row)));
  }
  return heap.iterator(std::move(rows));
}

Value filter_slice(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("slice", args, {"slices", "fill_with"});
  Heap& heap = interp.heap();
  bound.get(0);
  const Values items = to_items(heap, self);
  const Int slices = bound.integer(0, 1);
  if (slices == 0) fail(ErrorKind::kZeroDivision, "integer division or modulo by zero");
  if (slices < 0) return heap.iterator({});
  heap.check_items(slices > Int{1} << 40 ? SIZE_MAX : static_cast<size_t>(slices));
  const size_t n = static_cast<size_t>(slices), per_slice = items.size() / n, with_extra = items.size() % n;
  const Value fill = bound.get(1, Value::none());
  Values rows;
  size_t at = 0;
  for (size_t i = 0; i < n; ++i) {
    const size_t size = per_slice + (i < with_extra ? 1 : 0);
    Values row(items.begin() + static_cast<std::ptrdiff_t>(at),
               items.begin() + static_cast<std::ptrdiff_t>(at + size));
    at += size;
    if (!fill.is_none() && i >= with_extra) row.push_back(fill);
    rows.push_back(heap.list(std::move(row)));
  }
  return heap.iterator(std::move(rows));
}

Value filter_groupby(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("groupby", args, {"attribute", "default", "case_sensitive"});
  Heap& heap = interp.heap();
  const Values items = to_items(heap, self);
  const Value otherwise = bound.get(1, Value::none());
  Values originals, keys;
  for (const Value& item : items) {
    Value key = follow_attribute(interp, item, bound.get(0));
    if (key.is_undefined() && !otherwise.is_none()) key = otherwise;
    originals.push_back(key);
    keys.push_back(bound.flag(2, false) ? key : ignore_case(heap, key));
  }
  Values indices;
  for (size_t i = 0; i < items.size(); ++i) indices.push_back(Value::integer(static_cast<Int>(i)));
  const Values order = sort_by(heap, keys, indices, false);
  Values groups;
  for (size_t i = 0; i < order.size();) {
    const auto first = static_cast<size_t>(order[i].as_int());
    Values members;
    for (; i < order.size(); ++i) {
      const auto at = static_cast<size_t>(order[i].as_int());
      if (!equals(heap, keys[first], keys[at])) break;
      members.push_back(items[at]);
    }
    groups.push_back(heap.group({originals[first], heap.list(std::move(members))}));
  }
  return heap.list(std::move(groups));
}

Value filter_default(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("default", args, {"default_value", "boolean"});
  const bool replace = self.is_undefined() || (bound.flag(1, false) && !truthy(self));
  if (!replace) return self;
  return bound.has(0) ? bound.get(0) : interp.string("");
}

Value filter_attr(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("attr", args, {"name"});
  bound.get(0);
  const std::string_view name = bound.text(0, "");
  // Unlike a dot, attr() does not see the keys of a dict.
  if (self.is(Kind::kDict) && find_method(self, name) == nullptr && !is_mutating_method(self, name)) {
    return interp.heap().undefined("'dict object' has no attribute '" + std::string(name) + "'");
  }
  return interp.get_attribute(self, name);
}

}  // namespace

const Builtin kSequenceFilters[] = {
    {"length", filter_length}, {"count", filter_length},    {"list", filter_list},
    {"first", filter_first},   {"last", filter_last},       {"reverse", filter_reverse},
    {"join", filter_join},     {"sort", filter_sort},       {"dictsort", filter_dictsort},
    {"items", filter_items},   {"unique", filter_unique},   {"max", filter_max},
    {"min", filter_min},       {"sum", filter_sum},         {"batch", filter_batch},
    {"slice", filter_slice},   {"groupby", filter_groupby}, {"default", filter_default},
    {"d", filter_default},     {"attr", filter_attr},       {nullptr, nullptr},
};

}  // namespace dspark::jinja
