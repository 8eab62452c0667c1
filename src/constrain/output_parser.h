#pragma once
// Turns the text of an answer, as it streams, into content, reasoning and tool calls.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "constrain/output_format.h"

namespace dspark {

/// One piece of an answer. Pieces come in the order of the text.
struct OutputEvent {
  enum class Kind : uint8_t {
    kContent,        // text: more of the visible answer
    kReasoning,      // text: more of the reasoning, without its tags
    kToolCall,       // text: the name of a new call number `call`
    kToolArguments,  // text: more of the arguments of that call, JSON text
    kToolCallEnd,    // that call is complete
  };
  Kind kind = Kind::kContent;
  int32_t call = -1;  // 0, 1, ... for the kinds of tool calls
  std::string text;
  size_t begin = 0;  // of content and reasoning: where in the text that was fed these bytes stand
};

/// Incremental: how the text is cut into pieces changes nothing but where events are cut. Text is held back
/// only as long as it may be the beginning of a marker. White space around reasoning and calls is dropped;
/// what looks like a call but is none comes out as content. thread: one at a time.
class OutputParser {
 public:
  struct Options {
    OutputFormat format;
    bool in_reasoning = false;           // ReasoningStart::kOpen
    std::vector<ToolDescription> tools;  // calls of other names are content; empty: any name
    int32_t max_calls = -1;              // what comes behind so many is dropped; -1: nothing is
  };

  explicit OutputParser(Options options);
  OutputParser(OutputParser&&) noexcept;
  OutputParser& operator=(OutputParser&&) noexcept;
  ~OutputParser();

  /// Appends what more text means to `events`. Text: that of StreamUpdate, and of the control tokens that
  /// marker_texts() names.
  void feed(std::string_view text, std::vector<OutputEvent>& events);
  /// The answer is over: gives out what was held back. A call that was cut off has no kToolCallEnd.
  void finish(std::vector<OutputEvent>& events);
  /// Calls begun so far.
  int32_t n_calls() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

/// A whole answer at once; joins events of one kind.
struct ParsedOutput {
  struct Call {
    std::string name;
    std::string arguments;  // JSON text
    bool complete = false;
  };
  std::string content;
  std::string reasoning;
  std::vector<Call> calls;
};
ParsedOutput parse_output(std::string_view text, OutputParser::Options options);

}  // namespace dspark
