#pragma once
// Answers of /v1/chat/completions and /v1/completions as JSON: whole ones and the chunks of streams.

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

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
};

/// One token, as log-probabilities and traces show it.
struct TokenNote {
  std::string bytes;  // may be a part of a character
  TokenEvent event;
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
};

/// Sums over the choices of a request.
struct UsageCounts {
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;
  int64_t completion_tokens = 0;
  int64_t rounds = 0, drafted = 0, verified = 0, trimmed = 0, accepted = 0;

  /// add_prompt: false for the second and later answers to one prompt.
  void add(const GenerateStats& stats, bool add_prompt);
};

/// What a trace needs to share the text of a chunk out among its tokens: text may come later than its token.
struct TraceText {
  std::vector<TokenNote> waiting;  // tokens whose text was not released yet
  std::string released;            // text of waiting tokens

  /// Moves to `out` the tokens that the text released so far covers; all at the end.
  void share(std::string_view text, bool at_end, std::vector<TokenNote>& tokens, std::vector<TokenNote>& out);
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
