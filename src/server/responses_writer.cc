// Answers of /v1/responses. Events: platform.openai.com/docs/api-reference/responses-streaming.

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "server/answer_stream.h"

namespace dspark {
namespace {

using Json = nlohmann::ordered_json;

std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Json usage_of(const UsageCounts& usage) {
  return {{"input_tokens", usage.prompt_tokens},
          {"input_tokens_details", {{"cached_tokens", usage.cached_tokens}}},
          {"output_tokens", usage.completion_tokens},
          {"output_tokens_details", {{"reasoning_tokens", usage.reasoning_tokens}}},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens},
          {"speculation",
           {{"rounds", usage.rounds},
            {"drafted", usage.drafted},
            {"verified", usage.verified},
            {"trimmed", usage.trimmed},
            {"accepted", usage.accepted}}}};
}

Json text_part(const char* type, const std::string& text) {
  Json part = {{"type", type}, {"text", text}};
  if (std::string_view(type) == "output_text") part["annotations"] = Json::array();
  return part;
}

// A list of one, or an empty one: a braced list of one Json would be taken for a copy.
Json list_of(Json item) {
  Json list = Json::array();
  list.push_back(std::move(item));
  return list;
}

Json reasoning_item(const AnswerHead& head, const std::string& text) {
  return {{"type", "reasoning"},
          {"id", "rs_" + head.id},
          {"summary", Json::array()},
          {"content", list_of(text_part("reasoning_text", text))}};
}

Json message_item(const AnswerHead& head, Json content, const char* status) {
  return {{"type", "message"},
          {"id", "msg_" + head.id},
          {"status", status},
          {"role", "assistant"},
          {"content", std::move(content)}};
}

bool is_custom(const AnswerHead& head, const std::string& tool) {
  return std::find(head.custom_tools.begin(), head.custom_tools.end(), tool) != head.custom_tools.end();
}

// Those that the model was shown: clients see what became of the others that they sent.
Json shown_tools(const AnswerHead& head) {
  Json shown = Json::array();
  if (head.tools == nullptr) return shown;
  for (const Json& tool : *head.tools) {
    const Json& function = tool["function"];
    const auto name = function["name"].get<std::string>();
    Json one = {{"type", is_custom(head, name) ? "custom" : "function"}};
    one.update(function);
    if (is_custom(head, name)) {
      one.erase("parameters");  // of the function that stands for it
      one["format"] = {{"type", "text"}};
    }
    shown.push_back(std::move(one));
  }
  return shown;
}

// The model calls a tool that takes plain text like one with a field "input" of type string. What is no such
// object, because it was cut off, stands as it is.
std::string custom_input(const std::string& arguments) {
  const Json object = Json::parse(arguments, nullptr, false);
  if (!object.is_object()) return arguments;
  const auto input = object.find("input");
  return input != object.end() && input->is_string() ? input->get<std::string>() : arguments;
}

Json call_item(const AnswerHead& head, const ToolCallPiece& call, const char* status) {
  if (is_custom(head, call.name)) {
    return {{"type", "custom_tool_call"},
            {"id", "ctc_" + call.id},
            {"call_id", call.id},
            {"name", call.name},
            {"input", custom_input(call.arguments)},
            {"status", status}};
  }
  return {{"type", "function_call"}, {"id", "fc_" + call.id},       {"call_id", call.id},
          {"name", call.name},       {"arguments", call.arguments}, {"status", status}};
}

Json output_of(const AnswerHead& head, const AnswerPiece& piece) {
  Json output = Json::array();
  if (!piece.reasoning.empty()) output.push_back(reasoning_item(head, piece.reasoning));
  if (!piece.text.empty() || piece.tool_calls.empty()) {
    output.push_back(message_item(head, list_of(text_part("output_text", piece.text)), "completed"));
  }
  for (const ToolCallPiece& call : piece.tool_calls) output.push_back(call_item(head, call, "completed"));
  return output;
}

std::string status_of(const AnswerPiece& piece) {
  return piece.finish_reason == "length" ? "incomplete" : "completed";
}

// usage: null while the answer is being made.
Json response_json(const AnswerHead& head, const std::string& status, Json output, const UsageCounts* usage) {
  Json details = nullptr;
  if (status == "incomplete") details = {{"reason", "max_output_tokens"}};
  return {{"id", head.id},
          {"object", "response"},
          {"created_at", head.created},
          {"status", status},
          {"error", nullptr},
          {"incomplete_details", std::move(details)},
          {"model", head.model},
          {"output", std::move(output)},
          {"parallel_tool_calls", head.parallel_tool_calls},
          {"store", false},
          {"tools", shown_tools(head)},
          {"usage", usage != nullptr ? usage_of(*usage) : Json(nullptr)}};
}

class ResponsesStream final : public AnswerStream {
 public:
  explicit ResponsesStream(const AnswerHead& head) : head_(head) {}

  std::string piece(const AnswerPiece& piece) override {
    begin();
    if (!piece.reasoning.empty()) add_reasoning(piece.reasoning);
    if (!piece.text.empty()) add_text(piece.text);
    for (const ToolCallPiece& call : piece.tool_calls) add_call(call);
    join_pieces(whole_, piece);
    return std::exchange(out_, {});
  }

  std::string end(const UsageCounts& usage, bool) override {
    begin();
    close_item();
    const std::string status = status_of(whole_);
    event("response." + status,
          {{"response", response_json(head_, status, output_of(head_, whole_), &usage)}});
    return std::exchange(out_, {});
  }

  std::string error(const ApiError& error) override {
    Json response = response_json(head_, "failed", output_of(head_, whole_), nullptr);
    response["error"] = {{"code", error.code.empty() ? "server_error" : error.code},
                         {"message", error.message}};
    event("response.failed", {{"response", std::move(response)}});
    return std::exchange(out_, {});
  }

 private:
  enum class Open { kNone, kReasoning, kMessage, kCall };

  void event(const std::string& type, const Json& fields) {
    Json data = {{"type", type}, {"sequence_number", sequence_++}};
    data.update(fields);
    out_ += "event: " + type + "\ndata: " + dump(data) + "\n\n";
  }
  void begin() {
    if (std::exchange(begun_, true)) return;
    for (const char* type : {"response.created", "response.in_progress"}) {
      event(type, {{"response", response_json(head_, "in_progress", Json::array(), nullptr)}});
    }
  }
  // Fields that say where an event belongs.
  Json place(bool in_content) const {
    Json fields = {{"item_id", item_id_}, {"output_index", index_}};
    if (in_content) fields["content_index"] = 0;
    return fields;
  }
  void place_event(const char* type, bool in_content, const char* name, Json value) {
    Json fields = place(in_content);
    fields[name] = std::move(value);
    event(type, fields);
  }
  void open_item(Open kind, Json item) {
    close_item();
    open_ = kind;
    ++index_;
    item_id_ = item["id"].get<std::string>();
    event("response.output_item.added", {{"output_index", index_}, {"item", std::move(item)}});
  }
  void add_reasoning(const std::string& text) {
    if (open_ != Open::kReasoning) open_item(Open::kReasoning, reasoning_item(head_, ""));
    item_text_ += text;
    place_event("response.reasoning_text.delta", true, "delta", text);
  }
  void add_text(const std::string& text) {
    if (open_ != Open::kMessage) {
      open_item(Open::kMessage, message_item(head_, Json::array(), "in_progress"));
      place_event("response.content_part.added", true, "part", text_part("output_text", ""));
    }
    item_text_ += text;
    place_event("response.output_text.delta", true, "delta", text);
  }
  void add_call(const ToolCallPiece& call) {
    if (!call.id.empty()) {
      close_item();  // while call_ is still the one before
      call_ = call;
      call_.arguments.clear();
      open_item(Open::kCall, call_item(head_, call_, "in_progress"));
    }
    item_text_ += call.arguments;
    // Plain text stands in a JSON string here: it goes out when that is complete.
    if (call.arguments.empty() || is_custom(head_, call_.name)) return;
    place_event("response.function_call_arguments.delta", false, "delta", call.arguments);
  }
  void close_item() {
    const std::string text = std::exchange(item_text_, {});
    Json item;
    switch (std::exchange(open_, Open::kNone)) {
      case Open::kNone:
        return;
      case Open::kReasoning:
        place_event("response.reasoning_text.done", true, "text", text);
        item = reasoning_item(head_, text);
        break;
      case Open::kMessage:
        place_event("response.output_text.done", true, "text", text);
        place_event("response.content_part.done", true, "part", text_part("output_text", text));
        item = message_item(head_, list_of(text_part("output_text", text)), "completed");
        break;
      case Open::kCall:
        call_.arguments = text;
        end_call();
        item = call_item(head_, call_, "completed");
        break;
    }
    event("response.output_item.done", {{"output_index", index_}, {"item", std::move(item)}});
  }
  void end_call() {
    if (!is_custom(head_, call_.name)) {
      return place_event("response.function_call_arguments.done", false, "arguments", call_.arguments);
    }
    const std::string input = custom_input(call_.arguments);
    place_event("response.custom_tool_call_input.delta", false, "delta", input);
    place_event("response.custom_tool_call_input.done", false, "input", input);
  }

  const AnswerHead head_;
  AnswerPiece whole_;
  ToolCallPiece call_;
  Open open_ = Open::kNone;
  std::string item_id_, item_text_, out_;
  int index_ = -1;
  int64_t sequence_ = 0;
  bool begun_ = false;
};

}  // namespace

std::unique_ptr<AnswerStream> make_responses_stream(const AnswerHead& head) {
  return std::make_unique<ResponsesStream>(head);
}

std::string write_response(const AnswerHead& head, const AnswerPiece& piece, const UsageCounts& usage) {
  return dump(response_json(head, status_of(piece), output_of(head, piece), &usage));
}

}  // namespace dspark
