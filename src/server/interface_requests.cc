// Bodies of /v1/responses (OpenAI) and /v1/messages (Anthropic) as the fields of a chat. Stateless: nothing
// is stored between requests. Formats: platform.openai.com/docs/api-reference/responses,
// docs.anthropic.com/en/api/messages.

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

ApiError add_input_item(const Json& item, const std::string& place, Json& messages) {
  if (!item.is_object()) return bad_field(place, std::string("want an object, found ") + json_kind(item));
  const std::string type = text_of(item, "type");
  if (type == "function_call") {
    add_call(messages,
             call_json(text_of(item, "call_id"), text_of(item, "name"), text_of(item, "arguments")));
    return {};
  }
  if (type == "function_call_output") {
    Json message = {{"role", "tool"}, {"tool_call_id", text_of(item, "call_id")}};
    std::string text;
    if (!item.contains("output")) return bad_field(place + ".output", "want a string, found none");
    if (ApiError error = joined_text(item["output"], place + ".output", text); !error.ok()) return error;
    message["content"] = text;
    messages.push_back(std::move(message));
    return {};
  }
  if (type == "reasoning") return {};  // of earlier turns; templates leave it out
  if (!type.empty() && type != "message")
    return bad_field(place + ".type", "want message, function_call or function_call_output, found '" +
                                          type.substr(0, 64) + "'");
  if (!item.contains("content")) return bad_field(place + ".content", "want a string, found none");
  std::string text;
  if (ApiError error = joined_text(item["content"], place + ".content", text); !error.ok()) return error;
  messages.push_back({{"role", text_of(item, "role")}, {"content", text}});
  return {};
}

// {"type":"function","name":...} to {"type":"function","function":{"name":...}}; schema: name of the field.
ApiError wrap_tools(const Json& tools, const char* schema, Json& out) {
  out = Json::array();
  for (size_t i = 0; i < tools.size(); ++i) {
    const Json& tool = tools[i];
    const std::string place = "tools[" + std::to_string(i) + "]";
    if (!tool.is_object()) return bad_field(place, std::string("want an object, found ") + json_kind(tool));
    const std::string type = text_of(tool, "type");
    // Tools that the provider itself would run (web search, ...) are not there.
    if (!type.empty() && type != "function" && type != "custom") continue;
    if (text_of(tool, "name").empty()) return bad_field(place + ".name", "want a string, found none");
    Json function = {{"name", text_of(tool, "name")}, {"description", text_of(tool, "description")}};
    if (const auto it = tool.find(schema); it != tool.end()) function["parameters"] = *it;
    out.push_back({{"type", "function"}, {"function", std::move(function)}});
  }
  return {};
}

ApiError read_responses_input(const Json& body, Json& messages) {
  if (const std::string text = text_of(body, "instructions"); !text.empty()) {
    messages.push_back({{"role", "system"}, {"content", text}});
  }
  const auto input = body.find("input");
  if (input == body.end()) return bad_field("input", "want a string or an array of items, found none");
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

void read_text_format(const Json& body, Json& chat) {
  const auto text = body.find("text");
  if (text == body.end() || !text->is_object() || !text->contains("format")) return;
  const Json& format = (*text)["format"];
  if (!format.is_object()) return;
  const std::string type = text_of(format, "type");
  chat["response_format"] = {{"type", type}};
  if (type == "json_schema") chat["response_format"]["json_schema"] = format;
}

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
  return {};
}

}  // namespace

ApiError parse_responses(std::string_view text, const SamplingDefaults& defaults, CompletionRequest& out) {
  Json body;
  if (ApiError error = parse_body(text, body); !error.ok()) return error;
  JsonFields fields(body);
  if (fields.find("previous_response_id") != nullptr) {
    return bad_field("previous_response_id",
                     "this server stores no responses; send the whole conversation in input");
  }
  Json chat = Json::object();
  copy_shared(body, chat);
  Json messages = Json::array();
  if (ApiError error = read_responses_input(body, messages); !error.ok()) return error;
  chat["messages"] = std::move(messages);
  if (const auto limit = fields.integer("max_output_tokens", 1, 2147483647)) chat["max_tokens"] = *limit;
  if (const Json* tools = fields.array("tools")) {
    if (ApiError error = wrap_tools(*tools, "parameters", chat["tools"]); !error.ok()) return error;
  }
  if (!fields.ok()) return fields.error();
  if (const Json* choice = fields.find("tool_choice")) {
    const bool named = choice->is_object() && !text_of(*choice, "name").empty();
    chat["tool_choice"] =
        named ? Json{{"type", "function"}, {"function", {{"name", text_of(*choice, "name")}}}} : *choice;
  }
  read_text_format(body, chat);
  return read_completion(chat, ApiKind::kResponses, defaults, out);
}

ApiError parse_messages(std::string_view text, const SamplingDefaults& defaults, CompletionRequest& out) {
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
  if (const auto limit = fields.integer("max_tokens", 1, 2147483647)) chat["max_tokens"] = *limit;
  if (const auto stops = fields.strings("stop_sequences", 64)) chat["stop"] = *stops;
  if (const Json* tools = fields.array("tools")) {
    if (ApiError error = wrap_tools(*tools, "input_schema", chat["tools"]); !error.ok()) return error;
  }
  if (!fields.ok()) return fields.error();
  if (ApiError error = read_message_choice(body, chat); !error.ok()) return error;
  return read_completion(chat, ApiKind::kMessages, defaults, out);
}

}  // namespace dspark
