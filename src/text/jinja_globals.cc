// Global functions; see jinja_builtins.h.
#include <array>
#include <cstdio>

#include "text/jinja_builtins.h"
#include "text/jinja_error.h"
#include "text/jinja_eval.h"
#include "text/jinja_ops.h"

namespace dspark::jinja {
namespace {

Value global_raise(Interp& interp, const Value&, CallArgs& args) {
  const BoundArgs bound("raise_exception", args, {"message"});
  fail(ErrorKind::kRaised, to_text(interp.heap(), bound.get(0)));
}

Value global_strftime_now(Interp& interp, const Value&, CallArgs& args) {
  const BoundArgs bound("strftime_now", args, {"format"});
  bound.get(0);
  const std::string_view format = bound.text(0, "");
  interp.heap().check_string(format.size() * 32);
  interp.heap().work(format.size());
  return interp.string(format_time(interp.now(), format));
}

Value global_range(Interp& interp, const Value&, CallArgs& args) {
  const BoundArgs bound("range", args, {"start", "stop", "step"});
  bound.get(0);
  const Int first = bound.integer(0, 0);
  if (!bound.has(1)) return interp.heap().range(0, first, 1);
  return interp.heap().range(first, bound.integer(1, 0), bound.integer(2, 1));
}

// Entries of the mapping or the list of pairs that dict() and namespace() take, then the keywords.
std::vector<DictObj::Entry> dict_arguments(Interp& interp, const CallArgs& args) {
  if (args.positional.size() > 1) type_error("dict expected at most 1 argument");
  std::vector<DictObj::Entry> entries;
  if (!args.positional.empty()) {
    const Value& source = args.positional[0];
    if (source.is(Kind::kDict)) {
      entries = source.dict().entries;
    } else {
      for (const Value& item : to_items(interp.heap(), source)) {
        interp.heap().work(8);  // two small vectors and a tree node
        const Values pair = to_items(interp.heap(), item);
        if (pair.size() != 2) {
          fail(ErrorKind::kValue, "dictionary update sequence element has length " +
                                      std::to_string(pair.size()) + "; 2 is required");
        }
        entries.emplace_back(pair[0], pair[1]);
      }
    }
  }
  for (const auto& [name, value] : args.keyword) entries.emplace_back(interp.string(name), value);
  return entries;
}

Value global_dict(Interp& interp, const Value&, CallArgs& args) {
  return make_dict(interp.heap(), dict_arguments(interp, args));
}

Value global_namespace(Interp& interp, const Value&, CallArgs& args) {
  Value space = interp.heap().name_space();
  for (const auto& [key, value] : dict_arguments(interp, args)) {
    if (!key.is_string()) type_error("names in a namespace must be strings");
    space.as<NamespaceObj>().set(key.str(), value);
  }
  return space;
}

Value global_cycler(Interp& interp, const Value&, CallArgs& args) {
  if (args.positional.empty()) fail(ErrorKind::kRuntime, "at least one item has to be provided");
  const Value items = interp.heap().list(args.positional);
  return {Kind::kCycler, std::make_shared<CyclerObj>(&interp.heap(), items.items(), items.depth())};
}

Value global_joiner(Interp& interp, const Value&, CallArgs& args) {
  const BoundArgs bound("joiner", args, {"sep"});
  bound.text(0, "");
  const Value separator = bound.has(0) ? bound.get(0) : interp.string(", ");
  return {Kind::kJoiner, std::make_shared<JoinerObj>(&interp.heap(), separator)};
}

Value global_lipsum(Interp&, const Value&, CallArgs&) {
  fail(ErrorKind::kUnsupported, "lipsum() is not supported");
}

constexpr Builtin kGlobals[] = {
    {"raise_exception", global_raise}, {"strftime_now", global_strftime_now},
    {"range", global_range},           {"dict", global_dict},
    {"namespace", global_namespace},   {"cycler", global_cycler},
    {"joiner", global_joiner},         {"lipsum", global_lipsum},
};

constexpr std::array<const char*, 7> kDays = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                              "Thursday", "Friday", "Saturday"};
constexpr std::array<const char*, 12> kMonths = {"January",   "February", "March",    "April",
                                                 "May",       "June",     "July",     "August",
                                                 "September", "October",  "November", "December"};

std::string padded(int value, int width, char pad) {
  std::string digits = std::to_string(value);
  while (static_cast<int>(digits.size()) < width) digits.insert(digits.begin(), pad);
  return digits;
}

size_t place(int value, size_t n) {
  return static_cast<size_t>(value < 0 ? 0 : value) % n;
}

// A directive that prints a number.
struct NumericDirective {
  char letter;
  int width;
  char pad;
  int (*value)(const std::tm&);
};

int hour12(const std::tm& t) {
  return t.tm_hour % 12 == 0 ? 12 : t.tm_hour % 12;
}

constexpr NumericDirective kNumericDirectives[] = {
    {'d', 2, '0', [](const std::tm& t) { return t.tm_mday; }},
    {'e', 2, ' ', [](const std::tm& t) { return t.tm_mday; }},
    {'m', 2, '0', [](const std::tm& t) { return t.tm_mon + 1; }},
    {'y', 2, '0', [](const std::tm& t) { return (t.tm_year % 100 + 100) % 100; }},
    {'Y', 4, '0', [](const std::tm& t) { return t.tm_year + 1900; }},
    {'C', 2, '0', [](const std::tm& t) { return (t.tm_year + 1900) / 100; }},
    {'H', 2, '0', [](const std::tm& t) { return t.tm_hour; }},
    {'k', 2, ' ', [](const std::tm& t) { return t.tm_hour; }},
    {'I', 2, '0', hour12},
    {'l', 2, ' ', hour12},
    {'M', 2, '0', [](const std::tm& t) { return t.tm_min; }},
    {'S', 2, '0', [](const std::tm& t) { return t.tm_sec; }},
    {'j', 3, '0', [](const std::tm& t) { return t.tm_yday + 1; }},
    {'w', 1, '0', [](const std::tm& t) { return t.tm_wday; }},
    {'u', 1, '0', [](const std::tm& t) { return t.tm_wday == 0 ? 7 : t.tm_wday; }},
    {'U', 2, '0', [](const std::tm& t) { return (t.tm_yday + 7 - t.tm_wday) / 7; }},
    {'W', 2, '0', [](const std::tm& t) { return (t.tm_yday + 7 - (t.tm_wday + 6) % 7) / 7; }},
    {'f', 6, '0', [](const std::tm&) { return 0; }},  // the clock counts whole seconds
};

// A directive that stands for others; null for other letters.
const char* compound_directive(char letter) {
  switch (letter) {
    case 'c':
      return "%a %b %e %H:%M:%S %Y";
    case 'x':
    case 'D':
      return "%m/%d/%y";
    case 'X':
    case 'T':
      return "%H:%M:%S";
    case 'F':
      return "%Y-%m-%d";
    case 'R':
      return "%H:%M";
    case 'r':
      return "%I:%M:%S %p";
    default:
      return nullptr;
  }
}

void append_directive(std::string& out, const std::tm& t, char letter, char flag) {
  for (const NumericDirective& directive : kNumericDirectives) {
    if (directive.letter != letter) continue;
    const char pad = flag == '_' ? ' ' : flag == '0' ? '0' : directive.pad;
    out += padded(directive.value(t), flag == '-' ? 1 : directive.width, pad);
    return;
  }
  if (const char* parts = compound_directive(letter)) {
    out += format_time(t, parts);
    return;
  }
  const std::string day = kDays[place(t.tm_wday, 7)], month = kMonths[place(t.tm_mon, 12)];
  switch (letter) {
    case 'a':
      out += day.substr(0, 3);
      break;
    case 'A':
      out += day;
      break;
    case 'b':
    case 'h':
      out += month.substr(0, 3);
      break;
    case 'B':
      out += month;
      break;
    case 'p':
      out += t.tm_hour < 12 ? "AM" : "PM";
      break;
    case 'P':
      out += t.tm_hour < 12 ? "am" : "pm";
      break;
    case 'n':
      out += '\n';
      break;
    case 't':
      out += '\t';
      break;
    case '%':
      out += '%';
      break;
    case 'z':
    case 'Z':
      break;  // datetime.now() knows no zone
    default:
      out += '%';
      if (flag != 0) out += flag;
      out += letter;
      break;
  }
}

}  // namespace

std::string format_time(const std::tm& time, std::string_view format) {
  std::string out;
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%' || i + 1 >= format.size()) {
      out += format[i];
      continue;
    }
    char flag = 0;
    if ((format[i + 1] == '-' || format[i + 1] == '_' || format[i + 1] == '0') && i + 2 < format.size()) {
      flag = format[++i];
    }
    append_directive(out, time, format[++i], flag);
  }
  return out;
}

const Builtin* find_global(std::string_view name) {
  for (const Builtin& global : kGlobals) {
    if (name == global.name) return &global;
  }
  return nullptr;
}

}  // namespace dspark::jinja
