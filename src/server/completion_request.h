#pragma once
// Bodies of /v1/chat/completions and /v1/completions, read and checked. No model in here: prompts stay texts.

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "engine/request.h"
#include "server/api_error.h"

namespace dspark {

/// Most answers (prompts times n) of one request.
inline constexpr int64_t kMaxChoices = 128;

/// Which interface a request came by: OpenAI's chat, completions and responses, Anthropic's messages.
enum class ApiKind : uint8_t { kChat, kCompletion, kResponses, kMessages };

/// What the text must look like.
struct ResponseFormat {
  enum class Kind : uint8_t { kText, kJsonObject, kJsonSchema, kGrammar };
  Kind kind = Kind::kText;
  std::string source;                     // kJsonSchema: the schema; kGrammar: GBNF
  bool whole_text = false;                // kGrammar: reasoning is a part of what it holds
  std::string field = "response_format";  // of the body, that asks for the format
};

struct CompletionRequest {
  ApiKind kind = ApiKind::kChat;
  std::string model;                                              // empty: the only one
  std::shared_ptr<const nlohmann::ordered_json> messages;         // chat: an array
  std::shared_ptr<const nlohmann::ordered_json> tools;            // chat: an array, or null
  std::shared_ptr<const nlohmann::ordered_json> template_fields;  // chat: chat_template_kwargs, or null
  /// "auto", "none", "required", or a function's name behind "=".
  std::string tool_choice = "auto";
  std::vector<std::string> schema_places;  // of each of the tools: where the body has its schema
  bool parallel_tool_calls = true;         // chat: an answer may have several calls
  std::vector<std::string> custom_tools;   // responses: names of the tools that take plain text
  std::vector<std::variant<std::string, std::vector<int32_t>>> prompts;  // completions: texts or ids
  GenerateRequest generate;                                              // everything but the prompt
  bool has_seed = false;
  bool has_max_tokens = false;
  int32_t n = 1;
  bool stream = false;
  bool include_usage = false;  // stream_options.include_usage
  bool logprobs = false;
  bool echo = false;   // completions: the prompt's text in front of the answer
  bool trace = false;  // dspark_trace
  ResponseFormat format;
};

/// What a request gets for the sampling fields that it leaves out.
struct SamplingDefaults {
  float temperature = 0.8f;
  int32_t top_k = 40;
  float top_p = 0.95f;
  float min_p = 0.05f;
};

/// Reads a body. errors: 400 naming the field. Unknown fields are ignored, but for those of refused_fields.h.
ApiError parse_completion(std::string_view body, ApiKind kind, const SamplingDefaults& defaults,
                          CompletionRequest& out);

/// Reads a body of /v1/responses or /v1/messages: translated to the fields of a chat. errors: as above.
ApiError parse_responses(std::string_view body, const SamplingDefaults& defaults, CompletionRequest& out);
ApiError parse_messages(std::string_view body, const SamplingDefaults& defaults, CompletionRequest& out);
/// Reads a body of /v1/messages/count_tokens: as one of /v1/messages, but for any conversation, while one to
/// be answered ends with a user's turn.
ApiError parse_token_count(std::string_view body, const SamplingDefaults& defaults, CompletionRequest& out);

/// As parse_completion, from JSON that was read before. requires: an object.
ApiError read_completion(const nlohmann::ordered_json& body, ApiKind kind, const SamplingDefaults& defaults,
                         CompletionRequest& out);

/// Checks messages of a chat (roles, contents, tool calls) and brings contents to what templates expect:
/// parts of type "text" are joined. errors: 400 naming messages[i].field.
ApiError check_messages(nlohmann::ordered_json& messages);

}  // namespace dspark
