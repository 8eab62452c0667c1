#include "server/json_fields.h"

#include <cmath>
#include <cstdio>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

namespace dspark {
namespace {

using Json = nlohmann::ordered_json;

std::string range(const std::string& least, const std::string& most) {
  return "from " + least + " to " + most;
}

std::string shown(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%g", value);
  return text;
}

}  // namespace

const char* json_kind(const Json& value) {
  switch (value.type()) {
    case Json::value_t::null:
      return "null";
    case Json::value_t::object:
      return "an object";
    case Json::value_t::array:
      return "an array";
    case Json::value_t::string:
      return "a string";
    case Json::value_t::boolean:
      return "a boolean";
    default:
      return "a number";
  }
}

bool nested_too_deep(std::string_view text) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > kMaxJsonDepth) return true;
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return false;
}

ApiError parse_body(std::string_view body, Json& out) {
  if (nested_too_deep(body)) {
    return bad_field({}, "the body is nested deeper than " + std::to_string(kMaxJsonDepth) + " levels");
  }
  try {
    out = Json::parse(body.begin(), body.end());
  } catch (const Json::exception& error) {
    return bad_field({}, std::string("the body is not JSON: ") + error.what());
  }
  if (!out.is_object())
    return bad_field({}, std::string("the body: want an object, found ") + json_kind(out));
  return {};
}

void JsonFields::fail(std::string_view field, const std::string& message) {
  if (error_.ok()) error_ = bad_field(prefix_ + std::string(field), message);
}

const Json* JsonFields::find(std::string_view field) const {
  const auto it = object_.find(field);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

const Json* JsonFields::typed(std::string_view field, bool matches_type, const char* wanted) {
  const Json* value = find(field);
  if (value == nullptr || matches_type) return value;
  fail(field, std::string("want ") + wanted + ", found " + json_kind(*value));
  return nullptr;
}

std::optional<bool> JsonFields::boolean(std::string_view field) {
  const Json* value = find(field);
  value = typed(field, value != nullptr && value->is_boolean(), "a boolean");
  if (value == nullptr) return std::nullopt;
  return value->get<bool>();
}

std::optional<int64_t> JsonFields::integer(std::string_view field, int64_t least, int64_t most) {
  const Json* value = find(field);
  if (value == nullptr) return std::nullopt;
  const auto refuse = [&](const std::string& found) {
    fail(field, "want an integer " + range(std::to_string(least), std::to_string(most)) + ", found " + found);
    return std::nullopt;
  };
  if (!value->is_number()) return refuse(json_kind(*value));
  int64_t number = 0;
  if (value->is_number_float()) {
    // 3.0 is an integer for JSON's writers in some languages.
    const double real = value->get<double>();
    if (std::floor(real) != real || std::abs(real) > 1e18) return refuse(shown(real));
    number = static_cast<int64_t>(real);
  } else if (value->is_number_unsigned()) {
    // From 2^63 on it would come out negative.
    const auto whole = value->get<uint64_t>();
    if (whole > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
      return refuse(std::to_string(whole));
    number = static_cast<int64_t>(whole);
  } else {
    number = value->get<int64_t>();
  }
  if (number < least || number > most) return refuse(std::to_string(number));
  return number;
}

std::optional<double> JsonFields::number(std::string_view field, double least, double most) {
  const Json* value = find(field);
  value = typed(field, value != nullptr && value->is_number(), "a number");
  if (value == nullptr) return std::nullopt;
  const double real = value->get<double>();
  if (!(real >= least && real <= most)) {
    fail(field, "want a number " + range(shown(least), shown(most)) + ", found " + shown(real));
    return std::nullopt;
  }
  return real;
}

std::optional<std::string> JsonFields::string(std::string_view field) {
  const Json* value = find(field);
  value = typed(field, value != nullptr && value->is_string(), "a string");
  if (value == nullptr) return std::nullopt;
  return value->get<std::string>();
}

const Json* JsonFields::object(std::string_view field) {
  const Json* value = find(field);
  return typed(field, value != nullptr && value->is_object(), "an object");
}

const Json* JsonFields::array(std::string_view field) {
  const Json* value = find(field);
  return typed(field, value != nullptr && value->is_array(), "an array");
}

std::optional<std::vector<std::string>> JsonFields::strings(std::string_view field, size_t most) {
  const Json* value = find(field);
  if (value == nullptr) return std::nullopt;
  if (value->is_string()) return std::vector<std::string>{value->get<std::string>()};
  if (typed(field, value->is_array(), "a string or an array of strings") == nullptr) return std::nullopt;
  if (value->size() > most) {
    fail(field, "want at most " + std::to_string(most) + " strings, found " + std::to_string(value->size()));
    return std::nullopt;
  }
  std::vector<std::string> list;
  for (const Json& item : *value) {
    if (!item.is_string()) {
      fail(field, std::string("want an array of strings, found ") + json_kind(item) + " in it");
      return std::nullopt;
    }
    list.push_back(item.get<std::string>());
  }
  return list;
}

}  // namespace dspark
