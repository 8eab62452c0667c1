#include "server/completion_request.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "server/json_fields.h"
#include "server/refused_fields.h"

namespace dspark {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kMaxId = std::numeric_limits<int32_t>::max();
constexpr size_t kMaxMessages = 4096;
constexpr size_t kMaxTools = 128;

void read_logit_bias(JsonFields& fields, SamplingParams& sampling) {
  const Json* bias = fields.object("logit_bias");
  if (bias == nullptr) return;
  if (bias->size() > 4096) return fields.fail("logit_bias", "want at most 4096 entries");
  for (const auto& [key, value] : bias->items()) {
    char* end = nullptr;
    const int64_t id = std::strtoll(key.c_str(), &end, 10);
    if (key.empty() || *end != '\0' || id < 0 || id > kMaxId) {
      return fields.fail("logit_bias", "want token ids as keys, found '" + key.substr(0, 64) + "'");
    }
    if (!value.is_number() || !(value.get<double>() >= -100.0 && value.get<double>() <= 100.0)) {
      return fields.fail("logit_bias", "want numbers from -100 to 100, found another value for " + key);
    }
    const auto token = static_cast<int32_t>(id);
    for (const auto& [other, unused] : sampling.logit_bias) {
      if (other == token) return fields.fail("logit_bias", "token " + key + " is named twice");
    }
    sampling.logit_bias.emplace_back(token, value.get<float>());
  }
}

void read_sampling(JsonFields& fields, const SamplingDefaults& defaults, CompletionRequest& out) {
  SamplingParams& sampling = out.generate.sampling;
  sampling.temperature =
      static_cast<float>(fields.number("temperature", 0.0, 100.0).value_or(defaults.temperature));
  sampling.top_k = static_cast<int32_t>(fields.integer("top_k", -1, kMaxId).value_or(defaults.top_k));
  sampling.top_p = static_cast<float>(fields.number("top_p", 0.0, 1.0).value_or(defaults.top_p));
  if (sampling.top_p <= 0.0f) fields.fail("top_p", "want a number above 0 and at most 1, found 0");
  sampling.min_p = static_cast<float>(fields.number("min_p", 0.0, 1.0).value_or(defaults.min_p));
  sampling.presence_penalty = static_cast<float>(fields.number("presence_penalty", -2.0, 2.0).value_or(0.0));
  sampling.frequency_penalty =
      static_cast<float>(fields.number("frequency_penalty", -2.0, 2.0).value_or(0.0));
  // llama.cpp says repeat_penalty, vLLM repetition_penalty.
  const std::optional<double> repeat = fields.number("repeat_penalty", 0.01, 100.0);
  sampling.repetition_penalty =
      static_cast<float>(fields.number("repetition_penalty", 0.01, 100.0).value_or(repeat.value_or(1.0)));
  const int64_t most_seed = std::numeric_limits<int64_t>::max();
  const std::optional<int64_t> seed = fields.integer("seed", std::numeric_limits<int64_t>::min(), most_seed);
  out.has_seed = seed.has_value() && *seed != -1;
  sampling.seed = static_cast<uint64_t>(seed.value_or(0));
  read_logit_bias(fields, sampling);
}

void read_limits(JsonFields& fields, CompletionRequest& out) {
  std::optional<int64_t> limit = fields.integer("max_tokens", -1, kMaxId);
  const std::optional<int64_t> newer = fields.integer("max_completion_tokens", -1, kMaxId);
  const char* name = newer ? "max_completion_tokens" : "max_tokens";
  if (newer) limit = newer;
  if (limit == 0) fields.fail(name, "want at least 1, found 0");
  // The default of OpenAI's older endpoint.
  const int64_t absent = out.kind == ApiKind::kCompletion ? 16 : -1;
  out.has_max_tokens = limit.value_or(-1) > 0;
  out.generate.max_tokens = static_cast<int32_t>(limit.value_or(absent));
  out.generate.ignore_eos = fields.boolean("ignore_eos").value_or(false);
  out.generate.stop_strings = fields.strings("stop", kMaxStopStrings).value_or(std::vector<std::string>{});
  for (const std::string& stop : out.generate.stop_strings) {
    if (stop.empty() || stop.size() > kMaxStopStringBytes) {
      fields.fail("stop", "want strings of 1 to " + std::to_string(kMaxStopStringBytes) + " bytes, found " +
                              std::to_string(stop.size()));
    }
  }
  if (const Json* ids = fields.array("stop_token_ids")) {
    for (const Json& id : *ids) {
      if (!id.is_number_integer() || id < 0 || id > kMaxId || out.generate.stop_token_ids.size() >= 1024) {
        return fields.fail("stop_token_ids", "want at most 1024 token ids");
      }
      out.generate.stop_token_ids.push_back(id.get<int32_t>());
    }
  }
  QueueParams& queue = out.generate.queue;
  queue.priority = static_cast<int32_t>(fields.integer("priority", -kMaxPriority, kMaxPriority).value_or(0));
  queue.deadline_s = fields.number("deadline_s", 0.0, 86400.0).value_or(0.0);
}

void read_logprobs(JsonFields& fields, CompletionRequest& out) {
  if (out.kind == ApiKind::kCompletion) {
    const std::optional<int64_t> n = fields.integer("logprobs", 0, kMaxLogprobs);
    out.logprobs = n.has_value();
    out.generate.n_logprobs = static_cast<int32_t>(n.value_or(-1));
    return;
  }
  out.logprobs = fields.boolean("logprobs").value_or(false);
  const std::optional<int64_t> top = fields.integer("top_logprobs", 0, kMaxLogprobs);
  if (top.has_value() && !out.logprobs) fields.fail("top_logprobs", "needs logprobs: true");
  out.generate.n_logprobs = out.logprobs ? static_cast<int32_t>(top.value_or(0)) : -1;
}

void read_streaming(JsonFields& fields, CompletionRequest& out) {
  out.stream = fields.boolean("stream").value_or(false);
  out.trace = fields.boolean("dspark_trace").value_or(false);
  const Json* options = fields.object("stream_options");
  if (options == nullptr) return;
  JsonFields inner(*options, "stream_options.");
  out.include_usage = inner.boolean("include_usage").value_or(false);
  if (!inner.ok()) fields.fail(inner.error().param, "want a boolean");
}

ApiError read_speculation(const Json& object, GenerateRequest& generate) {
  JsonFields fields(object, "speculation.");
  if (const auto policy = fields.string("policy")) {
    const Result<VerifyPolicy> parsed = VerifyPolicy::parse(*policy);
    if (!parsed.ok()) fields.fail("policy", parsed.status().message());
    if (parsed.ok()) generate.speculation = *parsed;
  }
  if (const auto accept = fields.string("accept")) {
    const Result<AcceptRule> rule = parse_accept_rule(*accept);
    if (!rule.ok()) fields.fail("accept", rule.status().message());
    if (rule.ok()) generate.accept_rule = *rule;
  }
  if (const auto most = fields.integer("max_draft", 0, kMaxDraftTokens)) {
    generate.max_drafts = static_cast<int32_t>(*most);
  }
  return fields.error();
}

ApiError read_response_format(const Json& object, ResponseFormat& format) {
  JsonFields fields(object, "response_format.");
  const std::string type = fields.string("type").value_or("");
  if (type == "text") return fields.error();
  if (type == "json_object") {
    format.kind = ResponseFormat::Kind::kJsonObject;
    return fields.error();
  }
  if (type != "json_schema") {
    fields.fail("type", "want text, json_object or json_schema, found '" + type.substr(0, 64) + "'");
    return fields.error();
  }
  const Json* wrapper = fields.object("json_schema");
  if (wrapper == nullptr) fields.fail("json_schema", "want an object with the schema");
  if (!fields.ok()) return fields.error();
  const auto schema = wrapper->find("schema");
  if (schema == wrapper->end() || !(schema->is_object() || schema->is_boolean())) {
    fields.fail("json_schema.schema", "want an object");
    return fields.error();
  }
  format.kind = ResponseFormat::Kind::kJsonSchema;
  format.source = schema->dump();
  return {};
}

void read_grammar_scope(JsonFields& fields, ResponseFormat& format) {
  const std::optional<std::string> scope = fields.string("grammar_scope");
  if (!scope) return;
  if (*scope != "content" && *scope != "text") {
    return fields.fail("grammar_scope", "want content or text, found '" + scope->substr(0, 64) + "'");
  }
  if (format.kind != ResponseFormat::Kind::kGrammar) return fields.fail("grammar_scope", "needs grammar");
  format.whole_text = *scope == "text";
}

// schema_place: where the body has the schema of its parameters.
ApiError check_tool(const Json& tool, const std::string& place, const std::string& schema_place) {
  if (!tool.is_object() || tool.value("type", Json()) != "function" || !tool.contains("function") ||
      !tool["function"].is_object() || !tool["function"].value("name", Json()).is_string()) {
    return bad_field(place, "want {\"type\": \"function\", \"function\": {\"name\": ..., ...}}");
  }
  const Json strict = tool["function"].value("strict", Json());
  if (!strict.is_null() && !strict.is_boolean()) {
    return bad_field(place + ".function.strict", std::string("want a boolean, found ") + json_kind(strict));
  }
  const Json parameters = tool["function"].value("parameters", Json());
  if (!parameters.is_null() && !parameters.is_object()) {
    return bad_field(schema_place, std::string("want an object, found ") + json_kind(parameters));
  }
  return {};
}

ApiError read_tools(JsonFields& fields, const Json& body, CompletionRequest& out) {
  const Json* tools = fields.array("tools");
  out.parallel_tool_calls = fields.boolean("parallel_tool_calls").value_or(true);
  if (!fields.ok()) return fields.error();
  if (tools != nullptr && !tools->empty()) {
    if (tools->size() > kMaxTools) return bad_field("tools", "want at most " + std::to_string(kMaxTools));
    for (size_t i = 0; i < tools->size(); ++i) {
      const std::string place = "tools[" + std::to_string(i) + "]";
      // Other interfaces have told theirs already.
      if (out.schema_places.size() <= i) out.schema_places.push_back(place + ".function.parameters");
      if (ApiError error = check_tool((*tools)[i], place, out.schema_places[i]); !error.ok()) return error;
    }
    out.tools = std::make_shared<const Json>(*tools);
  }
  const auto choice = body.find("tool_choice");
  if (choice == body.end() || choice->is_null()) return {};
  if (choice->is_string() && (*choice == "auto" || *choice == "none" || *choice == "required")) {
    out.tool_choice = choice->get<std::string>();
    return {};
  }
  if (choice->is_object() && choice->contains("function") && (*choice)["function"].is_object() &&
      (*choice)["function"].value("name", Json()).is_string()) {
    out.tool_choice = "=" + (*choice)["function"]["name"].get<std::string>();
    return {};
  }
  return bad_field("tool_choice",
                   "want auto, none, required or {\"type\": \"function\", \"function\": {\"name\": ...}}");
}

ApiError read_chat(JsonFields& fields, const Json& body, CompletionRequest& out) {
  const Json* messages = fields.array("messages");
  if (messages == nullptr) fields.fail("messages", "want an array of messages, found none");
  const Json* extra = fields.object("chat_template_kwargs");
  if (!fields.ok()) return fields.error();
  Json checked = *messages;
  if (ApiError error = check_messages(checked); !error.ok()) return error;
  out.messages = std::make_shared<const Json>(std::move(checked));
  if (extra != nullptr) out.template_fields = std::make_shared<const Json>(*extra);
  return read_tools(fields, body, out);
}

bool is_id_list(const Json& value) {
  return value.is_array() && !value.empty() && value.front().is_number();
}

ApiError read_ids(const Json& list, CompletionRequest& out) {
  std::vector<int32_t> ids;
  ids.reserve(list.size());
  for (const Json& id : list) {
    if (!id.is_number_integer() || id < 0 || id > kMaxId) return bad_field("prompt", "want token ids from 0");
    ids.push_back(id.get<int32_t>());
  }
  out.prompts.emplace_back(std::move(ids));
  return {};
}

ApiError read_prompts(JsonFields& fields, CompletionRequest& out) {
  const Json* prompt = fields.find("prompt");
  out.echo = fields.boolean("echo").value_or(false);
  if (!fields.ok()) return fields.error();
  const std::string wanted = "want a string, an array of strings, or token ids";
  if (prompt == nullptr) return bad_field("prompt", wanted + ", found none");
  if (prompt->is_string()) {
    out.prompts.emplace_back(prompt->get<std::string>());
    return {};
  }
  if (is_id_list(*prompt)) return read_ids(*prompt, out);
  if (!prompt->is_array() || prompt->empty()) {
    return bad_field("prompt", wanted + ", found " + json_kind(*prompt));
  }
  if (prompt->size() > static_cast<size_t>(kMaxChoices)) {
    return bad_field("prompt", "want at most " + std::to_string(kMaxChoices) + " prompts");
  }
  for (const Json& item : *prompt) {
    if (item.is_string()) {
      out.prompts.emplace_back(item.get<std::string>());
    } else if (is_id_list(item)) {
      if (ApiError error = read_ids(item, out); !error.ok()) return error;
    } else {
      return bad_field("prompt", wanted + ", found " + json_kind(item) + " in an array");
    }
  }
  return {};
}

// A content of parts becomes one string. errors: parts that are not text.
ApiError join_parts(Json& content, const std::string& place) {
  if (!content.is_array()) return {};
  std::string joined;
  for (const Json& part : content) {
    const bool is_text = part.is_object() && part.contains("text") && part["text"].is_string();
    if (!is_text) {
      return bad_field(place, "want a string or parts of type text; this server takes text only");
    }
    joined += part["text"].get<std::string>();
  }
  content = joined;
  return {};
}

ApiError check_message(Json& message, const std::string& place) {
  if (!message.is_object())
    return bad_field(place, std::string("want an object, found ") + json_kind(message));
  const auto role = message.find("role");
  static constexpr std::string_view kRoles[] = {"system",    "developer", "user",
                                                "assistant", "tool",      "function"};
  if (role == message.end() || !role->is_string() ||
      std::find(std::begin(kRoles), std::end(kRoles), role->get_ref<const std::string&>()) ==
          std::end(kRoles)) {
    return bad_field(place + ".role", "want system, developer, user, assistant or tool");
  }
  if (*role == "developer") *role = "system";  // templates know the older name only
  const bool has_calls = message.contains("tool_calls") && message["tool_calls"].is_array();
  const auto content = message.find("content");
  if (content == message.end() || content->is_null()) {
    if (!has_calls) return bad_field(place + ".content", "want a string, found none");
    message["content"] = "";
  } else {
    if (ApiError error = join_parts(*content, place + ".content"); !error.ok()) return error;
    if (!content->is_string()) {
      return bad_field(place + ".content", std::string("want a string, found ") + json_kind(*content));
    }
  }
  if (!has_calls) return {};
  for (Json& call : message["tool_calls"]) {
    if (!call.is_object() || !call.contains("function") || !call["function"].is_object()) {
      return bad_field(place + ".tool_calls", "want objects with a function");
    }
    // Clients send arguments as text, and none as no text; templates print them as JSON.
    Json& function = call["function"];
    if (!function.contains("arguments") || !function["arguments"].is_string()) continue;
    const std::string text = function["arguments"].get<std::string>();
    if (nested_too_deep(text)) return bad_field(place + ".tool_calls", "arguments are nested too deep");
    Json parsed = text.empty() ? Json::object() : Json::parse(text, nullptr, false);
    if (parsed.is_object()) function["arguments"] = std::move(parsed);
  }
  return {};
}

}  // namespace

ApiError check_messages(Json& messages) {
  if (messages.empty()) return bad_field("messages", "want at least one message, found none");
  if (messages.size() > kMaxMessages) {
    return bad_field("messages", "want at most " + std::to_string(kMaxMessages));
  }
  for (size_t i = 0; i < messages.size(); ++i) {
    const std::string place = "messages[" + std::to_string(i) + "]";
    if (ApiError error = check_message(messages[i], place); !error.ok()) return error;
  }
  return {};
}

ApiError parse_completion(std::string_view text, ApiKind kind, const SamplingDefaults& defaults,
                          CompletionRequest& out) {
  Json body;
  if (ApiError error = parse_body(text, body); !error.ok()) return error;
  return read_completion(body, kind, defaults, out);
}

ApiError read_completion(const Json& body, ApiKind kind, const SamplingDefaults& defaults,
                         CompletionRequest& out) {
  out.kind = kind;
  if (ApiError error = refuse_fields(body, kind); !error.ok()) return error;
  JsonFields fields(body);
  out.model = fields.string("model").value_or("");
  const ApiError prompt_error =
      kind == ApiKind::kCompletion ? read_prompts(fields, out) : read_chat(fields, body, out);
  if (!prompt_error.ok()) return prompt_error;
  read_sampling(fields, defaults, out);
  read_limits(fields, out);
  read_logprobs(fields, out);
  read_streaming(fields, out);
  const int64_t n_prompts = std::max<int64_t>(1, static_cast<int64_t>(out.prompts.size()));
  out.n = static_cast<int32_t>(fields.integer("n", 1, kMaxChoices / n_prompts).value_or(1));
  if (const Json* format = fields.object("response_format"); format != nullptr && fields.ok()) {
    if (ApiError error = read_response_format(*format, out.format); !error.ok()) return error;
  }
  if (const auto grammar = fields.string("grammar"); grammar && !grammar->empty()) {
    if (out.format.kind != ResponseFormat::Kind::kText) fields.fail("grammar", "excludes response_format");
    out.format = {ResponseFormat::Kind::kGrammar, *grammar};
  }
  if (kind != ApiKind::kCompletion) read_grammar_scope(fields, out.format);
  if (const Json* speculation = fields.object("speculation"); speculation != nullptr && fields.ok()) {
    if (ApiError error = read_speculation(*speculation, out.generate); !error.ok()) return error;
  }
  return fields.error();
}

}  // namespace dspark
