#include "constrain/call_scanner.h"

#include <cctype>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <utility>

#include "constrain/text_scan.h"

namespace dspark {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kMaxDepth = 200;

bool is_space(char c) {
  return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

// Literals of Python as JSON.
class PythonReader {
 public:
  explicit PythonReader(std::string_view text) : text_(text) {}

  std::optional<PythonCall> call() {
    PythonCall found;
    skip();
    found.name = name();
    while (!found.name.empty() && peek() == '.') {
      ++pos_;
      found.name += "." + name();
    }
    if (found.name.empty() || !take('(')) return std::nullopt;
    Json arguments = Json::object();
    while (!take(')')) {
      if (!arguments.empty() && !take(',')) return std::nullopt;
      if (take(')')) break;
      skip();
      const std::string key = name();
      if (key.empty() || !take('=')) return std::nullopt;
      std::optional<Json> value = literal(0);
      if (!value) return std::nullopt;
      arguments[key] = std::move(*value);
    }
    skip();
    if (pos_ != text_.size()) return std::nullopt;
    found.arguments = arguments.dump(-1, ' ', false, Json::error_handler_t::replace);
    return found;
  }

  std::optional<std::string> whole_literal() {
    const std::optional<Json> value = literal(0);
    skip();
    if (!value || pos_ != text_.size()) return std::nullopt;
    return value->dump(-1, ' ', false, Json::error_handler_t::replace);
  }

 private:
  char peek() const { return pos_ < text_.size() ? text_[pos_] : '\0'; }
  void skip() {
    while (is_space(peek())) ++pos_;
  }
  bool take(char c) {
    skip();
    if (peek() != c) return false;
    ++pos_;
    return true;
  }
  std::string name() {
    const size_t begin = pos_;
    while (std::isalnum(static_cast<uint8_t>(peek())) != 0 || peek() == '_') ++pos_;
    return std::string(text_.substr(begin, pos_ - begin));
  }

  std::optional<Json> literal(int depth) {
    if (depth > kMaxDepth) return std::nullopt;
    skip();
    const char c = peek();
    if (c == '"' || c == '\'') return string();
    if (c == '[' || c == '(') return list(depth);
    if (c == '{') return dictionary(depth);
    const size_t begin = pos_;
    while (std::isalnum(static_cast<uint8_t>(peek())) != 0 || peek() == '_' || peek() == '.' ||
           peek() == '-' || peek() == '+') {
      ++pos_;
    }
    const std::string_view word = text_.substr(begin, pos_ - begin);
    if (word == "True" || word == "true") return Json(true);
    if (word == "False" || word == "false") return Json(false);
    if (word == "None" || word == "null") return Json(nullptr);
    Json number = Json::parse(word, nullptr, false);
    if (!number.is_number()) return std::nullopt;
    return number;
  }

  std::optional<Json> string() {
    const char quote = text_[pos_++];
    std::string value;
    while (peek() != quote) {
      if (pos_ >= text_.size()) return std::nullopt;
      char c = text_[pos_++];
      if (c == '\\' && pos_ < text_.size()) {
        c = text_[pos_++];
        c = c == 'n' ? '\n' : c == 't' ? '\t' : c == 'r' ? '\r' : c;
      }
      value += c;
    }
    ++pos_;
    return Json(std::move(value));
  }

  std::optional<Json> list(int depth) {
    const char close = text_[pos_++] == '[' ? ']' : ')';
    Json values = Json::array();
    while (!take(close)) {
      if (!values.empty() && !take(',')) return std::nullopt;
      if (take(close)) break;
      std::optional<Json> value = literal(depth + 1);
      if (!value) return std::nullopt;
      values.push_back(std::move(*value));
    }
    return values;
  }

  std::optional<Json> dictionary(int depth) {
    ++pos_;
    Json values = Json::object();
    while (!take('}')) {
      if (!values.empty() && !take(',')) return std::nullopt;
      if (take('}')) break;
      const std::optional<Json> key = literal(depth + 1);
      if (!key || !key->is_string() || !take(':')) return std::nullopt;
      std::optional<Json> value = literal(depth + 1);
      if (!value) return std::nullopt;
      values[key->get<std::string>()] = std::move(*value);
    }
    return values;
  }

  std::string_view text_;
  size_t pos_ = 0;
};

std::vector<PythonCall> json_calls(std::string_view text) {
  std::vector<PythonCall> calls;
  const Json json = Json::parse(text, nullptr, false);
  const Json list = json.is_array() ? json : Json::array({json});
  for (const Json& item : list) {
    if (!item.is_object() || !item.contains("name") || !item["name"].is_string()) return {};
    const char* key = item.contains("arguments") ? "arguments" : "parameters";
    if (!item.contains(key)) return {};
    calls.push_back(
        {item["name"].get<std::string>(), item[key].dump(-1, ' ', false, Json::error_handler_t::replace)});
  }
  return calls;
}

std::vector<PythonCall> python_calls(std::string_view text) {
  if (text.starts_with("print(") && text.ends_with(")")) text = text.substr(6, text.size() - 7);
  if (text.starts_with("[") && text.ends_with("]")) text = trimmed(text.substr(1, text.size() - 2));
  std::vector<PythonCall> calls;
  while (!text.empty()) {
    // The shortest piece up to a ')' that is a call.
    std::optional<PythonCall> call;
    size_t end = text.find(')');
    for (int tries = 0; end != std::string_view::npos && tries < 64; end = text.find(')', end + 1), ++tries) {
      call = parse_python_call(text.substr(0, end + 1));
      if (call) break;
    }
    if (!call) return {};
    if (call->name.ends_with(".call")) call->name.resize(call->name.size() - 5);
    calls.push_back(std::move(*call));
    text = trimmed(text.substr(end + 1));
    if (!text.empty() && text[0] == ',') text = trimmed(text.substr(1));
  }
  return calls;
}

}  // namespace

std::vector<PythonCall> read_calls(std::string_view text) {
  text = trimmed(text);
  std::vector<PythonCall> calls = json_calls(text);
  return calls.empty() ? python_calls(text) : calls;
}

std::string CallScanner::take_arguments() {
  return std::exchange(arguments_, {});
}

CallScanner::State CallScanner::feed(char byte) {
  if (place_ == Place::kInKey || (place_ == Place::kInValue && in_string_)) {
    // Inside a string nothing but its end matters.
    raw_ += byte;
    if (place_ == Place::kInValue && member_ == Member::kArguments && depth_ > 0) arguments_ += byte;
    if (escaped_) {
      escaped_ = false;
    } else if (byte == '\\') {
      escaped_ = true;
    } else if (byte == '"') {
      in_string_ = false;
      if (place_ == Place::kInKey) {
        const Json key = Json::parse(raw_, nullptr, false);
        if (!key.is_string()) return bad();
        const auto text = key.get<std::string>();
        member_ = text == "name"                                ? Member::kName
                  : text == "arguments" || text == "parameters" ? Member::kArguments
                                                                : Member::kOther;
        place_ = Place::kColon;
      } else if (depth_ == 0 && !end_value()) {
        return bad();
      }
    }
    return state_;
  }
  return place_ == Place::kInValue ? in_value(byte) : between(byte);
}

CallScanner::State CallScanner::between(char byte) {
  if (is_space(byte)) return state_;
  switch (place_) {
    case Place::kStart:
      if (byte != '{') return bad();
      place_ = Place::kKeyOrEnd;
      return state_;
    case Place::kKeyOrEnd:
      if (byte == '}') return state_ = State::kDone;
      [[fallthrough]];
    case Place::kKey:
      if (byte != '"') return bad();
      place_ = Place::kInKey;
      raw_ = "\"";
      escaped_ = false;
      return state_;
    case Place::kColon:
      if (byte != ':') return bad();
      place_ = Place::kValue;
      return state_;
    case Place::kValue:
      begin_value(byte);
      return state_;
    default:  // kAfterValue
      if (byte == ',') {
        place_ = Place::kKey;
        return state_;
      }
      return state_ = byte == '}' ? State::kDone : State::kBad;
  }
}

void CallScanner::begin_value(char byte) {
  place_ = Place::kInValue;
  raw_ = byte;
  depth_ = byte == '{' || byte == '[' ? 1 : 0;
  in_string_ = byte == '"';
  escaped_ = false;
  is_scalar_ = depth_ == 0 && !in_string_;
  if (member_ != Member::kArguments) return;
  has_arguments_ = true;
  if (!in_string_) arguments_ += byte;
}

CallScanner::State CallScanner::in_value(char byte) {
  if (is_scalar_ && (is_space(byte) || byte == ',' || byte == '}')) {
    if (!end_value()) return bad();
    return between(byte);
  }
  raw_ += byte;
  if (member_ == Member::kArguments) arguments_ += byte;
  if (is_scalar_) return state_;
  if (byte == '"') {
    in_string_ = true;
  } else if (byte == '{' || byte == '[') {
    ++depth_;
  } else if ((byte == '}' || byte == ']') && --depth_ == 0 && !end_value()) {
    return bad();
  }
  return state_;
}

/// The value in hand is complete. returns: false when it cannot be the member's.
bool CallScanner::end_value() {
  place_ = Place::kAfterValue;
  const bool is_string = raw_.front() == '"';
  if (member_ == Member::kName) {
    const Json value = Json::parse(raw_, nullptr, false);
    if (!value.is_string()) return false;
    name_ = value.get<std::string>();
    has_name_ = true;
  } else if (member_ == Member::kArguments && is_string) {
    // Some models write the arguments as a string of JSON.
    const Json value = Json::parse(raw_, nullptr, false);
    if (!value.is_string()) return false;
    arguments_ += value.get<std::string>();
  }
  return true;
}

std::optional<PythonCall> parse_python_call(std::string_view text) {
  return PythonReader(text).call();
}

std::optional<std::string> literal_as_json(std::string_view text) {
  if (Json::accept(text)) return std::string(text);
  return PythonReader(text).whole_literal();
}

std::string json_escaped(std::string_view text) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string out;
  for (char c : text) {
    const auto code = static_cast<uint8_t>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (code < 0x20) {
      out += "\\u00";
      out += kDigits[code >> 4];
      out += kDigits[code & 15];
    } else {
      out += c;
    }
  }
  return out;
}

std::string json_quoted(std::string_view text) {
  return Json(std::string(text)).dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace dspark
