// Gemma 4's calls: <|tool_call>call:NAME{key:<|"|>text<|"|>,other:[1,{a:true}]}<tool_call|>

#include <algorithm>
#include <utility>

#include "constrain/call_reader.h"
#include "constrain/call_scanner.h"
#include "constrain/parameter_types.h"
#include "constrain/text_scan.h"

namespace dspark {
namespace {

using Kind = CallStep::Kind;

constexpr std::string_view kBegin = "<|tool_call>";
constexpr std::string_view kEnd = "<tool_call|>";
constexpr std::string_view kCall = "call:";
constexpr std::string_view kQuote = "<|\"|>";
constexpr size_t kMaxName = 256;

class Gemma4Reader final : public CallReader {
 public:
  CallStep next(std::string_view text, bool is_last) override {
    switch (place_) {
      case Place::kOpen:
        place_ = Place::kName;
        return {Kind::kPassed, kBegin.size(), {}};
      case Place::kName:
        return name(text);
      case Place::kCallEnd:
        if (text.empty()) return {};
        place_ = Place::kBehind;
        return {Kind::kCallEnd, 1, {}};
      case Place::kBehind:
        return behind(text, is_last);
      case Place::kBroken:
        return pass_over(text, is_last);
      default:
        return arguments(text, is_last);
    }
  }

 private:
  enum class Place : uint8_t {
    kOpen,
    kName,
    kKey,  // or the end of the object
    kColon,
    kValue,  // or the end of the list
    kText,   // between quotes
    kJsonText,
    kAfterValue,
    kCallEnd,
    kBehind,
    kBroken,
  };

  CallStep name(std::string_view text) {
    const size_t blanks = leading_blanks(text);
    const std::string_view rest = text.substr(blanks);
    if (rest.size() < kCall.size() && kCall.starts_with(rest)) return {};
    if (!rest.starts_with(kCall)) return {Kind::kNoCall, 0, {}};
    const size_t end = rest.find('{');
    const std::string_view written = rest.substr(0, end).substr(kCall.size());
    if (written.find_first_of("<>}\n") != std::string_view::npos || written.size() > kMaxName)
      return {Kind::kNoCall, 0, {}};
    if (end == std::string_view::npos) return {};
    place_ = Place::kKey;
    opened_ = "{";
    is_first_ = true;
    pending_ = "{";
    return {Kind::kName, blanks + end + 1, std::string(trimmed(written))};
  }

  // Reads on as far as the text is understood, up to the brace that closes the arguments.
  CallStep arguments(std::string_view text, bool is_last) {
    std::string out = std::exchange(pending_, {});
    size_t used = 0;
    while (used < text.size() && place_ != Place::kCallEnd && place_ != Place::kBroken) {
      const std::string_view rest = text.substr(used);
      const size_t n = read_piece(rest, is_last, out);
      used += n;
      if (n == 0 && place_ != Place::kCallEnd && place_ != Place::kBroken) break;
    }
    if (!out.empty()) return {Kind::kArguments, used, std::move(out)};
    if (place_ == Place::kBroken) return {Kind::kBroken, used, {}};
    return {used == 0 ? Kind::kMore : Kind::kPassed, used, {}};
  }

  // returns: bytes used; 0: needs more, or the place changed to one that is not of the arguments.
  size_t read_piece(std::string_view text, bool is_last, std::string& out) {
    if (place_ == Place::kText) return quoted(text, is_last, out);
    if (place_ == Place::kJsonText) return json_text(text, out);
    if (const size_t blanks = leading_blanks(text); blanks > 0) return blanks;
    const char c = text[0];
    switch (place_) {
      case Place::kKey:
        return c == '}' ? close(c, out) : key(text, out);
      case Place::kColon:
        if (c != ':') return broken();
        place_ = Place::kValue;
        return 1;
      case Place::kValue:
        return c == ']' && opened_.back() == '[' ? close(c, out) : value(text, out);
      default:  // kAfterValue
        if (c != ',') return close(c, out);
        place_ = opened_.back() == '{' ? Place::kKey : Place::kValue;
        return 1;
    }
  }

  size_t broken() {
    place_ = Place::kBroken;
    return 0;
  }

  size_t open(char c, std::string& out) {
    out += c;
    opened_ += c;
    is_first_ = true;
    place_ = c == '{' ? Place::kKey : Place::kValue;
    return 1;
  }

  size_t close(char c, std::string& out) {
    if (c != (opened_.back() == '{' ? '}' : ']')) return broken();
    out += c;
    opened_.pop_back();
    is_first_ = false;
    place_ = opened_.empty() ? Place::kCallEnd : Place::kAfterValue;
    return opened_.empty() ? 0 : 1;  // the last brace stays for the end of the call
  }

  // Keys are bare, or quoted like text.
  size_t key(std::string_view text, std::string& out) {
    if (text.size() < kQuote.size() && kQuote.starts_with(text)) return 0;
    size_t begin = 0, end = 0, used = 0;
    if (text.starts_with(kQuote)) {
      begin = kQuote.size();
      end = text.find(kQuote, begin);
      used = end + kQuote.size();
    } else if (text[0] == '"') {
      begin = 1;
      end = text.find('"', begin);
      used = end + 1;
    } else {
      used = end = text.find(':');
      if (text.substr(0, end).find_first_of("<>{}[],\n") != std::string_view::npos) return broken();
    }
    if (end == std::string_view::npos) return 0;
    out += (is_first_ ? "" : ", ") + json_quoted(trimmed(text.substr(begin, end - begin))) + ": ";
    is_first_ = false;
    place_ = Place::kColon;
    return used;
  }

  size_t value(std::string_view text, std::string& out) {
    if (text.size() < kQuote.size() && kQuote.starts_with(text)) return 0;
    const char c = text[0];
    if (c == '{' || c == '[' || c == '"' || text.starts_with(kQuote)) {
      begin_item(out);
      if (c == '{' || c == '[') return open(c, out);
      out += '"';
      place_ = c == '"' ? Place::kJsonText : Place::kText;
      return c == '"' ? 1 : kQuote.size();
    }
    const size_t end = text.find_first_of(",]}");
    const std::string_view bare = trimmed(text.substr(0, end));
    if (bare.find('<') != std::string_view::npos) return broken();
    if (end == std::string_view::npos) return 0;
    if (bare.empty()) return broken();
    begin_item(out);
    out += json_of_text(bare, kJsonAny);
    place_ = Place::kAfterValue;
    return end;
  }

  // The comma between the members of a list; those of objects have it in front of their keys.
  void begin_item(std::string& out) {
    if (opened_.back() == '[' && !is_first_) out += ", ";
    is_first_ = false;
  }

  size_t quoted(std::string_view text, bool is_last, std::string& out) {
    const size_t end = text.find(kQuote);
    const size_t held = is_last ? 0 : partial_match(text, kQuote);
    const size_t size = end == std::string_view::npos ? text.size() - held : end;
    out += json_escaped(text.substr(0, size));
    if (end == std::string_view::npos) return size;
    out += '"';
    place_ = Place::kAfterValue;
    return end + kQuote.size();
  }

  // Some write JSON's quotes. Escapes stay as they are, line breaks become some.
  size_t json_text(std::string_view text, std::string& out) {
    if (text[0] == '\\') {
      if (text.size() < 2) return 0;
      out += text.substr(0, 2);
      return 2;
    }
    if (text[0] == '"') {
      out += '"';
      place_ = Place::kAfterValue;
      return 1;
    }
    const size_t size = std::min(text.find_first_of("\\\""), text.size());
    out += json_escaped(text.substr(0, size));
    return size;
  }

  CallStep behind(std::string_view text, bool is_last) {
    const size_t blanks = leading_blanks(text);
    const std::string_view rest = text.substr(blanks);
    if (rest.starts_with(kEnd)) return {Kind::kBlockEnd, blanks + kEnd.size(), {}};
    if (!kEnd.starts_with(rest)) return {Kind::kBlockEnd, blanks, {}};
    if (is_last) return {Kind::kBlockEnd, text.size(), {}};
    return {};
  }

  CallStep pass_over(std::string_view text, bool is_last) {
    const size_t end = text.find(kEnd);
    if (end != std::string_view::npos) return {Kind::kBlockEnd, end + kEnd.size(), {}};
    if (is_last) return {Kind::kBlockEnd, text.size(), {}};
    const size_t passed = text.size() - partial_match(text, kEnd);
    return {passed == 0 ? Kind::kMore : Kind::kBroken, passed, {}};
  }

  Place place_ = Place::kOpen;
  std::string opened_;    // braces and brackets that are open
  bool is_first_ = true;  // the next member of the innermost one
  std::string pending_;   // arguments not told yet
};

}  // namespace

std::unique_ptr<CallReader> make_gemma4_reader() {
  return std::make_unique<Gemma4Reader>();
}

}  // namespace dspark
