// Bodies of /v1/responses (OpenAI) and /v1/messages (Anthropic) as the fields of a chat. Stateless: nothing
// is stored between requests. Formats: platform.openai.com/docs/api-reference/responses,
// docs.anthropic.com/en/api/messages.

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "server/completion_request.h"
#include "server/json_fields.h"

namespace dspark {
namespace {

using Json = nlohmann::ordered_json;

// Fields that mean the same everywhere, dspark's own among them.
constexpr const char* kSharedFields[] = {"model",
                                         "stream",
                                         "temperature",
                                         "top_p",
                                         "top_k",
                                         "min_p",
                                         "seed",
                                         "speculation",
                                         "dspark_trace",
                                         "priority",
                                         "grammar",
                                         "grammar_scope",
                                         "presence_penalty",
                                         "frequency_penalty",
                                         "logit_bias",
                                         "repetition_penalty",
                                         "repeat_penalty",
                                         "chat_template_kwargs",
                                         "ignore_eos",
                                         "deadline_s"};

void copy_shared(const Json& body, Json& chat) {
  for (const char* name : kSharedFields) {
    if (const auto it = body.find(name); it != body.end()) chat[name] = *it;
  }
}

std::string text_of(const Json& object, const char* field) {
  const auto it = object.find(field);
  return it != object.end() && it->is_string() ? it->get<std::string>() : std::string();
}

bool is_text_part(const std::string& type) {
  return type == "text" || type == "input_text" || type == "output_text";
}

// Joins the texts of parts. errors: parts that are not text.
ApiError joined_text(const Json& content, const std::string& place, std::string& out) {
  if (content.is_string()) {
    out += content.get<std::string>();
    return {};
  }
  if (!content.is_array())
    return bad_field(place, std::string("want a string or parts, found ") + json_kind(content));
  for (const Json& part : content) {
    if (!part.is_object() || !is_text_part(text_of(part, "type"))) {
      return bad_field(place, "want parts of type text; this server takes text only");
    }
    out += text_of(part, "text");
  }
  return {};
}

Json call_json(std::string id, std::string name, const std::string& arguments) {
  return {{"id", std::move(id)},
          {"type", "function"},
          {"function", {{"name", std::move(name)}, {"arguments", arguments}}}};
}

// Calls belong to the assistant's turn before them, if there is one.
void add_call(Json& messages, Json call) {
  if (messages.empty() || messages.back()["role"] != "assistant") {
    messages.push_back({{"role", "assistant"}, {"content", ""}});
  }
  Json& turn = messages.back();
  if (!turn.contains("tool_calls")) turn["tool_calls"] = Json::array();
  turn["tool_calls"].push_back(std::move(call));
}

// Whether an error of the chat is about this field or a part of it.
bool is_about(const ApiError& error, const std::string& field) {
  if (!error.param.starts_with(field)) return false;
  const std::string rest = error.param.substr(field.size());
  return rest.empty() || rest[0] == '.' || rest[0] == '[';
}

// An error of the chat that a body was translated to, with the name that the body's interface has for the
// field.
ApiError renamed(ApiError error, const std::string& chat_field, const std::string& field) {
  if (!is_about(error, chat_field)) return error;
  const std::string prefix = error.param + ": ";
  if (error.message.starts_with(prefix)) error.message = field + ": " + error.message.substr(prefix.size());
  error.param = field;
  return error;
}

ApiError want_name(const Json& object, const std::string& place) {
  return text_of(object, "name").empty() ? bad_field(place + ".name", "want a string, found none")
                                         : ApiError();
}

// A format of answers as chats name it.
Json chat_format(const Json& format) {
  const std::string type = text_of(format, "type");
  Json out = {{"type", type}};
  if (type == "json_schema") out["json_schema"] = format;
  return out;
}

// Tools of both interfaces as those of chats. Types that are neither functions nor a client's own are left
// out: the model is not shown what the provider would run (web_search, ...), nor what only the provider's
// models know (local_shell, computer, ...).
struct ToolReader {
  const char* schema;                // the field with the schema of the arguments
  std::vector<std::string>* custom;  // names of tools that take plain text; null: there are none, and the
                                     // type "custom" is another word for functions
  std::vector<std::string>* places;  // of the schemas of those that are not left out

  ApiError read(const Json& tools, Json& out) const;
  ApiError read_text_tool(const Json& tool, const std::string& place, Json& function) const;
};

// The model is shown a function with one string.
ApiError ToolReader::read_text_tool(const Json& tool, const std::string& place, Json& function) const {
  const auto format = tool.find("format");
  if (format != tool.end() && !format->is_null() && text_of(*format, "type") != "text") {
    return bad_field(place + ".format", "want the type text; this server holds custom tools to no grammar");
  }
  function["parameters"] = {{"type", "object"},
                            {"properties", {{"input", {{"type", "string"}}}}},
                            {"required", Json::array({"input"})},
                            {"additionalProperties", false}};
  custom->push_back(text_of(tool, "name"));
  return {};
}

ApiError ToolReader::read(const Json& tools, Json& out) const {
  out = Json::array();
  for (size_t i = 0; i < tools.size(); ++i) {
    const Json& tool = tools[i];
    const std::string place = "tools[" + std::to_string(i) + "]";
    if (!tool.is_object()) return bad_field(place, std::string("want an object, found ") + json_kind(tool));
    const std::string type = text_of(tool, "type");
    if (!type.empty() && type != "function" && type != "custom") continue;
    if (ApiError error = want_name(tool, place); !error.ok()) return error;
    Json function = {{"name", text_of(tool, "name")}, {"description", text_of(tool, "description")}};
    if (const auto strict = tool.find("strict"); strict != tool.end() && !strict->is_null()) {
      if (!strict->is_boolean())
        return bad_field(place + ".strict", std::string("want a boolean, found ") + json_kind(*strict));
      function["strict"] = *strict;
    }
    if (type == "custom" && custom != nullptr) {
      if (ApiError error = read_text_tool(tool, place, function); !error.ok()) return error;
    } else if (const auto it = tool.find(schema); it != tool.end()) {
      function["parameters"] = *it;
    }
    out.push_back({{"type", "function"}, {"function", std::move(function)}});
    places->push_back(place + "." + schema);
  }
  return {};
}

// Responses.

ApiError add_call_item(const Json& item, bool is_custom, const std::string& place, Json& messages) {
  if (ApiError error = want_name(item, place); !error.ok()) return error;
  std::string arguments = text_of(item, "arguments");
  if (is_custom) {
    Json object = Json::object();
    object["input"] = text_of(item, "input");
    arguments = object.dump();
  }
  add_call(messages, call_json(text_of(item, "call_id"), text_of(item, "name"), arguments));
  return {};
}

ApiError add_result_item(const Json& item, const std::string& place, Json& messages) {
  if (!item.contains("output")) return bad_field(place + ".output", "want a string, found none");
  std::string text;
  if (ApiError error = joined_text(item["output"], place + ".output", text); !error.ok()) return error;
  messages.push_back({{"role", "tool"}, {"tool_call_id", text_of(item, "call_id")}, {"content", text}});
  return {};
}

ApiError add_message_item(const Json& item, const std::string& place, Json& messages) {
  const std::string role = text_of(item, "role");
  if (role != "user" && role != "assistant" && role != "system" && role != "developer")
    return bad_field(place + ".role", "want user, assistant, system or developer");
  if (!item.contains("content")) return bad_field(place + ".content", "want a string, found none");
  std::string text;
  if (ApiError error = joined_text(item["content"], place + ".content", text); !error.ok()) return error;
  messages.push_back({{"role", role}, {"content", text}});
  return {};
}

ApiError add_input_item(const Json& item, const std::string& place, Json& messages) {
  if (!item.is_object()) return bad_field(place, std::string("want an object, found ") + json_kind(item));
  const std::string type = text_of(item, "type");
  const bool is_custom = type == "custom_tool_call";
  if (is_custom || type == "function_call") return add_call_item(item, is_custom, place, messages);
  if (type == "function_call_output" || type == "custom_tool_call_output")
    return add_result_item(item, place, messages);
  if (type == "reasoning") return {};  // of earlier turns; templates leave it out
  if (type.empty() || type == "message") return add_message_item(item, place, messages);
  return bad_field(place + ".type",
                   "want message, reasoning, function_call, function_call_output, custom_tool_call or "
                   "custom_tool_call_output, found '" +
                       type.substr(0, 64) + "'");
}

ApiError read_responses_input(JsonFields& fields, Json& messages) {
  if (const auto text = fields.string("instructions"); text && !text->empty()) {
    messages.push_back({{"role", "system"}, {"content", *text}});
  }
  if (!fields.ok()) return fields.error();
  const Json* input = fields.find("input");
  if (input == nullptr) return bad_field("input", "want a string or an array of items, found none");
  if (input->is_string()) {
    messages.push_back({{"role", "user"}, {"content", *input}});
    return {};
  }
  if (!input->is_array())
    return bad_field("input", std::string("want a string or an array, found ") + json_kind(*input));
  for (size_t i = 0; i < input->size(); ++i) {
    const std::string place = "input[" + std::to_string(i) + "]";
    if (ApiError error = add_input_item((*input)[i], place, messages); !error.ok()) return error;
  }
  return {};
}

// Passing over these would give another answer than the one that is asked for.
ApiError refuse_in_responses(JsonFields& fields) {
  static constexpr std::pair<const char*, const char*> kStored[] = {
      {"previous_response_id", "this server stores no responses; send the whole conversation in input"},
      {"conversation", "this server stores no conversations; send the whole one in input"},
      {"prompt", "this server stores no prompts; send instructions and input"}};
  for (const auto& [field, why] : kStored) {
    if (fields.find(field) != nullptr) return bad_field(field, why);
  }
  if (fields.boolean("background").value_or(false))
    fields.fail("background", "this server stores no responses; want false");
  const char* logprobs = "log-probabilities are told by /v1/chat/completions only";
  if (fields.integer("top_logprobs", 0, kMaxLogprobs).value_or(0) > 0) fields.fail("top_logprobs", logprobs);
  const auto include = fields.strings("include", 64);
  if (include &&
      std::find(include->begin(), include->end(), "message.output_text.logprobs") != include->end())
    fields.fail("include", logprobs);
  return fields.error();
}

ApiError read_text_format(JsonFields& fields, Json& chat) {
  const Json* text = fields.object("text");
  if (text == nullptr) return fields.error();
  JsonFields inner(*text, "text.");
  if (const Json* format = inner.object("format")) chat["response_format"] = chat_format(*format);
  return inner.error();
}

// Messages.

ApiError add_message_part(const Json& part, const std::string& role, const std::string& place, Json& messages,
                          std::string& text) {
  if (!part.is_object()) return bad_field(place, std::string("want an object, found ") + json_kind(part));
  const std::string type = text_of(part, "type");
  if (is_text_part(type)) {
    text += text_of(part, "text");
    return {};
  }
  if (type == "thinking" || type == "redacted_thinking") return {};
  if (type == "tool_use" && role == "assistant") {
    if (ApiError error = want_name(part, place); !error.ok()) return error;
    // The text before the call is a part of the same turn.
    if (!text.empty()) messages.push_back({{"role", role}, {"content", std::exchange(text, {})}});
    const auto input = part.find("input");
    add_call(messages, call_json(text_of(part, "id"), text_of(part, "name"),
                                 input == part.end() ? "{}" : input->dump()));
    return {};
  }
  if (type == "tool_result" && role == "user") {
    std::string result;
    if (part.contains("content") && !part["content"].is_null()) {
      if (ApiError error = joined_text(part["content"], place + ".content", result); !error.ok())
        return error;
    }
    messages.push_back(
        {{"role", "tool"}, {"tool_call_id", text_of(part, "tool_use_id")}, {"content", result}});
    return {};
  }
  return bad_field(place + ".type", "want text, tool_use or tool_result, found '" + type.substr(0, 64) + "'");
}

ApiError add_turn(const Json& turn, const std::string& place, Json& messages) {
  if (!turn.is_object()) return bad_field(place, std::string("want an object, found ") + json_kind(turn));
  const std::string role = text_of(turn, "role");
  if (role != "user" && role != "assistant") return bad_field(place + ".role", "want user or assistant");
  const auto content = turn.find("content");
  if (content == turn.end()) return bad_field(place + ".content", "want a string or parts, found none");
  if (content->is_string()) {
    messages.push_back({{"role", role}, {"content", *content}});
    return {};
  }
  if (!content->is_array())
    return bad_field(place + ".content", std::string("want a string or parts, found ") + json_kind(*content));
  std::string text;
  for (size_t i = 0; i < content->size(); ++i) {
    const std::string part_place = place + ".content[" + std::to_string(i) + "]";
    if (ApiError error = add_message_part((*content)[i], role, part_place, messages, text); !error.ok())
      return error;
  }
  if (!text.empty()) messages.push_back({{"role", role}, {"content", text}});
  return {};
}

ApiError read_message_choice(const Json& body, Json& chat) {
  const auto choice = body.find("tool_choice");
  if (choice == body.end() || choice->is_null()) return {};
  const std::string type = choice->is_object() ? text_of(*choice, "type") : std::string();
  if (type == "auto" || type == "none") {
    chat["tool_choice"] = type;
  } else if (type == "any") {
    chat["tool_choice"] = "required";
  } else if (type == "tool") {
    chat["tool_choice"] = {{"type", "function"}, {"function", {{"name", text_of(*choice, "name")}}}};
  } else {
    return bad_field("tool_choice", "want an object of type auto, any, tool or none");
  }
  JsonFields fields(*choice, "tool_choice.");
  if (fields.boolean("disable_parallel_tool_use").value_or(false)) chat["parallel_tool_calls"] = false;
  return fields.error();
}

// Whether the model is to think first, as templates call it.
ApiError read_thinking(const Json& thinking, Json& chat) {
  const std::string type = text_of(thinking, "type");
  if (type == "adaptive") return {};  // as the template does on its own
  if (type != "enabled" && type != "disabled")
    return bad_field("thinking.type",
                     "want enabled, disabled or adaptive, found '" + type.substr(0, 64) + "'");
  Json& variables = chat["chat_template_kwargs"];
  if (variables.is_null()) variables = Json::object();
  if (variables.is_object() && !variables.contains("enable_thinking"))
    variables["enable_thinking"] = type == "enabled";
  return {};
}

// The older name of the format first. *place: where it was found.
ApiError read_output_format(JsonFields& fields, Json& chat, std::string* place) {
  if (const Json* format = fields.object("output_format")) {
    chat["response_format"] = chat_format(*format);
    *place = "output_format";
  }
  const Json* config = fields.object("output_config");
  if (config == nullptr) return fields.error();
  JsonFields inner(*config, "output_config.");
  if (const Json* format = inner.object("format")) {
    chat["response_format"] = chat_format(*format);
    *place = "output_config.format";
  }
  return fields.ok() ? inner.error() : fields.error();
}

// What a body of /v1/messages says beside the conversation. *format_place: see read_output_format.
ApiError read_message_fields(JsonFields& fields, Json& chat, std::string* format_place,
                             std::vector<std::string>* schema_places) {
  if (const auto limit = fields.integer("max_tokens", 1, 2147483647)) chat["max_tokens"] = *limit;
  if (const auto stops = fields.strings("stop_sequences", 64)) chat["stop"] = *stops;
  const ToolReader reader{"input_schema", nullptr, schema_places};
  if (const Json* tools = fields.array("tools")) {
    if (ApiError error = reader.read(*tools, chat["tools"]); !error.ok()) return error;
  }
  if (const Json* servers = fields.array("mcp_servers"); servers != nullptr && !servers->empty())
    fields.fail("mcp_servers", "this server calls no tools itself; send them as tools");
  if (const Json* thinking = fields.object("thinking")) {
    if (ApiError error = read_thinking(*thinking, chat); !error.ok()) return error;
  }
  return read_output_format(fields, chat, format_place);
}

}  // namespace

ApiError parse_responses(std::string_view text, const SamplingDefaults& defaults, CompletionRequest& out) {
  Json body;
  if (ApiError error = parse_body(text, body); !error.ok()) return error;
  JsonFields fields(body);
  if (ApiError error = refuse_in_responses(fields); !error.ok()) return error;
  Json chat = Json::object();
  copy_shared(body, chat);
  Json messages = Json::array();
  if (ApiError error = read_responses_input(fields, messages); !error.ok()) return error;
  chat["messages"] = std::move(messages);
  if (const auto limit = fields.integer("max_output_tokens", 1, 2147483647)) chat["max_tokens"] = *limit;
  const ToolReader reader{"parameters", &out.custom_tools, &out.schema_places};
  if (const Json* tools = fields.array("tools")) {
    if (ApiError error = reader.read(*tools, chat["tools"]); !error.ok()) return error;
  }
  if (ApiError error = read_text_format(fields, chat); !error.ok()) return error;
  if (const auto parallel = fields.boolean("parallel_tool_calls")) chat["parallel_tool_calls"] = *parallel;
  if (!fields.ok()) return fields.error();
  if (const Json* choice = fields.find("tool_choice")) {
    const bool named = choice->is_object() && !text_of(*choice, "name").empty();
    chat["tool_choice"] =
        named ? Json{{"type", "function"}, {"function", {{"name", text_of(*choice, "name")}}}} : *choice;
  }
  const ApiError error =
      renamed(read_completion(chat, ApiKind::kResponses, defaults, out), "messages", "input");
  out.format.field = "text.format";
  return renamed(error, "response_format", "text.format");
}

ApiError parse_token_count(std::string_view text, const SamplingDefaults& defaults, CompletionRequest& out) {
  Json body;
  if (ApiError error = parse_body(text, body); !error.ok()) return error;
  JsonFields fields(body);
  Json chat = Json::object();
  copy_shared(body, chat);
  Json messages = Json::array();
  if (const Json* system = fields.find("system")) {
    std::string joined;
    if (ApiError error = joined_text(*system, "system", joined); !error.ok()) return error;
    messages.push_back({{"role", "system"}, {"content", joined}});
  }
  const Json* turns = fields.array("messages");
  if (turns == nullptr) fields.fail("messages", "want an array of messages, found none");
  if (!fields.ok()) return fields.error();
  for (size_t i = 0; i < turns->size(); ++i) {
    if (ApiError error = add_turn((*turns)[i], "messages[" + std::to_string(i) + "]", messages); !error.ok())
      return error;
  }
  chat["messages"] = std::move(messages);
  std::string format_place;
  if (ApiError error = read_message_fields(fields, chat, &format_place, &out.schema_places); !error.ok())
    return error;
  if (ApiError error = read_message_choice(body, chat); !error.ok()) return error;
  const ApiError error =
      renamed(read_completion(chat, ApiKind::kMessages, defaults, out), "stop", "stop_sequences");
  out.format.field = format_place;
  return renamed(error, "response_format", format_place);
}

ApiError parse_messages(std::string_view text, const SamplingDefaults& defaults, CompletionRequest& out) {
  if (ApiError error = parse_token_count(text, defaults, out); !error.ok()) return error;
  // A turn of the assistant's at the end would be a beginning that the answer goes on from.
  if (out.messages->back().value("role", "") == "assistant")
    return bad_field("messages", "want a user's turn at the end; this server continues no assistant's turn");
  return {};
}

}  // namespace dspark
