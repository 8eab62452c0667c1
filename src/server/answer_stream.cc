#include "server/answer_stream.h"

#include <utility>

namespace dspark {
namespace {

// /v1/chat/completions and /v1/completions: every chunk stands for itself.
class ChunkStream final : public AnswerStream {
 public:
  explicit ChunkStream(const AnswerHead& head) : head_(head) {}
  std::string piece(const AnswerPiece& piece) override { return sse_event(write_chunk(head_, piece)); }
  std::string end(const UsageCounts& usage, bool include_usage) override {
    std::string bytes = include_usage ? sse_event(write_usage_chunk(head_, usage)) : std::string();
    return bytes.append(kSseDone);
  }
  std::string error(const ApiError& error) override { return sse_event(error.to_json()); }

 private:
  const AnswerHead head_;
};

}  // namespace

std::unique_ptr<AnswerStream> make_answer_stream(const AnswerHead& head) {
  if (head.kind == ApiKind::kResponses) return make_responses_stream(head);
  if (head.kind == ApiKind::kMessages) return make_messages_stream(head);
  return std::make_unique<ChunkStream>(head);
}

std::string write_whole(const AnswerHead& head, const std::vector<AnswerPiece>& choices,
                        const UsageCounts& usage) {
  if (head.kind == ApiKind::kResponses) return write_response(head, choices.front(), usage);
  if (head.kind == ApiKind::kMessages) return write_message(head, choices.front(), usage);
  return write_answer(head, choices, usage);
}

void join_pieces(AnswerPiece& sum, AnswerPiece more) {
  sum.text += more.text;
  sum.reasoning += more.reasoning;
  sum.finish_reason = std::move(more.finish_reason);
  sum.stop_string = std::move(more.stop_string);
  for (TokenNote& note : more.tokens) sum.tokens.push_back(std::move(note));
  for (ToolCallPiece& call : more.tool_calls) {
    if (!sum.tool_calls.empty() && sum.tool_calls.back().index == call.index) {
      sum.tool_calls.back().arguments += call.arguments;
    } else {
      sum.tool_calls.push_back(std::move(call));
    }
  }
}

}  // namespace dspark
