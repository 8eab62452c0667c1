#pragma once
// Types of a tool's parameters, for notations that write values as plain text.

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace dspark {

/// Types of JSON, as bits.
using JsonTypes = uint8_t;
inline constexpr JsonTypes kJsonNull = 1, kJsonBoolean = 2, kJsonNumber = 4, kJsonString = 8, kJsonArray = 16,
                           kJsonObject = 32, kJsonAny = 63;

/// What types a schema of arguments allows each parameter: by type, enum, const, anyOf, oneOf, allOf,
/// nullable and references into the schema itself. What says nothing about the type allows any, and so does
/// what is left when references and alternatives lead to too many parts.
class ParameterTypes {
 public:
  /// schema: JSON text; anything else allows all.
  explicit ParameterTypes(std::string_view schema = {});
  JsonTypes of(const std::string& name) const;

 private:
  std::map<std::string, JsonTypes> known_;
  JsonTypes others_ = kJsonAny;
};

/// The same for one schema. root: what its references start from; definitions in it are followed. n_steps:
/// the parts looked at are added to it; once it is above max_steps, the rest is taken to allow any type.
JsonTypes types_in_schema(const nlohmann::json& schema, const nlohmann::json& root, int64_t& n_steps,
                          int64_t max_steps);

/// A value written as plain text -> JSON text. JSON and Python's literals are taken for what they are where
/// `types` allow it, or where `types` allow no string; all else is a string.
std::string json_of_text(std::string_view text, JsonTypes types);

}  // namespace dspark
