// Methods of strings, as Python's str has them; see jinja_builtins.h.
#include <algorithm>
#include <cstring>

#include "text/jinja_builtins.h"
#include "text/jinja_error.h"
#include "text/jinja_eval.h"
#include "text/jinja_ops.h"
#include "text/jinja_unicode.h"
#include "text/utf8.h"

namespace dspark::jinja {
namespace {

constexpr size_t kNone = std::string_view::npos;

// A result that stays Markup when the object was.
Value like(Interp& interp, const Value& self, std::string text) {
  return interp.heap().string(std::move(text), self.string_obj().markup);
}

// Appends the converted form of every character; the text grows at most threefold.
template <typename F>
Value convert(Interp& interp, const Value& self, F&& append) {
  std::string out;
  const std::string& text = self.str();
  out.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) append(out, next_code_point(text, pos));
  return like(interp, self, std::move(out));
}

Value method_upper(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("upper", args, {});
  return like(interp, self, to_upper(self.str()));
}

Value method_lower(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("lower", args, {});
  return like(interp, self, to_lower(self.str()));
}

Value method_casefold(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("casefold", args, {});
  return convert(interp, self, [](std::string& out, uint32_t c) {
    if (c == 0xDF || c == 0x1E9E) {
      out += "ss";
    } else {
      append_lower(out, c == 0x3C2 ? 0x3C3 : c);
    }
  });
}

Value method_swapcase(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("swapcase", args, {});
  return convert(interp, self, [](std::string& out, uint32_t c) {
    is_upper(c) ? append_lower(out, c) : append_upper(out, c);
  });
}

Value method_capitalize(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("capitalize", args, {});
  const std::string& text = self.str();
  if (text.empty()) return self;
  size_t pos = 0;
  std::string out;
  append_title(out, next_code_point(text, pos));
  out += to_lower(std::string_view(text).substr(pos));
  return like(interp, self, std::move(out));
}

Value method_title(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("title", args, {});
  bool inside = false;
  return convert(interp, self, [&inside](std::string& out, uint32_t c) {
    inside ? append_lower(out, c) : append_title(out, c);
    inside = is_upper(c) || is_lower(c);
  });
}

// The part of a string that optional start and end arguments select, and the code points before it.
struct Window {
  std::string_view text;
  Int skipped = 0;
  bool valid = true;  // false when start lies behind the end
};

Window window(Interp& interp, const Value& self, const BoundArgs& bound, size_t first_arg) {
  const StringObj& s = self.string_obj();
  interp.heap().work_bytes(s.text.size());
  const auto n = static_cast<Int>(s.n_chars);
  const auto part = [&](size_t i, Int otherwise) {
    if (!bound.has(i) || bound.get(i).is_none()) return otherwise;
    const Int at = bound.integer(i, 0);
    return at < 0 ? std::max<Int>(at + n, 0) : at;
  };
  const Int start = part(first_arg, 0), end = std::min(part(first_arg + 1, n), n);
  if (start > end) return {{}, 0, false};
  const auto from = static_cast<size_t>(start), to = static_cast<size_t>(end);
  const size_t a = s.ascii() ? from : byte_of_code_point(s.text, from);
  const size_t b = s.ascii() ? to : byte_of_code_point(s.text, to);
  return {std::string_view(s.text).substr(a, b - a), start, true};
}

// Position in code points, -1 when absent.
Int find(Interp& interp, const Value& self, CallArgs& args, bool last, const char* name) {
  const BoundArgs bound(name, args, {"sub", "start", "end"});
  bound.get(0);
  const std::string_view needle = bound.text(0, "");
  const Window in = window(interp, self, bound, 1);
  if (!in.valid) return -1;
  const size_t at = last ? rfind_bytes(in.text, needle) : find_bytes(in.text, needle);
  if (at == kNone) return -1;
  return in.skipped +
         static_cast<Int>(self.string_obj().ascii() ? at : count_code_points(in.text.substr(0, at)));
}

Value found(Int at, bool must) {
  if (must && at < 0) fail(ErrorKind::kValue, "substring not found");
  return Value::integer(at);
}

Value method_find(Interp& interp, const Value& self, CallArgs& args) {
  return found(find(interp, self, args, false, "find"), false);
}
Value method_rfind(Interp& interp, const Value& self, CallArgs& args) {
  return found(find(interp, self, args, true, "rfind"), false);
}
Value method_index(Interp& interp, const Value& self, CallArgs& args) {
  return found(find(interp, self, args, false, "index"), true);
}
Value method_rindex(Interp& interp, const Value& self, CallArgs& args) {
  return found(find(interp, self, args, true, "rindex"), true);
}

Value method_count(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("count", args, {"sub", "start", "end"});
  bound.get(0);
  const std::string_view needle = bound.text(0, "");
  const Window in = window(interp, self, bound, 1);
  if (!in.valid) return Value::integer(0);
  if (needle.empty()) return Value::integer(static_cast<Int>(count_code_points(in.text)) + 1);
  Int n = 0;
  for (size_t pos = 0; (pos = find_bytes(in.text, needle, pos)) != kNone; pos += needle.size()) ++n;
  return Value::integer(n);
}

Value affix(Interp& interp, const Value& self, CallArgs& args, bool at_end) {
  const BoundArgs bound(at_end ? "endswith" : "startswith", args, {"prefix", "start", "end"});
  const Value& wanted = bound.get(0);
  const Window in = window(interp, self, bound, 1);
  if (!in.valid) return Value::boolean(false);
  const auto fits = [&](std::string_view part) {
    if (part.size() > in.text.size()) return false;
    return (at_end ? in.text.substr(in.text.size() - part.size()) : in.text.substr(0, part.size())) == part;
  };
  if (!wanted.is(Kind::kTuple)) return Value::boolean(fits(bound.text(0, "")));
  for (const Value& part : wanted.items()) {
    if (!part.is_string()) type_error("tuple for startswith/endswith must only contain str");
    interp.heap().work_bytes(part.str().size());
    if (fits(part.str())) return Value::boolean(true);
  }
  return Value::boolean(false);
}

Value method_startswith(Interp& interp, const Value& self, CallArgs& args) {
  return affix(interp, self, args, false);
}
Value method_endswith(Interp& interp, const Value& self, CallArgs& args) {
  return affix(interp, self, args, true);
}

Value method_removeprefix(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("removeprefix", args, {"prefix"});
  bound.get(0);
  const std::string_view text = self.str(), part = bound.text(0, "");
  return text.substr(0, part.size()) == part ? like(interp, self, std::string(text.substr(part.size())))
                                             : self;
}

Value method_removesuffix(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("removesuffix", args, {"suffix"});
  bound.get(0);
  const std::string_view text = self.str(), part = bound.text(0, "");
  if (part.size() > text.size() || text.substr(text.size() - part.size()) != part) return self;
  return like(interp, self, std::string(text.substr(0, text.size() - part.size())));
}

Value method_replace(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("replace", args, {"old", "new", "count"});
  bound.get(0), bound.get(1);
  const Int count = std::max<Int>(bound.integer(2, -1), -1);
  return like(interp, self,
              replace_all(interp.heap(), self.str(), bound.text(0, ""), bound.text(1, ""), count));
}

Value method_join(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("join", args, {"iterable"});
  TextBuilder out(interp.heap());
  size_t i = 0;
  for (const Value& item : to_items(interp.heap(), bound.get(0))) {
    if (!item.is_string()) {
      type_error("sequence item " + std::to_string(i) + ": expected str instance, " + type_name(item) +
                 " found");
    }
    if (i++ > 0) out.add(self.str());
    out.add(item.str());
  }
  return like(interp, self, out.take());
}

// Pads to a width in code points; `left` of the padding in twice-halves: 0 none, 2 all, 1 as str.center does.
Value pad(Interp& interp, const Value& self, CallArgs& args, int left, const char* name) {
  const BoundArgs bound(name, args, {"width", "fillchar"});
  bound.get(0);
  const Int width = bound.integer(0, 0);
  const std::string_view fill = bound.text(1, " ");
  if (count_code_points(fill) != 1) type_error("The fill character must be exactly one character long");
  const auto n = static_cast<Int>(self.string_obj().n_chars);
  if (width <= n) return self;
  const Int missing = width - n;
  interp.heap().check_string(missing > Int{1} << 40 ? SIZE_MAX : static_cast<size_t>(missing) * fill.size());
  const Int before = left == 0 ? 0 : left == 2 ? missing : missing / 2 + (missing & width & 1);
  TextBuilder out(interp.heap());
  for (Int i = 0; i < before; ++i) out.add(fill);
  out.add(self.str());
  for (Int i = before; i < missing; ++i) out.add(fill);
  return like(interp, self, out.take());
}

Value method_ljust(Interp& interp, const Value& self, CallArgs& args) {
  return pad(interp, self, args, 0, "ljust");
}
Value method_rjust(Interp& interp, const Value& self, CallArgs& args) {
  return pad(interp, self, args, 2, "rjust");
}
Value method_center(Interp& interp, const Value& self, CallArgs& args) {
  return pad(interp, self, args, 1, "center");
}

Value method_zfill(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("zfill", args, {"width"});
  bound.get(0);
  const Int missing = bound.integer(0, 0) - static_cast<Int>(self.string_obj().n_chars);
  if (missing <= 0) return self;
  interp.heap().check_string(missing > Int{1} << 40 ? SIZE_MAX : static_cast<size_t>(missing));
  std::string text = self.str();
  const size_t sign = !text.empty() && (text[0] == '-' || text[0] == '+') ? 1 : 0;
  text.insert(sign, static_cast<size_t>(missing), '0');
  return like(interp, self, std::move(text));
}

Value method_expandtabs(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("expandtabs", args, {"tabsize"});
  const Int size = std::max<Int>(bound.integer(0, 8), 0);
  interp.heap().check_string(size > Int{1} << 40 ? SIZE_MAX : static_cast<size_t>(size));
  TextBuilder out(interp.heap());
  Int column = 0;
  const std::string_view text = self.str();
  for (size_t pos = 0; pos < text.size();) {
    const size_t start = pos;
    const uint32_t c = next_code_point(text, pos);
    if (c == '\t') {
      const Int n = size == 0 ? 0 : size - column % size;
      out.add(std::string(static_cast<size_t>(n), ' '));
      column += n;
      continue;
    }
    out.add(text.substr(start, pos - start));
    column = c == '\n' || c == '\r' ? 0 : column + 1;
  }
  return like(interp, self, out.take());
}

// True when the string is not empty and every character passes.
template <bool (*kPredicate)(uint32_t)>
Value all_of(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("is...", args, {});
  interp.heap().work_bytes(self.str().size());
  const std::string& text = self.str();
  for (size_t pos = 0; pos < text.size();) {
    if (!kPredicate(next_code_point(text, pos))) return Value::boolean(false);
  }
  return Value::boolean(!text.empty());
}

bool is_alnum(uint32_t c) {
  return is_alpha(c) || is_decimal(c);
}

// isupper and islower: no letter of the other case, at least one of this.
template <bool kUpper>
Value cased(Interp& interp, const Value& self, CallArgs& args) {
  return find_test(kUpper ? "upper" : "lower")->fn(interp, self, args);
}

Value method_istitle(Interp& interp, const Value& self, CallArgs& args) {
  const BoundArgs bound("istitle", args, {});
  interp.heap().work_bytes(self.str().size());
  const std::string& text = self.str();
  bool inside = false, any = false;
  for (size_t pos = 0; pos < text.size();) {
    const uint32_t c = next_code_point(text, pos);
    if (inside ? is_upper(c) : is_lower(c)) return Value::boolean(false);
    inside = is_upper(c) || is_lower(c);
    any |= inside;
  }
  return Value::boolean(any);
}

Value method_isascii(Interp&, const Value& self, CallArgs& args) {
  const BoundArgs bound("isascii", args, {});
  return Value::boolean(self.string_obj().ascii());
}

Value method_isprintable(Interp& interp, const Value& self, CallArgs& args) {
  if (self.str().empty()) return Value::boolean(true);
  return all_of<is_printable>(interp, self, args);
}

Value method_isidentifier(Interp&, const Value& self, CallArgs& args) {
  const BoundArgs bound("isidentifier", args, {});
  const std::string& text = self.str();
  for (size_t pos = 0; pos < text.size();) {
    const bool first = pos == 0;
    const uint32_t c = next_code_point(text, pos);
    if (c != '_' && !is_alpha(c) && (first || !is_decimal(c))) return Value::boolean(false);
  }
  return Value::boolean(!text.empty());
}

}  // namespace

const Builtin kStringMethods[] = {
    {"startswith", method_startswith},
    {"endswith", method_endswith},
    {"replace", method_replace},
    {"upper", method_upper},
    {"lower", method_lower},
    {"title", method_title},
    {"capitalize", method_capitalize},
    {"casefold", method_casefold},
    {"swapcase", method_swapcase},
    {"find", method_find},
    {"rfind", method_rfind},
    {"index", method_index},
    {"rindex", method_rindex},
    {"count", method_count},
    {"join", method_join},
    {"removeprefix", method_removeprefix},
    {"removesuffix", method_removesuffix},
    {"format", format_braces},
    {"ljust", method_ljust},
    {"rjust", method_rjust},
    {"center", method_center},
    {"zfill", method_zfill},
    {"expandtabs", method_expandtabs},
    {"isdigit", all_of<is_decimal>},
    {"isdecimal", all_of<is_decimal>},
    {"isnumeric", all_of<is_decimal>},
    {"isalpha", all_of<is_alpha>},
    {"isalnum", all_of<is_alnum>},
    {"isspace", all_of<is_space>},
    {"isupper", cased<true>},
    {"islower", cased<false>},
    {"istitle", method_istitle},
    {"isascii", method_isascii},
    {"isprintable", method_isprintable},
    {"isidentifier", method_isidentifier},
    {nullptr, nullptr},
};

}  // namespace dspark::jinja
