// Calls whose arguments stand between tags: Qwen3-Coder's and DeepSeek's DSML.

#include <algorithm>
#include <utility>

#include "constrain/call_reader.h"
#include "constrain/call_scanner.h"
#include "constrain/parameter_types.h"
#include "constrain/text_scan.h"

namespace dspark {
namespace {

using Kind = CallStep::Kind;
using Texts = std::vector<std::string_view>;

constexpr size_t kMaxName = 256;

struct TagNotation {
  Texts block_begins, block_ends;
  std::string_view call_begin, name_end, call_end;
  std::string_view key_begin, key_end, value_end;
  bool on_lines;  // a value begins and ends with a line break of its own
};

const TagNotation& qwen_notation() {
  static const TagNotation notation{{"<tool_call>"},
                                    {"</tool_call>"},
                                    "<function=",
                                    ">",
                                    "</function>",
                                    "<parameter=",
                                    ">",
                                    "</parameter>",
                                    true};
  return notation;
}

const TagNotation& dsml_notation() {
  static const TagNotation notation{{"<｜DSML｜function_calls>", "<｜DSML｜tool_calls>"},
                                    {"</｜DSML｜function_calls>", "</｜DSML｜tool_calls>"},
                                    "<｜DSML｜invoke name=\"",
                                    "\">",
                                    "</｜DSML｜invoke>",
                                    "<｜DSML｜parameter name=\"",
                                    ">",
                                    "</｜DSML｜parameter>",
                                    false};
  return notation;
}

bool begins_one(std::string_view text, const Texts& wanted) {
  return std::any_of(wanted.begin(), wanted.end(), [&](std::string_view w) { return text.starts_with(w); });
}
bool may_become_one(std::string_view text, const Texts& wanted) {
  return std::any_of(wanted.begin(), wanted.end(), [&](std::string_view w) { return w.starts_with(text); });
}

enum class Answer : uint8_t { kNo, kYes, kNotYet };

// Whether one of `wanted` comes next, behind blanks. At the end of the text its beginning is enough.
Answer goes_on_with(std::string_view text, const Texts& wanted, bool is_last) {
  text.remove_prefix(leading_blanks(text));
  if (begins_one(text, wanted)) return Answer::kYes;
  if (!may_become_one(text, wanted)) return Answer::kNo;
  return is_last ? Answer::kYes : Answer::kNotYet;
}

class TagReader final : public CallReader {
 public:
  TagReader(const TagNotation& notation, const std::vector<ToolDescription>& tools)
      : notation_(notation), tools_(tools) {
    in_call_ = notation.block_ends;
    in_call_.insert(in_call_.end(), {notation.key_begin, notation.call_end});
    between_ = notation.block_ends;
    between_.push_back(notation.call_begin);
  }

  CallStep next(std::string_view text, bool is_last) override {
    switch (place_) {
      case Place::kOpen:
        return open(text);
      case Place::kBetween:
        return between(text, is_last);
      case Place::kName:
        return name(text);
      case Place::kInCall:
        return in_call(text);
      case Place::kKey:
        return key(text);
      case Place::kValue:
        return value(text, is_last);
      case Place::kCallEnd:
        place_ = Place::kBetween;
        return {Kind::kCallEnd, text.starts_with(notation_.call_end) ? notation_.call_end.size() : 0, {}};
      case Place::kBroken:
        return pass_over(text, is_last);
    }
    return {};
  }

 private:
  enum class Place : uint8_t { kOpen, kBetween, kName, kInCall, kKey, kValue, kCallEnd, kBroken };

  CallStep open(std::string_view text) {
    for (std::string_view begin : notation_.block_begins) {
      if (!text.starts_with(begin)) continue;
      place_ = Place::kBetween;
      return {Kind::kPassed, begin.size(), {}};
    }
    place_ = Place::kName;
    return {Kind::kPassed, notation_.call_begin.size(), {}};
  }

  CallStep between(std::string_view text, bool is_last) {
    const size_t blanks = leading_blanks(text);
    const std::string_view rest = text.substr(blanks);
    if (rest.starts_with(notation_.call_begin)) {
      place_ = Place::kName;
      return {Kind::kPassed, blanks + notation_.call_begin.size(), {}};
    }
    const bool may_go_on = may_become_one(rest, between_);
    if (may_go_on && !is_last) return {};
    if (!has_call_) return {Kind::kNoCall, 0, {}};
    if (may_go_on) return {Kind::kBlockEnd, text.size(), {}};  // the end tag was cut off
    for (std::string_view end : notation_.block_ends) {
      if (rest.starts_with(end)) return {Kind::kBlockEnd, blanks + end.size(), {}};
    }
    return {Kind::kBlockEnd, blanks, {}};
  }

  CallStep name(std::string_view text) {
    const size_t end = text.find(notation_.name_end);
    const std::string_view written = text.substr(0, end);
    const size_t held = end == std::string_view::npos ? partial_match(text, notation_.name_end) : 0;
    if (written.find_first_of("<\n") != std::string_view::npos || written.size() - held > kMaxName)
      return {Kind::kNoCall, 0, {}};
    if (end == std::string_view::npos) return {};
    const std::string call_name(trimmed(written));
    types_ = ParameterTypes();
    for (const ToolDescription& tool : tools_) {
      if (tool.name == call_name) types_ = ParameterTypes(tool.parameters);
    }
    place_ = Place::kInCall;
    has_call_ = true;
    has_key_ = false;
    return {Kind::kName, end + notation_.name_end.size(), call_name};
  }

  CallStep in_call(std::string_view text) {
    const size_t blanks = leading_blanks(text);
    const std::string_view rest = text.substr(blanks);
    if (rest.starts_with(notation_.key_begin)) {
      place_ = Place::kKey;
      return {Kind::kPassed, blanks + notation_.key_begin.size(), {}};
    }
    if (begins_one(rest, in_call_)) {
      place_ = Place::kCallEnd;
      return {Kind::kArguments, blanks, has_key_ ? "}" : "{}"};
    }
    if (may_become_one(rest, in_call_)) return {};
    return broken();
  }

  CallStep key(std::string_view text) {
    const size_t end = text.find(notation_.key_end);
    const std::string_view head = text.substr(0, end);
    if (head.find('\n') != std::string_view::npos || head.size() > kMaxName) return broken();
    if (end == std::string_view::npos) return {};
    // DSML says behind the name whether the value is text; what says nothing is typed by the schema.
    const size_t quote = notation_.on_lines ? head.size() : std::min(head.find('"'), head.size());
    const std::string key_name(trimmed(head.substr(0, quote)));
    const std::string_view attributes = head.substr(quote);
    value_types_ = types_.of(key_name);
    if (attributes.find("string=\"true\"") != std::string_view::npos) value_types_ = kJsonString;
    if (attributes.find("string=\"false\"") != std::string_view::npos) value_types_ = kJsonAny & ~kJsonString;
    place_ = Place::kValue;
    at_start_ = true;
    value_.clear();
    std::string out = std::exchange(has_key_, true) ? ", " : "{";
    out += json_quoted(key_name) + ": ";
    if (is_text()) out += '"';
    return {Kind::kArguments, end + notation_.key_end.size(), std::move(out)};
  }

  bool is_text() const { return value_types_ == kJsonString; }

  // Where a value ends, and how much of the text is certain to belong to it.
  struct ValueEnd {
    bool is_found = false;
    size_t value = 0;
    size_t used = 0;
  };
  // A closing tag counts only where the call goes on behind it as it must: values may hold such tags.
  ValueEnd find_end(std::string_view text, bool is_last) const {
    for (size_t at = text.find('<'); at != std::string_view::npos; at = text.find('<', at + 1)) {
      const std::string_view rest = text.substr(at);
      Answer answer = Answer::kNo;
      size_t used = at;
      if (rest.starts_with(notation_.value_end)) {
        used = at + notation_.value_end.size();
        answer = goes_on_with(text.substr(used), in_call_, is_last);
      } else if (rest.starts_with(notation_.call_end)) {  // the value's own tag was forgotten
        answer = goes_on_with(rest.substr(notation_.call_end.size()), notation_.block_ends, is_last);
      } else if (!is_last &&
                 (notation_.value_end.starts_with(rest) || notation_.call_end.starts_with(rest))) {
        answer = Answer::kNotYet;
      }
      if (answer == Answer::kYes) return {true, at, used};
      if (answer == Answer::kNotYet) return {false, at, at};
    }
    return {false, text.size(), text.size()};
  }

  CallStep value(std::string_view text, bool is_last) {
    if (text.empty()) return {};
    const bool skips_line = at_start_ && notation_.on_lines && text[0] == '\n';
    at_start_ = false;
    const size_t begin = skips_line ? 1 : 0;
    ValueEnd end = find_end(text.substr(begin), is_last);
    std::string_view body = text.substr(begin, end.value);
    if (notation_.on_lines && body.ends_with('\n') && (end.is_found || !is_last)) {
      // Perhaps the line break before the tag.
      body.remove_suffix(1);
      if (!end.is_found) --end.used;
    }
    std::string out;
    if (is_text()) {
      out = json_escaped(body);
      if (end.is_found) out += '"';
    } else {
      value_ += body;
      if (end.is_found) out = json_of_text(value_, value_types_);
    }
    if (end.is_found) place_ = Place::kInCall;
    const size_t used = begin + end.used;
    if (out.empty()) return {used == 0 ? Kind::kMore : Kind::kPassed, used, {}};
    return {Kind::kArguments, used, std::move(out)};
  }

  CallStep broken() {
    place_ = Place::kBroken;
    return {Kind::kBroken, 0, {}};
  }

  CallStep pass_over(std::string_view text, bool is_last) {
    size_t at = text.find(notation_.call_end), held = partial_match(text, notation_.call_end);
    size_t size = notation_.call_end.size();
    for (std::string_view end : notation_.block_ends) {
      const size_t found = text.find(end);
      if (found < at) at = found, size = 0;
      held = std::max(held, partial_match(text, end));
    }
    if (at != std::string_view::npos) {
      place_ = Place::kBetween;
      return {Kind::kBroken, at + size, {}};
    }
    if (is_last) return {Kind::kBlockEnd, text.size(), {}};
    if (held == text.size()) return {};
    return {Kind::kBroken, text.size() - held, {}};
  }

  const TagNotation& notation_;
  const std::vector<ToolDescription>& tools_;
  Texts in_call_, between_;  // what may come next
  Place place_ = Place::kOpen;
  ParameterTypes types_;  // of the call in hand
  JsonTypes value_types_ = kJsonAny;
  std::string value_;      // so far, when its type is not known before it is complete
  bool at_start_ = false;  // of the value
  bool has_call_ = false;  // in this block
  bool has_key_ = false;   // in this call
};

}  // namespace

std::unique_ptr<CallReader> make_tag_reader(bool dsml, const std::vector<ToolDescription>& tools) {
  return std::make_unique<TagReader>(dsml ? dsml_notation() : qwen_notation(), tools);
}

}  // namespace dspark
