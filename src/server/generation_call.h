#pragma once
// One request for text on its way: its answers (prompts times n) collected or streamed into an exchange.

#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "constrain/output_parser.h"
#include "server/answer_stream.h"
#include "server/completion_request.h"
#include "server/completion_writer.h"
#include "server/exchange.h"
#include "server/model_host.h"
#include "server/reasoning_tokens.h"
#include "server/running_call.h"
#include "server/text_offsets.h"

namespace dspark {

/// thread: start() and cancel() from any thread; updates come from the engine's.
class GenerationCall final : public RunningCall, public std::enable_shared_from_this<GenerationCall> {
 public:
  /// parsing: how content, reasoning and tool calls are told apart; not used for completions.
  GenerationCall(ModelHost& host, CompletionRequest request, std::shared_ptr<Exchange> exchange,
                 OutputParser::Options parsing);

  /// Submits everything; the exchange gets an answer or an error in any case. client: whose turn it is in the
  /// queue. requires: prompts not empty.
  void start(const std::vector<std::vector<int32_t>>& prompts, const std::string& client);
  void cancel(const std::string& message) override;
  View view() const override;

 private:
  using Clock = std::chrono::steady_clock;
  struct Choice {
    RequestId id = 0;
    bool first_of_prompt = false;
    bool sent_first = false;
    bool ended = false;
    std::string echo;  // text in front of the answer
    AnswerPiece whole;
    std::unique_ptr<OutputParser> parser;  // null: all text is content
    TraceText trace;
    ReasoningTokens reasoning;
    TextOffsets offsets;    // of completions with logprobs
    size_t text_bytes = 0;  // released so far
    GenerateStats stats;
    Clock::time_point last_token;
    bool has_token = false;
  };

  ApiError submit_all(const std::vector<std::vector<int32_t>>& prompts, const std::string& client);
  void on_update(size_t index, const StreamUpdate& update);
  void measure(Choice& choice, const StreamUpdate& update);
  void add_notes(Choice& choice, AnswerPiece& piece, const StreamUpdate& update) const;
  void stream_piece(Choice& choice, AnswerPiece piece);
  std::vector<OutputEvent> split_text(Choice& choice, const StreamUpdate& update) const;
  void count_reasoning(Choice& choice, const StreamUpdate& update,
                       const std::vector<OutputEvent>& events) const;
  void add_event(const OutputEvent& event, AnswerPiece& piece) const;
  void tell_end(const Choice& choice, const StreamUpdate& update, AnswerPiece& piece) const;
  void count_end(size_t index, const StreamUpdate& update);
  bool fail_early(const StreamUpdate& update);
  void finish();
  void cancel_all();
  void hold_all();
  void release_all();
  UsageCounts usage() const;
  std::string bytes_of(int32_t token) const;

  ModelHost& host_;
  const CompletionRequest request_;
  const std::shared_ptr<Exchange> exchange_;
  const Clock::time_point arrived_;
  const OutputParser::Options parsing_;
  AnswerHead head_;

  mutable std::mutex mutex_;
  std::vector<Choice> choices_;
  size_t n_left_ = 0;
  std::unique_ptr<AnswerStream> stream_;  // not null once streaming began
  bool logged_first_ = false;
  bool failed_ = false;  // an error was sent; what still comes is dropped
  bool held_ = false;    // all answers wait for the reader
  std::string cancel_message_;
};

}  // namespace dspark
