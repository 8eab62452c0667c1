#pragma once
// What the parser of answers gives out: joins pieces and drops the white space around reasoning and calls.

#include <string>
#include <string_view>
#include <vector>

#include "constrain/output_parser.h"

namespace dspark {

/// thread: one at a time.
class OutputEvents {
 protected:
  explicit OutputEvents(OutputParser::Options options) : options_(std::move(options)) {}
  ~OutputEvents() = default;

  /// Where events go from now on; those that are there are left alone.
  void write_to(std::vector<OutputEvent>& events);
  ToolFormat tools() const { return options_.format.tools; }
  /// Text of the answer that stands at `begin`. Blanks wait until it is clear that something follows them.
  void emit_content(std::string_view text, size_t begin);
  void emit_reasoning(std::string_view text, size_t begin);
  /// The blanks that waited stand for themselves.
  void emit_blanks(size_t begin) { emit_text(OutputEvent::Kind::kContent, "", begin); }

  bool is_wanted(const std::string& name) const;
  void begin_call(const std::string& name);
  void add_arguments(std::string_view text);
  void end_call();
  void whole_call(const std::string& name, const std::string& call_arguments);

  OutputParser::Options options_;
  std::string blanks_;          // of content or reasoning, held back
  bool in_call_ = false;        // its name was given out
  bool has_reasoning_ = false;  // some was given out
  bool drop_blanks_ = false;    // at the next content
  int32_t n_calls_ = 0;

 private:
  void emit(OutputEvent::Kind kind, std::string_view text, int32_t call);
  void emit_text(OutputEvent::Kind kind, std::string_view text, size_t begin);
  bool has_all_calls() const { return options_.max_calls >= 0 && n_calls_ >= options_.max_calls; }

  bool is_over_ = false;  // nothing more is given out
  std::vector<OutputEvent>* events_ = nullptr;
  size_t first_event_ = 0;  // of this piece of text
};

}  // namespace dspark
