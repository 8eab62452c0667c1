// Methods of strings that cut: strip, split, partition; see jinja_builtins.h.
#include <algorithm>

#include "text/jinja_builtins.h"
#include "text/jinja_error.h"
#include "text/jinja_eval.h"
#include "text/jinja_ops.h"
#include "text/jinja_unicode.h"

namespace dspark::jinja {
namespace {

constexpr size_t kNone = std::string_view::npos;

// A result that stays Markup when the object was.
Value like(Interp& interp, const Value& self, std::string text) {
  return interp.heap().string(std::move(text), self.string_obj().markup);
}

void push(Interp& interp, Values& out, const Value& self, std::string_view text) {
  if (out.size() >= interp.heap().limits().max_items) interp.heap().too_much("list length");
  out.push_back(like(interp, self, std::string(text)));
}

// Strips white space, or the characters of a set, from the sides given as in strip_space.
Value strip(Interp& interp, const Value& self, CallArgs& args, int side, const char* name) {
  const BoundArgs bound(name, args, {"chars"});
  std::string_view text = self.str();
  if (!bound.has(0) || bound.get(0).is_none())
    return like(interp, self, std::string(strip_space(text, side)));
  const std::string_view chars = bound.text(0, "");
  std::vector<uint32_t> set;
  for (size_t pos = 0; pos < chars.size();) set.push_back(next_code_point(chars, pos));
  std::sort(set.begin(), set.end());
  interp.heap().work_bytes(text.size() + chars.size() * 8);
  const auto in_set = [&](size_t at) {
    return std::binary_search(set.begin(), set.end(), next_code_point(text, at));
  };
  while ((side & 1) != 0 && !text.empty() && in_set(0)) {
    size_t pos = 0;
    next_code_point(text, pos);
    text.remove_prefix(pos);
  }
  while ((side & 2) != 0 && !text.empty()) {
    size_t start = text.size() - 1;
    while (start > 0 && (static_cast<uint8_t>(text[start]) & 0xC0) == 0x80) --start;
    if (!in_set(start)) break;
    text = text.substr(0, start);
  }
  return like(interp, self, std::string(text));
}

Value method_strip(Interp& interp, const Value& self, CallArgs& args) {
  return strip(interp, self, args, 3, "strip");
}
Value method_lstrip(Interp& interp, const Value& self, CallArgs& args) {
  return strip(interp, self, args, 1, "lstrip");
}
Value method_rstrip(Interp& interp, const Value& self, CallArgs& args) {
  return strip(interp, self, args, 2, "rstrip");
}

// Pieces between runs of white space.
Values split_space(Interp& interp, const Value& self, Int limit) {
  Values out;
  std::string_view rest = strip_space(self.str(), 1);
  while (!rest.empty()) {
    if (limit-- == 0) {
      push(interp, out, self, rest);
      break;
    }
    size_t end = 0, next = 0;
    while (end < rest.size() && (next = end, !is_space(next_code_point(rest, next)))) end = next;
    push(interp, out, self, rest.substr(0, end));
    rest = strip_space(rest.substr(end), 1);
  }
  return out;
}

Values rsplit_space(Interp& interp, const Value& self, Int limit) {
  Values out;
  std::string_view rest = strip_space(self.str(), 2);
  while (!rest.empty()) {
    if (limit-- == 0) {
      push(interp, out, self, rest);
      break;
    }
    size_t start = rest.size();
    while (start > 0) {
      size_t before = start - 1;
      while (before > 0 && (static_cast<uint8_t>(rest[before]) & 0xC0) == 0x80) --before;
      size_t pos = before;
      if (is_space(next_code_point(rest, pos))) break;
      start = before;
    }
    push(interp, out, self, rest.substr(start));
    rest = strip_space(rest.substr(0, start), 2);
  }
  std::reverse(out.begin(), out.end());
  return out;
}

Values split_at(Interp& interp, const Value& self, std::string_view separator, Int limit) {
  Values out;
  const std::string_view text = self.str();
  size_t pos = 0;
  while (limit-- != 0) {
    const size_t at = find_bytes(text, separator, pos);
    if (at == kNone) break;
    push(interp, out, self, text.substr(pos, at - pos));
    pos = at + separator.size();
  }
  push(interp, out, self, text.substr(pos));
  return out;
}

// From the right: the same on the reversed bytes.
Values rsplit_at(Interp& interp, const Value& self, std::string_view separator, Int limit) {
  Values out;
  const std::string& text = self.str();
  const std::string back(text.rbegin(), text.rend()), back_separator(separator.rbegin(), separator.rend());
  size_t pos = 0;
  const auto piece = [&](size_t from, size_t to) {
    return std::string_view(text).substr(text.size() - to, to - from);
  };
  while (limit-- != 0) {
    const size_t at = find_bytes(back, back_separator, pos);
    if (at == kNone) break;
    push(interp, out, self, piece(pos, at));
    pos = at + separator.size();
  }
  push(interp, out, self, piece(pos, text.size()));
  std::reverse(out.begin(), out.end());
  return out;
}

Value split(Interp& interp, const Value& self, CallArgs& args, bool from_right) {
  const BoundArgs bound(from_right ? "rsplit" : "split", args, {"sep", "maxsplit"});
  interp.heap().work_bytes(self.str().size());
  const Int limit = std::max<Int>(bound.integer(1, -1), -1);
  if (!bound.has(0) || bound.get(0).is_none()) {
    return interp.heap().list(from_right ? rsplit_space(interp, self, limit)
                                         : split_space(interp, self, limit));
  }
  const std::string_view separator = bound.text(0, "");
  if (separator.empty()) fail(ErrorKind::kValue, "empty separator");
  return interp.heap().list(from_right ? rsplit_at(interp, self, separator, limit)
                                       : split_at(interp, self, separator, limit));
}

Value method_split(Interp& interp, const Value& self, CallArgs& args) {
  return split(interp, self, args, false);
}
Value method_rsplit(Interp& interp, const Value& self, CallArgs& args) {
  return split(interp, self, args, true);
}

Value method_splitlines(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("splitlines", args, {"keepends"});
  const bool keep = bound.flag(0, false);
  const std::string_view text = self.str();
  Values lines;
  size_t begin = 0;
  for (size_t pos = 0; pos < text.size();) {
    const size_t end = pos;
    const uint32_t c = next_code_point(text, pos);
    const bool is_break =
        (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
    if (!is_break) continue;
    if (c == '\r' && pos < text.size() && text[pos] == '\n') ++pos;
    push(interp, lines, self, text.substr(begin, (keep ? pos : end) - begin));
    begin = pos;
  }
  if (begin < text.size()) push(interp, lines, self, text.substr(begin));
  return interp.heap().list(std::move(lines));
}

Value partition(Interp& interp, const Value& self, CallArgs& args, bool last) {
  const BoundArgs bound(last ? "rpartition" : "partition", args, {"sep"});
  bound.get(0);
  const std::string_view separator = bound.text(0, ""), text = self.str();
  if (separator.empty()) fail(ErrorKind::kValue, "empty separator");
  const size_t at = last ? rfind_bytes(text, separator) : find_bytes(text, separator);
  Values parts;
  if (at == kNone) {
    for (int i = 0; i < 3; ++i) push(interp, parts, self, i == (last ? 2 : 0) ? text : std::string_view());
  } else {
    push(interp, parts, self, text.substr(0, at));
    push(interp, parts, self, separator);
    push(interp, parts, self, text.substr(at + separator.size()));
  }
  return interp.heap().tuple(std::move(parts));
}

Value method_partition(Interp& interp, const Value& self, CallArgs& args) {
  return partition(interp, self, args, false);
}
Value method_rpartition(Interp& interp, const Value& self, CallArgs& args) {
  return partition(interp, self, args, true);
}

}  // namespace

const Builtin kCuttingMethods[] = {
    {"strip", method_strip},         {"lstrip", method_lstrip},         {"rstrip", method_rstrip},
    {"split", method_split},         {"rsplit", method_rsplit},         {"splitlines", method_splitlines},
    {"partition", method_partition}, {"rpartition", method_rpartition}, {nullptr, nullptr},
};

}  // namespace dspark::jinja
