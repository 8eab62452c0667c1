#include "server/refused_fields.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace dspark {
namespace {

using Json = nlohmann::ordered_json;

bool is_empty(const Json& value) {
  if (value.is_string()) return value.get_ref<const std::string&>().empty();
  return value.is_array() && value.empty();
}

bool is_one(const Json& value) {
  return value.is_number() && value.get<double>() == 1.0;
}

bool calls_nothing(const Json& value) {
  return value == "none" || value == "auto";
}

bool is_text_alone(const Json& value) {
  return value.is_array() &&
         std::all_of(value.begin(), value.end(), [](const Json& item) { return item == "text"; });
}

struct RefusedField {
  ApiKind kind;
  const char* field;
  bool (*asks_for_nothing)(const Json& value);
  const char* why;
};

constexpr RefusedField kRefused[] = {
    {ApiKind::kCompletion, "suffix", is_empty, "this server continues texts only at their end; want none"},
    {ApiKind::kCompletion, "best_of", is_one,
     "every answer is sent, none is chosen; want 1, and n for several"},
    {ApiKind::kChat, "functions", is_empty, "this server knows their successor only; send tools"},
    {ApiKind::kChat, "function_call", calls_nothing,
     "this server knows its successor only; send tool_choice"},
    {ApiKind::kChat, "modalities", is_text_alone, "this server answers with text only; want [\"text\"]"}};

const Json* find(const Json& body, const char* field) {
  const auto it = body.find(field);
  return it == body.end() || it->is_null() ? nullptr : &*it;
}

}  // namespace

ApiError refuse_fields(const Json& body, ApiKind kind) {
  for (const RefusedField& refused : kRefused) {
    if (refused.kind != kind) continue;
    const Json* value = find(body, refused.field);
    // As many as are sent: none is left out.
    const Json* n = find(body, "n");
    if (value != nullptr && n != nullptr && std::string_view(refused.field) == "best_of" && *n == *value) {
      continue;
    }
    if (value != nullptr && !refused.asks_for_nothing(*value)) return bad_field(refused.field, refused.why);
  }
  if (kind != ApiKind::kCompletion) return {};
  // With both, clients read the log-probabilities of the prompt, which are not computed.
  const Json* echo = find(body, "echo");
  if (echo != nullptr && *echo == true && find(body, "logprobs") != nullptr) {
    return bad_field("echo", "excludes logprobs: this server tells none of the prompt's tokens");
  }
  return {};
}

}  // namespace dspark
