#pragma once
// Answers of /v1/chat/completions and /v1/completions as JSON: whole ones and the chunks of streams.

#include <cstdint>
#include <deque>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "constrain/output_parser.h"
#include "engine/request.h"
#include "server/completion_request.h"

namespace dspark {

/// What is the same in everything that one request gets back.
struct AnswerHead {
  std::string id;  // "chatcmpl-..."
  int64_t created = 0;
  std::string model;
  ApiKind kind = ApiKind::kChat;
  bool trace = false;
  bool logprobs = false;
  bool include_usage = false;  // chunks in front of the one with the usage say that theirs is null
  bool parallel_tool_calls = true;
  std::vector<std::string> custom_tools;  // of /v1/responses: their calls are plain text
  /// As in a chat, those that the model was shown; or null.
  std::shared_ptr<const nlohmann::ordered_json> tools;
  // Known when a stream begins, for interfaces that tell then.
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;  // of these
};

/// One token, as log-probabilities and traces show it.
struct TokenNote {
  std::string bytes;  // may be a part of a character
  TokenEvent event;
  int64_t text_offset = 0;                         // of a completion: characters of its text in front of it
  std::vector<std::pair<std::string, float>> top;  // likeliest first: bytes, log-probability
  float confidence = -1.0f;                        // of an accepted draft; negative: unknown
  float draft_probability = -1.0f;                 // what the drafter gave it; negative: unknown
  const char* source = "";                         // who proposed an accepted draft: "model", "lookup"
  std::string shown;                               // with trace: what it adds to the text, whole characters
};

/// A call of a tool, or a part of one while it is streamed.
struct ToolCallPiece {
  int32_t index = 0;
  std::string id;         // empty in parts after the first
  std::string name;       // likewise
  std::string arguments;  // JSON text, or the next part of it
};

/// A part of one answer: what is new of it.
struct AnswerPiece {
  int32_t index = 0;  // of the choice
  std::string text;
  std::string reasoning;
  std::vector<ToolCallPiece> tool_calls;
  std::vector<TokenNote> tokens;  // with logprobs or trace
  bool is_first = false;          // the first of its choice: chat chunks then name the role
  std::string finish_reason;      // "stop", "length", "tool_calls"; empty: more to come
  std::string stop_string;        // with "stop": the request's string that ended it, if one did
};

/// Sums over the choices of a request.
struct UsageCounts {
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;
  int64_t completion_tokens = 0;
  int64_t reasoning_tokens = 0;  // of these, see ReasoningTokens; add() does not know them
  int64_t rounds = 0, drafted = 0, verified = 0, trimmed = 0, accepted = 0;

  /// add_prompt: false for the second and later answers to one prompt.
  void add(const GenerateStats& stats, bool add_prompt);
};

/// Shares the text of a chunk out among its tokens, for traces: text may come later than its token, and tags
/// of reasoning and calls of tools are no text. The texts of a chunk's tokens together are its reasoning and
/// its content, but for a chunk that shows a part of a token only; then they are so over several chunks.
class TraceText {
 public:
  /// text: of the update with these tokens. events: what became of the text, their `begin` counted over all
  /// updates. Moves to `out` the tokens that were shown or passed over so far; all at the end.
  void share(std::string_view text, std::span<const OutputEvent> events, bool at_end,
             std::vector<TokenNote>& tokens, std::vector<TokenNote>& out);

 private:
  struct Placed {
    TokenNote note;
    size_t begin = 0, end = 0;  // of its bytes in the whole text
  };
  void place(std::string_view text, bool at_end);
  void show(const OutputEvent& event, size_t first, std::vector<TokenNote>& out);
  void release(std::vector<TokenNote>& out);

  std::deque<TokenNote> waiting_;  // their text was not released yet
  std::string released_;           // text of waiting tokens
  std::deque<Placed> placed_;      // released, not shown yet
  size_t placed_end_ = 0;
  size_t passed_ = 0;     // up to here everything was shown or passed over
  std::string leftover_;  // shown before its token could go out
};

/// "data: {...}\n\n".
std::string sse_event(std::string_view json);
/// The end of a stream.
inline constexpr std::string_view kSseDone = "data: [DONE]\n\n";

/// {"id":...,"object":"chat.completion.chunk",...}; with `usage` a chunk without choices that holds it.
std::string write_chunk(const AnswerHead& head, const AnswerPiece& piece);
std::string write_usage_chunk(const AnswerHead& head, const UsageCounts& usage);
/// The whole answer; `choices` by index, each one piece.
std::string write_answer(const AnswerHead& head, const std::vector<AnswerPiece>& choices,
                         const UsageCounts& usage);

}  // namespace dspark
