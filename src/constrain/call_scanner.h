#pragma once
// Reads one tool call while it is written: a JSON object, or a Python call.

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace dspark {

/// {"name": "f", "arguments": {...}} byte by byte, in any order of members; "parameters" is read like
/// "arguments", other members are passed over.
class CallScanner {
 public:
  enum class State : uint8_t { kRunning, kDone, kBad };

  /// requires: the scanner is running.
  State feed(char byte);
  State state() const { return state_; }
  bool has_name() const { return has_name_; }
  const std::string& name() const { return name_; }
  bool has_arguments() const { return has_arguments_; }
  /// The last value read was the arguments', and it is complete.
  bool arguments_complete() const { return place_ == Place::kAfterValue && member_ == Member::kArguments; }
  /// Arguments read since the last call. requires: has_name().
  std::string take_arguments();

 private:
  enum class Place : uint8_t { kStart, kKeyOrEnd, kKey, kInKey, kColon, kValue, kInValue, kAfterValue };
  enum class Member : uint8_t { kName, kArguments, kOther };

  State bad() { return state_ = State::kBad; }
  State between(char byte);
  State in_value(char byte);
  void begin_value(char byte);
  bool end_value();

  State state_ = State::kRunning;
  Place place_ = Place::kStart;
  Member member_ = Member::kOther;
  std::string raw_;        // the key or value in hand, as written
  std::string arguments_;  // not taken yet
  std::string name_;
  int depth_ = 0;
  bool in_string_ = false, escaped_ = false, is_scalar_ = false;
  bool has_name_ = false, has_arguments_ = false;
};

/// f(a=1, b="x", c=[True, None]) -> name and arguments as JSON.
struct PythonCall {
  std::string name;
  std::string arguments;
};
/// Nothing: not (only) a call of literals by keyword.
std::optional<PythonCall> parse_python_call(std::string_view text);

/// The calls that a text consists of: JSON (an object or a list, as CallScanner reads it), or Python: f(...),
/// f.call(...), print(f(...)), [f(...), g(...)]. Empty: it is something else.
std::vector<PythonCall> read_calls(std::string_view text);

/// `text` as JSON when it is JSON or a literal of Python.
std::optional<std::string> literal_as_json(std::string_view text);

/// `text` as a JSON string, quotes included.
std::string json_quoted(std::string_view text);
/// What stands between the quotes: `text` may be a piece of it, cut anywhere.
std::string json_escaped(std::string_view text);

}  // namespace dspark
