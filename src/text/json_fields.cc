#include "text/json_fields.h"

#include <nlohmann/json.hpp>

namespace dspark {

using nlohmann::json;

const json* json_member(const json& node, const char* key) {
  if (!node.is_object()) return nullptr;
  const auto it = node.find(key);
  return it == node.end() ? nullptr : &*it;
}

std::optional<std::string> json_string(const json& node, const char* key) {
  const json* member = json_member(node, key);
  if (member == nullptr || !member->is_string()) return std::nullopt;
  return member->get<std::string>();
}

std::optional<bool> json_bool(const json& node, const char* key) {
  const json* member = json_member(node, key);
  if (member == nullptr || !member->is_boolean()) return std::nullopt;
  return member->get<bool>();
}

Result<int32_t> json_token_id(const json& node, const Vocab& vocab, const std::string& place) {
  const bool integer = node.is_number_integer();
  if (integer && vocab.contains(node.get<int64_t>())) return static_cast<int32_t>(node.get<int64_t>());
  return corrupt_data(place + ": expected a token id below " + std::to_string(vocab.size()) + ", found " +
                      (integer ? node.dump() : std::string("a value of type ") + node.type_name()));
}

}  // namespace dspark
