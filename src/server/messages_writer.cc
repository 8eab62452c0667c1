// Answers of /v1/messages. Events: docs.anthropic.com/en/docs/build-with-claude/streaming.

#include <nlohmann/json.hpp>
#include <utility>

#include "server/answer_stream.h"

namespace dspark {
namespace {

using Json = nlohmann::ordered_json;

std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

const char* stop_reason(const AnswerPiece& piece) {
  if (piece.finish_reason == "tool_calls") return "tool_use";
  if (!piece.stop_string.empty()) return "stop_sequence";
  return piece.finish_reason == "length" ? "max_tokens" : "end_turn";
}

Json stop_sequence(const AnswerPiece& piece) {
  return piece.stop_string.empty() ? Json(nullptr) : Json(piece.stop_string);
}

// Clients add up the three counts of the input; one that were missing would spoil the sum.
Json token_counts(int64_t prompt_tokens, int64_t cached_tokens, int64_t output_tokens) {
  return {{"input_tokens", prompt_tokens - cached_tokens},
          {"cache_creation_input_tokens", 0},
          {"cache_read_input_tokens", cached_tokens},
          {"output_tokens", output_tokens}};
}

Json usage_of(const UsageCounts& usage) {
  Json json = token_counts(usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens);
  json["speculation"] = {{"rounds", usage.rounds},
                         {"drafted", usage.drafted},
                         {"verified", usage.verified},
                         {"trimmed", usage.trimmed},
                         {"accepted", usage.accepted}};
  return json;
}

Json message_json(const AnswerHead& head, Json content, Json reason, Json sequence, Json usage) {
  return {{"id", head.id},
          {"type", "message"},
          {"role", "assistant"},
          {"model", head.model},
          {"content", std::move(content)},
          {"stop_reason", std::move(reason)},
          {"stop_sequence", std::move(sequence)},
          {"usage", std::move(usage)}};
}

Json call_input(const std::string& arguments) {
  Json input = Json::parse(arguments, nullptr, false);
  return input.is_object() ? input : Json::object();
}

class MessagesStream final : public AnswerStream {
 public:
  explicit MessagesStream(const AnswerHead& head) : head_(head) {}

  std::string piece(const AnswerPiece& piece) override {
    begin();
    if (!piece.reasoning.empty()) {
      if (open_ != Open::kThinking)
        open_block(Open::kThinking, {{"type", "thinking"}, {"thinking", ""}, {"signature", ""}});
      delta({{"type", "thinking_delta"}, {"thinking", piece.reasoning}});
    }
    if (!piece.text.empty()) {
      if (open_ != Open::kText) open_block(Open::kText, {{"type", "text"}, {"text", ""}});
      delta({{"type", "text_delta"}, {"text", piece.text}});
    }
    for (const ToolCallPiece& call : piece.tool_calls) {
      if (!call.id.empty()) {
        open_block(Open::kCall,
                   {{"type", "tool_use"}, {"id", call.id}, {"name", call.name}, {"input", Json::object()}});
      }
      if (!call.arguments.empty()) delta({{"type", "input_json_delta"}, {"partial_json", call.arguments}});
    }
    if (!piece.finish_reason.empty()) {
      stop_reason_ = stop_reason(piece);
      stop_sequence_ = stop_sequence(piece);
    }
    return std::exchange(out_, {});
  }

  std::string end(const UsageCounts& usage, bool) override {
    begin();
    close_block();
    event("message_delta", {{"delta", {{"stop_reason", stop_reason_}, {"stop_sequence", stop_sequence_}}},
                            {"usage", usage_of(usage)}});
    event("message_stop", Json::object());
    return std::exchange(out_, {});
  }

  std::string error(const ApiError& error) override {
    event("error", {{"error", {{"type", "api_error"}, {"message", error.message}}}});
    return std::exchange(out_, {});
  }

 private:
  enum class Open { kNone, kThinking, kText, kCall };

  void event(const std::string& type, const Json& fields) {
    Json data = {{"type", type}};
    data.update(fields);
    out_ += "event: " + type + "\ndata: " + dump(data) + "\n\n";
  }
  void begin() {
    if (std::exchange(begun_, true)) return;
    Json usage = token_counts(head_.prompt_tokens, head_.cached_tokens, 0);
    event("message_start",
          {{"message", message_json(head_, Json::array(), nullptr, nullptr, std::move(usage))}});
  }
  void open_block(Open kind, Json block) {
    close_block();
    open_ = kind;
    ++index_;
    event("content_block_start", {{"index", index_}, {"content_block", std::move(block)}});
  }
  void delta(Json what) { event("content_block_delta", {{"index", index_}, {"delta", std::move(what)}}); }
  void close_block() {
    if (std::exchange(open_, Open::kNone) != Open::kNone) event("content_block_stop", {{"index", index_}});
  }

  const AnswerHead head_;
  Open open_ = Open::kNone;
  std::string stop_reason_ = "end_turn", out_;
  Json stop_sequence_ = nullptr;
  int index_ = -1;
  bool begun_ = false;
};

}  // namespace

std::unique_ptr<AnswerStream> make_messages_stream(const AnswerHead& head) {
  return std::make_unique<MessagesStream>(head);
}

std::string write_message(const AnswerHead& head, const AnswerPiece& piece, const UsageCounts& usage) {
  Json content = Json::array();
  if (!piece.reasoning.empty()) {
    content.push_back({{"type", "thinking"}, {"thinking", piece.reasoning}, {"signature", ""}});
  }
  if (!piece.text.empty() || piece.tool_calls.empty())
    content.push_back({{"type", "text"}, {"text", piece.text}});
  for (const ToolCallPiece& call : piece.tool_calls) {
    content.push_back(
        {{"type", "tool_use"}, {"id", call.id}, {"name", call.name}, {"input", call_input(call.arguments)}});
  }
  return dump(
      message_json(head, std::move(content), stop_reason(piece), stop_sequence(piece), usage_of(usage)));
}

}  // namespace dspark
