// Walking, indexing, searching and slicing; see jinja_ops.h.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "text/jinja_error.h"
#include "text/jinja_ops.h"
#include "text/jinja_unicode.h"

namespace dspark::jinja {
namespace {

Values string_items(Heap& heap, const Value& v) {
  const StringObj& s = v.string_obj();
  heap.check_items(s.n_chars);
  Values out;
  out.reserve(s.n_chars);
  for (size_t pos = 0; pos < s.text.size();) {
    const size_t start = pos;
    next_code_point(s.text, pos);
    out.push_back(heap.string(s.text.substr(start, pos - start)));
  }
  return out;
}

Values range_items(Heap& heap, const RangeObj& range) {
  heap.check_items(static_cast<size_t>(range.length));
  Values out;
  out.reserve(static_cast<size_t>(range.length));
  for (int64_t i = 0; i < range.length; ++i)
    out.push_back(Value::integer(Int{range.start} + Int{i} * range.step));
  return out;
}

// What Python's slice.indices gives for a sequence of this length.
struct SliceBounds {
  Int start, stop, step;
};

Int slice_part(const Value& v, const char* what) {
  if (!v.is_int_or_bool()) {
    if (v.is_undefined()) raise_undefined(v);
    type_error(std::string("slice ") + what + " must be an integer or None");
  }
  return v.as_int();
}

SliceBounds slice_bounds(Int length, const Value& start, const Value& stop, const Value& step) {
  SliceBounds b{};
  constexpr Int kLongest =
      Int{1} << 40;  // no sequence is as long: clamping changes nothing and nothing overflows
  b.step = step.is_none() ? 1 : std::clamp(slice_part(step, "step"), -kLongest, kLongest);
  if (b.step == 0) fail(ErrorKind::kValue, "slice step cannot be zero");
  const Int low = b.step < 0 ? -1 : 0, high = b.step < 0 ? length - 1 : length;
  const auto place = [&](const Value& v, const char* what, Int otherwise) {
    if (v.is_none()) return otherwise;
    Int at = slice_part(v, what);
    if (at < 0) at = at < -length ? -1 : at + length;
    return std::clamp(at, low, high);
  };
  b.start = place(start, "start", b.step < 0 ? high : low);
  b.stop = place(stop, "stop", b.step < 0 ? low : high);
  return b;
}

size_t slice_length(const SliceBounds& b) {
  const Int distance = b.step > 0 ? b.stop - b.start : b.start - b.stop;
  if (distance <= 0) return 0;
  const Int stride = b.step > 0 ? b.step : -b.step;
  return static_cast<size_t>((distance - 1) / stride + 1);
}

Value slice_string(Heap& heap, const StringObj& s, const SliceBounds& b) {
  const size_t n = slice_length(b);
  heap.work_bytes(s.text.size());
  if (n == 0) return heap.string({}, s.markup);
  if (b.step == 1) {
    const auto first = static_cast<size_t>(b.start), last = static_cast<size_t>(b.stop);
    const size_t from = s.ascii() ? first : byte_of_code_point(s.text, first);
    const size_t to =
        s.ascii() ? last : from + byte_of_code_point(std::string_view(s.text).substr(from), last - first);
    return heap.string(s.text.substr(from, to - from), s.markup);
  }
  std::string out;
  if (s.ascii()) {
    Int at = b.start;
    for (size_t i = 0; i < n; ++i, at += b.step) out += s.text[static_cast<size_t>(at)];
    return heap.string(std::move(out), s.markup);
  }
  heap.check_items(s.n_chars);
  std::vector<size_t> starts;
  for (size_t pos = 0; pos < s.text.size(); next_code_point(s.text, pos)) starts.push_back(pos);
  starts.push_back(s.text.size());
  Int at = b.start;
  for (size_t i = 0; i < n; ++i, at += b.step) {
    const auto c = static_cast<size_t>(at);
    out.append(s.text, starts[c], starts[c + 1] - starts[c]);
  }
  return heap.string(std::move(out), s.markup);
}

bool range_contains(const RangeObj& range, const Value& item) {
  constexpr double kLargest = 9e18;  // range() takes no larger bounds
  if (!item.is_number() || !(std::abs(item.as_double()) < kLargest)) return false;
  if (item.is(Kind::kFloat) && item.as_double() != std::floor(item.as_double())) return false;
  const Int at = item.is(Kind::kFloat) ? static_cast<Int>(item.as_double()) : item.as_int();
  const Int offset = at - range.start;
  return offset % range.step == 0 && offset / range.step >= 0 && offset / range.step < range.length;
}

bool scan(Heap& heap, const Values& items, const Value& item) {
  return std::any_of(items.begin(), items.end(), [&](const Value& v) { return equals(heap, v, item); });
}

}  // namespace

bool is_iterable(const Value& v) {
  switch (v.kind()) {
    case Kind::kUndefined:
    case Kind::kString:
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kDict:
    case Kind::kRange:
    case Kind::kView:
    case Kind::kIterator:
    case Kind::kLoop:
      return true;
    default:
      return false;
  }
}

Values to_items(Heap& heap, const Value& v) {
  switch (v.kind()) {
    case Kind::kUndefined:
      return {};
    case Kind::kString:
      return string_items(heap, v);
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kView:
      heap.check_items(v.items().size());
      return v.items();
    case Kind::kDict: {
      Values keys;
      heap.check_items(v.dict().entries.size());
      for (const auto& entry : v.dict().entries) keys.push_back(entry.first);
      return keys;
    }
    case Kind::kRange:
      return range_items(heap, v.as<RangeObj>());
    case Kind::kIterator: {
      auto& it = v.as<IteratorObj>();
      const size_t next = std::exchange(it.next, it.values.size());
      heap.check_items(it.values.size() - next);
      return {it.values.begin() + static_cast<std::ptrdiff_t>(next), it.values.end()};
    }
    default:
      type_error(std::string("'") + type_name(v) + "' object is not iterable");
  }
}

size_t length_of(const Value& v) {
  switch (v.kind()) {
    case Kind::kUndefined:
      return 0;
    case Kind::kString:
      return v.string_obj().n_chars;
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kView:
      return v.items().size();
    case Kind::kDict:
      return v.dict().entries.size();
    case Kind::kRange:
      return static_cast<size_t>(v.as<RangeObj>().length);
    default:
      type_error(std::string("object of type '") + type_name(v) + "' has no len()");
  }
}

Value item_at(Heap& heap, const Value& v, Int index) {
  const auto length = static_cast<Int>(length_of(v));
  const Int at = index < 0 ? index + length : index;
  if (at < 0 || at >= length) {
    return heap.undefined(object_name(v) + " has no element " + int_text(index));
  }
  const auto i = static_cast<size_t>(at);
  if (v.is_string()) {
    const StringObj& s = v.string_obj();
    if (s.ascii()) return heap.string(s.text.substr(i, 1), s.markup);
    heap.work_bytes(s.text.size());
    const size_t from = byte_of_code_point(s.text, i);
    size_t to = from;
    next_code_point(s.text, to);
    return heap.string(s.text.substr(from, to - from), s.markup);
  }
  if (v.is(Kind::kRange)) {
    const auto& range = v.as<RangeObj>();
    return Value::integer(Int{range.start} + at * range.step);
  }
  return v.items()[i];
}

Value slice(Heap& heap, const Value& v, const Value& start, const Value& stop, const Value& step) {
  if (v.is_undefined()) raise_undefined(v);
  if (!v.is_string() && !v.is_sequence() && !v.is(Kind::kRange)) {
    if (v.is(Kind::kDict)) type_error("unhashable type: 'slice'");
    type_error(std::string("'") + type_name(v) + "' object is not subscriptable");
  }
  const SliceBounds b = slice_bounds(static_cast<Int>(length_of(v)), start, stop, step);
  if (v.is_string()) return slice_string(heap, v.string_obj(), b);
  if (v.is(Kind::kRange)) {
    const auto& range = v.as<RangeObj>();
    const Int stride = slice_length(b) < 2 ? 1 : b.step * range.step;
    return heap.range(range.start + b.start * range.step, range.start + b.stop * range.step,
                      slice_length(b) == 0 ? 1 : stride);
  }
  const size_t n = slice_length(b);
  heap.check_items(n);
  Values out;
  out.reserve(n);
  Int at = b.start;
  for (size_t i = 0; i < n; ++i, at += b.step) out.push_back(v.items()[static_cast<size_t>(at)]);
  return v.is(Kind::kTuple) ? heap.tuple(std::move(out)) : heap.list(std::move(out));
}

bool contains(Heap& heap, const Value& container, const Value& item) {
  heap.work();
  switch (container.kind()) {
    case Kind::kString:
      if (!item.is_string()) {
        if (item.is_undefined()) raise_undefined(item);
        type_error(std::string("'in <string>' requires string as left operand, not ") + type_name(item));
      }
      heap.work_bytes(container.str().size());
      return find_bytes(container.str(), item.str()) != std::string_view::npos;
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kView:
      return scan(heap, container.items(), item);
    case Kind::kIterator:
      return scan(heap, to_items(heap, container), item);
    case Kind::kDict:
      return dict_find(heap, container.dict(), item) >= 0;
    case Kind::kRange:
      return range_contains(container.as<RangeObj>(), item);
    case Kind::kUndefined:
      return false;
    default:
      type_error(std::string("argument of type '") + type_name(container) + "' is not iterable");
  }
}

void require_hashable(const Value& key) {
  switch (key.kind()) {
    case Kind::kList:
    case Kind::kDict:
    case Kind::kView:
      type_error(std::string("unhashable type: '") + type_name(key) + "'");
    case Kind::kTuple:
      for (const Value& item : key.items()) require_hashable(item);
      break;
    default:
      break;
  }
}

int64_t dict_find(Heap& heap, const DictObj& dict, const Value& key) {
  require_hashable(key);
  if (key.is_string()) {
    heap.work_bytes(key.str().size() * 4);  // compared with several keys
    return dict.index_of(key.str());
  }
  for (size_t i = 0; i < dict.entries.size(); ++i) {
    if (!dict.entries[i].first.is_string() && equals(heap, dict.entries[i].first, key))
      return static_cast<int64_t>(i);
  }
  return -1;
}

Value make_dict(Heap& heap, const std::vector<DictObj::Entry>& entries) {
  heap.check_items(entries.size());
  std::map<std::string_view, size_t> by_name;
  std::vector<size_t> others;
  std::vector<DictObj::Entry> out;
  for (const auto& [key, value] : entries) {
    require_hashable(key);
    size_t at = out.size();
    if (key.is_string()) {
      heap.work_bytes(key.str().size() * 16);  // sorting compares each with many
      at = by_name.emplace(key.str(), at).first->second;
    } else {
      const auto same = std::find_if(others.begin(), others.end(),
                                     [&, k = &key](size_t i) { return equals(heap, out[i].first, *k); });
      if (same != others.end()) {
        at = *same;
      } else {
        others.push_back(at);
      }
    }
    if (at < out.size()) {
      out[at].second = value;
    } else {
      out.emplace_back(key, value);
    }
  }
  return heap.dict(std::move(out));
}

size_t find_bytes(std::string_view text, std::string_view needle, size_t from) {
  if (from > text.size()) return std::string_view::npos;
  if (needle.empty()) return from;
  const void* at = memmem(text.data() + from, text.size() - from, needle.data(), needle.size());
  return at == nullptr ? std::string_view::npos
                       : static_cast<size_t>(static_cast<const char*>(at) - text.data());
}

size_t rfind_bytes(std::string_view text, std::string_view needle) {
  if (needle.empty()) return text.size();
  const std::string back_text(text.rbegin(), text.rend()), back_needle(needle.rbegin(), needle.rend());
  const size_t at = find_bytes(back_text, back_needle);
  return at == std::string_view::npos ? at : text.size() - at - needle.size();
}

std::string replace_all(Heap& heap, std::string_view text, std::string_view from, std::string_view to,
                        Int count) {
  TextBuilder out(heap);
  heap.work_bytes(text.size());
  size_t pos = 0;
  Int left = count < 0 ? static_cast<Int>(text.size()) + 1 : count;
  if (from.empty()) {
    // Python puts the new text before every character and at the end.
    while (left-- > 0) {
      out.add(to);
      if (pos >= text.size()) break;
      const size_t start = pos;
      next_code_point(text, pos);
      out.add(text.substr(start, pos - start));
    }
    out.add(text.substr(std::min(pos, text.size())));
    return out.take();
  }
  while (left-- > 0) {
    const size_t at = find_bytes(text, from, pos);
    if (at == std::string_view::npos) break;
    out.add(text.substr(pos, at - pos));
    out.add(to);
    pos = at + from.size();
  }
  out.add(text.substr(pos));
  return out.take();
}

std::string escape_markup(Heap& heap, std::string_view text) {
  TextBuilder out(heap);
  size_t plain = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char* to = nullptr;
    switch (text[i]) {
      case '&':
        to = "&amp;";
        break;
      case '<':
        to = "&lt;";
        break;
      case '>':
        to = "&gt;";
        break;
      case '"':
        to = "&#34;";
        break;
      case '\'':
        to = "&#39;";
        break;
      default:
        continue;
    }
    out.add(text.substr(plain, i - plain));
    out.add(to);
    plain = i + 1;
  }
  out.add(text.substr(plain));
  return out.take();
}

}  // namespace dspark::jinja
