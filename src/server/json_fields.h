#pragma once
// Reading the fields of a request body: types and ranges checked, the first error kept with the field's name.

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/api_error.h"

namespace dspark {

/// Deepest nesting of a request body.
inline constexpr int kMaxJsonDepth = 64;

/// Whether JSON text is nested deeper than kMaxJsonDepth: later stages would recurse as deep.
bool nested_too_deep(std::string_view text);
/// The body as a JSON object. errors: 400: not JSON, not an object, nested too deep.
ApiError parse_body(std::string_view body, nlohmann::ordered_json& out);

/// Getters return nothing when the field is absent or null, or after an error (see error()).
class JsonFields {
 public:
  /// prefix: path of the object inside the body, e.g. "stream_options."; requires: `object` is an object and
  /// outlives this.
  explicit JsonFields(const nlohmann::ordered_json& object, std::string prefix = {})
      : object_(object), prefix_(std::move(prefix)) {}

  const ApiError& error() const { return error_; }
  bool ok() const { return error_.ok(); }
  /// Keeps the first error.
  void fail(std::string_view field, const std::string& message);

  /// The field, whatever its type; null when absent or JSON null.
  const nlohmann::ordered_json* find(std::string_view field) const;
  std::optional<bool> boolean(std::string_view field);
  std::optional<int64_t> integer(std::string_view field, int64_t least, int64_t most);
  std::optional<double> number(std::string_view field, double least, double most);
  std::optional<std::string> string(std::string_view field);
  const nlohmann::ordered_json* object(std::string_view field);
  const nlohmann::ordered_json* array(std::string_view field);
  /// A string or an array of strings.
  std::optional<std::vector<std::string>> strings(std::string_view field, size_t most);

 private:
  const nlohmann::ordered_json* typed(std::string_view field, bool matches_type, const char* wanted);
  const nlohmann::ordered_json& object_;
  std::string prefix_;
  ApiError error_;
};

/// "a string", "an object", ... for messages.
const char* json_kind(const nlohmann::ordered_json& value);

}  // namespace dspark
