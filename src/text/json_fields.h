#pragma once
// Look-ups in JSON nodes that may have any shape.

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "base/status.h"
#include "text/vocab.h"

namespace dspark {

/// Member of an object, or nullptr (also when `node` is no object).
const nlohmann::json* json_member(const nlohmann::json& node, const char* key);
/// Typed members; nothing when absent or of another type.
std::optional<std::string> json_string(const nlohmann::json& node, const char* key);
std::optional<bool> json_bool(const nlohmann::json& node, const char* key);
/// A token id. errors: corrupt_data naming `place` when it is no integer or outside the vocabulary.
Result<int32_t> json_token_id(const nlohmann::json& node, const Vocab& vocab, const std::string& place);

}  // namespace dspark
