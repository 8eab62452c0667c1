#include "constrain/output_events.h"

#include <algorithm>
#include <utility>

#include "constrain/text_scan.h"

namespace dspark {

void OutputEvents::write_to(std::vector<OutputEvent>& events) {
  events_ = &events;
  first_event_ = events.size();
}

void OutputEvents::emit(OutputEvent::Kind kind, std::string_view text, int32_t call) {
  if (is_over_) return;
  if (events_->size() > first_event_ && events_->back().kind == kind && events_->back().call == call &&
      kind == OutputEvent::Kind::kToolArguments) {
    events_->back().text += text;
    return;
  }
  events_->push_back({kind, call, std::string(text)});
}

// Text that stands at `begin`, and the blanks in front of it.
void OutputEvents::emit_text(OutputEvent::Kind kind, std::string_view text, size_t begin) {
  if (is_over_) return blanks_.clear();
  begin -= blanks_.size();
  const bool goes_on = events_->size() > first_event_ && events_->back().kind == kind &&
                       events_->back().begin + events_->back().text.size() == begin;
  if (!goes_on) events_->push_back({kind, -1, {}, begin});
  events_->back().text.append(std::exchange(blanks_, {})).append(text);
}

void OutputEvents::emit_content(std::string_view text, size_t begin) {
  const size_t dropped = drop_blanks_ ? leading_blanks(text) : 0;
  text.remove_prefix(dropped);
  if (text.empty()) return;
  drop_blanks_ = false;
  const size_t blanks = tools() == ToolFormat::kNone ? 0 : trailing_blanks(text);
  const std::string_view solid = text.substr(0, text.size() - blanks);
  if (!solid.empty()) emit_text(OutputEvent::Kind::kContent, solid, begin + dropped);
  blanks_ += text.substr(solid.size());
}

void OutputEvents::emit_reasoning(std::string_view text, size_t begin) {
  const size_t dropped = has_reasoning_ ? 0 : leading_blanks(text);
  text.remove_prefix(dropped);
  if (text.empty()) return;
  has_reasoning_ = true;
  const std::string_view solid = text.substr(0, text.size() - trailing_blanks(text));
  if (!solid.empty()) emit_text(OutputEvent::Kind::kReasoning, solid, begin + dropped);
  blanks_ += text.substr(solid.size());
}

bool OutputEvents::is_wanted(const std::string& name) const {
  const std::vector<ToolDescription>& tools = options_.tools;
  const auto has_name = [&](const ToolDescription& tool) { return tool.name == name; };
  return !name.empty() && (tools.empty() || std::any_of(tools.begin(), tools.end(), has_name));
}

void OutputEvents::begin_call(const std::string& name) {
  blanks_.clear();
  in_call_ = true;
  if (has_all_calls()) is_over_ = true;  // a call that broke off counts too
  if (!is_over_) emit(OutputEvent::Kind::kToolCall, name, n_calls_++);
}

void OutputEvents::add_arguments(std::string_view text) {
  if (!text.empty()) emit(OutputEvent::Kind::kToolArguments, text, n_calls_ - 1);
}

void OutputEvents::end_call() {
  in_call_ = false;
  emit(OutputEvent::Kind::kToolCallEnd, "", n_calls_ - 1);
  if (has_all_calls()) is_over_ = true;
  drop_blanks_ = true;
}

void OutputEvents::whole_call(const std::string& name, const std::string& call_arguments) {
  begin_call(name);
  add_arguments(call_arguments);
  end_call();
}

}  // namespace dspark
