#include "constrain/output_parser.h"

#include <algorithm>
#include <utility>

#include "constrain/call_reader.h"
#include "constrain/call_scanner.h"
#include "constrain/output_events.h"
#include "constrain/text_scan.h"

namespace dspark {
namespace {

constexpr std::string_view kHermesBegin = "<tool_call>";
constexpr std::string_view kHermesEnd = "</tool_call>";
constexpr std::string_view kPythonTag = "<|python_tag|>";
constexpr std::string_view kFence = "```";
constexpr std::string_view kCallsEnd = "<｜tool▁calls▁end｜>";
constexpr std::string_view kCallBegin = "<｜tool▁call▁begin｜>";
constexpr std::string_view kSeparator = "<｜tool▁sep｜>";
}  // namespace

// One mode at a time reads from `buffer_`; a mode's function returns false when it needs more text.
class OutputParser::Impl : private OutputEvents {
 public:
  explicit Impl(Options options) : OutputEvents(std::move(options)) {
    mode_ = options_.in_reasoning ? Mode::kReasoning : Mode::kStart;
  }

  void feed(std::string_view text, std::vector<OutputEvent>& events) {
    write_to(events);
    buffer_ += text;
    while (!buffer_.empty() && advance()) {
    }
  }

  void finish(std::vector<OutputEvent>& events) {
    write_to(events);
    is_last_ = true;
    while (advance()) {
    }
  }

  int32_t n_calls() const { return n_calls_; }

 private:
  enum class Mode : uint8_t {
    kStart,  // nothing but blanks yet
    kReasoning,
    kContent,
    kJsonCall,  // inside a call that CallScanner reads
    kSkipCall,  // the rest of a broken call
    kAfterCall,
    kPython,     // until the end: code, or a list of calls
    kFence,      // until the closing fence
    kHead,       // DeepSeek: up to the arguments
    kArguments,  // DeepSeek
    kBetween,    // DeepSeek: between calls
    kBlock,      // calls that a CallReader reads
  };

  ReasoningTags tags() const { return reasoning_tags(options_.format.reasoning); }
  // Control tokens mark them: they are no text wherever they stand.
  bool has_channels() const {
    return options_.format.has_reasoning && options_.format.reasoning == ReasoningFormat::kChannel;
  }

  bool advance() {
    switch (mode_) {
      case Mode::kStart:
        return start();
      case Mode::kReasoning:
        return reasoning();
      case Mode::kContent:
        return content();
      case Mode::kJsonCall:
        return json_call();
      case Mode::kSkipCall:
        return skip_call();
      case Mode::kAfterCall:
        return after_call();
      case Mode::kPython:
        return python();
      case Mode::kFence:
        return fence();
      case Mode::kHead:
        return head();
      case Mode::kArguments:
        return arguments();
      case Mode::kBetween:
        return between();
      case Mode::kBlock:
        return block();
    }
    return false;
  }

  // The first n bytes of the buffer are understood.
  void drop(size_t n) {
    buffer_.erase(0, n);
    buffer_begin_ += n;
  }
  std::string drop_all() {
    buffer_begin_ += buffer_.size();
    return std::exchange(buffer_, {});
  }

  // Modes.

  bool start() {
    const size_t blanks = leading_blanks(buffer_);
    const std::string_view rest = std::string_view(buffer_).substr(blanks);
    if (rest.empty() && !is_last_) return false;
    if (options_.format.has_reasoning) {
      if (rest.starts_with(tags().begin)) {
        drop(blanks + tags().begin.size());
        return go(Mode::kReasoning);
      }
      if (!is_last_ && tags().begin.starts_with(rest)) return false;
    }
    return whole_answer(blanks);
  }

  // Formats in which the whole answer may be a call.
  bool whole_answer(size_t blanks) {
    const std::string_view rest = std::string_view(buffer_).substr(blanks);
    if (tools() == ToolFormat::kLlama3) {
      if (rest.starts_with(kPythonTag)) {
        raw_ = "";
        drop(blanks + kPythonTag.size());
        return go(Mode::kPython);
      }
      if (!is_last_ && !rest.empty() && kPythonTag.starts_with(rest)) return false;
    }
    const bool by_json = tools() == ToolFormat::kLlama3 || tools() == ToolFormat::kGemma;
    if (by_json && rest.starts_with("{")) return open_json_call("", blanks);
    if (tools() == ToolFormat::kGemma && rest.starts_with("[")) {
      const size_t next = rest.find_first_not_of(kBlanks, 1);
      if (next == std::string_view::npos && !is_last_) return false;
      const char c = next == std::string_view::npos ? ' ' : rest[next];
      if (c == '{' || c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) return go(Mode::kPython);
    }
    return go(Mode::kContent);
  }

  bool open_json_call(std::string_view marker, size_t blanks) {
    raw_ = buffer_.substr(0, blanks) + std::string(marker);
    drop(blanks + marker.size());
    scanner_ = CallScanner();
    return go(Mode::kJsonCall);
  }

  bool go(Mode mode) {
    mode_ = mode;
    return true;
  }

  bool reasoning() {
    const size_t end = buffer_.find(tags().end);
    if (end != std::string::npos) {
      emit_reasoning(std::string_view(buffer_).substr(0, end), buffer_begin_);
      drop(end + tags().end.size());
      blanks_.clear();
      drop_blanks_ = true;
      if (!has_channels()) options_.format.has_reasoning = false;  // one part per answer
      return go(Mode::kStart);
    }
    const size_t held = is_last_ ? 0 : partial_match(buffer_, tags().end);
    emit_reasoning(std::string_view(buffer_).substr(0, buffer_.size() - held), buffer_begin_);
    drop(buffer_.size() - held);
    return false;
  }

  bool content() {
    std::vector<std::string_view> markers = call_markers(tools());
    if (has_channels()) markers.push_back(tags().begin);
    size_t at = std::string::npos, held = 0;
    std::string_view found;
    for (std::string_view marker : markers) {
      const size_t begin = buffer_.find(marker);
      if (begin < at) at = begin, found = marker;
      held = std::max(held, partial_match(buffer_, marker));
    }
    if (at == std::string::npos) {
      if (is_last_) held = 0;
      emit_content(std::string_view(buffer_).substr(0, buffer_.size() - held), buffer_begin_);
      drop(buffer_.size() - held);
      // What was said before white space at the very end stands for itself.
      if (is_last_ && n_calls_ == 0 && !blanks_.empty()) emit_blanks(buffer_begin_);
      return false;
    }
    emit_content(std::string_view(buffer_).substr(0, at), buffer_begin_);
    drop(at);
    if (has_channels() && found == tags().begin) {
      blanks_.clear();
      drop(found.size());
      return go(Mode::kReasoning);
    }
    if (!block_markers(tools()).empty()) {
      raw_.clear();
      reader_ = make_call_reader(tools(), options_.tools);
      return go(Mode::kBlock);
    }
    if (found == kHermesBegin) return open_json_call(kHermesBegin, 0);
    if (found == kFence) return open_fence();
    raw_ = std::string(found);
    drop(found.size());
    return go(found == kCallBegin ? Mode::kHead : Mode::kBetween);
  }

  // What looked like a call is content after all.
  bool give_up() {
    // Its first byte at least is content: it must not be found to be a call again.
    std::string text = std::exchange(raw_, {});
    drop_blanks_ = drop_blanks_ && n_calls_ > 0;
    emit_content(text, buffer_begin_ - text.size());
    return go(Mode::kContent);
  }

  bool json_call() {
    const bool needs_arguments = tools() != ToolFormat::kHermes;
    size_t i = 0;
    while (i < buffer_.size() && scanner_.state() == CallScanner::State::kRunning) {
      scanner_.feed(buffer_[i++]);
      if (!in_call_ && scanner_.has_name() && scanner_.has_arguments()) {
        if (!is_wanted(scanner_.name())) break;
        begin_call(scanner_.name());
      }
      if (in_call_) add_arguments(scanner_.take_arguments());
    }
    raw_ += buffer_.substr(0, i);
    drop(i);
    const CallScanner::State state = scanner_.state();
    const bool is_unwanted = !in_call_ && scanner_.has_name() && !is_wanted(scanner_.name());
    if (is_unwanted) return give_up();
    if (state == CallScanner::State::kDone) {
      if (!in_call_ && (!scanner_.has_name() || needs_arguments)) return give_up();
      if (!in_call_) {
        begin_call(scanner_.name());
        add_arguments("{}");
      }
      end_call();
      return go(Mode::kAfterCall);
    }
    if (state == CallScanner::State::kBad) return in_call_ ? go(Mode::kSkipCall) : give_up();
    if (is_last_ && !in_call_) return give_up();
    return false;
  }

  bool skip_call() {
    const size_t end = tools() == ToolFormat::kHermes ? buffer_.find(kHermesEnd) : std::string::npos;
    in_call_ = false;
    drop_blanks_ = true;
    if (end == std::string::npos) {
      const size_t held = is_last_ ? 0 : partial_match(buffer_, kHermesEnd);
      drop(buffer_.size() - held);
      return false;
    }
    drop(end + kHermesEnd.size());
    return go(Mode::kContent);
  }

  bool after_call() {
    drop(leading_blanks(buffer_));
    if (buffer_.empty()) return false;
    if (tools() == ToolFormat::kHermes) {
      if (buffer_.starts_with(kHermesEnd)) {
        drop(kHermesEnd.size());
      } else if (!is_last_ && kHermesEnd.starts_with(buffer_)) {
        return false;
      }
      return go(Mode::kContent);
    }
    if (buffer_[0] == ';' || buffer_[0] == ',') {
      drop(1);
      return true;
    }
    if (buffer_[0] == '{') return open_json_call("", 0);
    return go(Mode::kContent);
  }

  bool python() {
    // Calls in JSON may stand behind the tag too.
    const size_t blanks = leading_blanks(buffer_);
    if (tools() == ToolFormat::kLlama3) {
      if (blanks == buffer_.size() && !is_last_) return false;
      if (blanks < buffer_.size() && buffer_[blanks] == '{') return open_json_call("", blanks);
    }
    if (!is_last_) return false;
    const std::string text = drop_all();
    if (calls_in(text)) return false;
    if (tools() == ToolFormat::kLlama3 && is_wanted("python")) {
      whole_call("python", "{\"code\": " + json_quoted(trimmed(text)) + "}");
      return false;
    }
    raw_ = text;
    return give_up();
  }

  bool open_fence() {
    // Only a few words begin a call; anything else is content at once.
    constexpr std::string_view kOpenings[] = {"```json\n", "```tool_code\n", "```tool_call\n"};
    size_t length = kFence.size();
    for (std::string_view opening : kOpenings) {
      if (buffer_.starts_with(opening)) length = opening.size();
      if (!is_last_ && buffer_.size() < opening.size() && opening.starts_with(buffer_)) return false;
    }
    raw_ = buffer_.substr(0, length);
    drop(length);
    return length > kFence.size() ? go(Mode::kFence) : give_up();
  }

  bool fence() {
    const size_t end = buffer_.find(kFence);
    if (end == std::string::npos && !is_last_) return false;
    const std::string body = buffer_.substr(0, end);
    const size_t length = end == std::string::npos ? buffer_.size() : end + kFence.size();
    raw_ += buffer_.substr(0, length);
    drop(length);
    if (!calls_in(body)) return give_up();
    raw_.clear();
    return go(Mode::kContent);
  }

  // Emits the calls that a text consists of. returns: false when it is something else.
  bool calls_in(std::string_view text) {
    const std::vector<PythonCall> calls = read_calls(text);
    const auto wanted = [this](const PythonCall& call) { return is_wanted(call.name); };
    if (calls.empty() || !std::all_of(calls.begin(), calls.end(), wanted)) return false;
    for (const PythonCall& call : calls) whole_call(call.name, call.arguments);
    return true;
  }

  bool head() {
    const size_t separator = buffer_.find(kSeparator);
    if (separator == std::string::npos) return cut_off();
    std::string_view name = trimmed(std::string_view(buffer_).substr(0, separator));
    const size_t behind = separator + kSeparator.size();
    size_t begin = behind;
    if (tools() == ToolFormat::kDeepSeekR1 || name == "function") {
      const size_t line = buffer_.find('\n', behind);
      if (line == std::string::npos) return cut_off();
      name = trimmed(std::string_view(buffer_).substr(behind, line - behind));
      begin = line;
    }
    // A fence may open before the arguments.
    begin = buffer_.find('{', begin);
    if (begin == std::string::npos) return cut_off();
    const std::string call_name(name);
    raw_ += buffer_.substr(0, begin);
    drop(begin);
    if (!is_wanted(call_name)) return give_up();
    begin_call(call_name);
    scanner_ = CallScanner();
    for (char c : std::string_view("{\"name\":\"\",\"arguments\":")) scanner_.feed(c);
    return go(Mode::kArguments);
  }

  bool cut_off() {
    if (!is_last_) return false;
    raw_ += drop_all();
    return give_up();
  }

  bool arguments() {
    size_t i = 0;
    while (i < buffer_.size() && !scanner_.arguments_complete()) scanner_.feed(buffer_[i++]);
    drop(i);
    add_arguments(scanner_.take_arguments());
    if (!scanner_.arguments_complete()) return false;
    end_call();
    return go(Mode::kBetween);
  }

  bool between() {
    const size_t next = buffer_.find(kCallBegin), end = buffer_.find(kCallsEnd);
    if (next == std::string::npos && end == std::string::npos) {
      if (!is_last_) return false;
      drop_all();
      return false;
    }
    const bool is_end = end < next;
    drop(is_end ? end + kCallsEnd.size() : next + kCallBegin.size());
    raw_ = std::string(kCallBegin);
    drop_blanks_ = true;
    return go(is_end ? Mode::kContent : Mode::kHead);
  }

  bool block() {
    const CallStep step = reader_->next(buffer_, is_last_);
    if (!in_call_) raw_ += buffer_.substr(0, step.used);
    drop(step.used);
    switch (step.kind) {
      case CallStep::Kind::kMore:
        if (is_last_ && in_call_) drop_all();
        return !in_call_ && cut_off();
      case CallStep::Kind::kPassed:
        return true;
      case CallStep::Kind::kName:
        if (!is_wanted(step.text)) return give_up();
        begin_call(step.text);
        return true;
      case CallStep::Kind::kArguments:
        add_arguments(step.text);
        return true;
      case CallStep::Kind::kCallEnd:
        end_call();
        break;
      case CallStep::Kind::kBroken:
        in_call_ = false;
        break;
      case CallStep::Kind::kBlockEnd:
        in_call_ = false;
        go(Mode::kContent);
        break;
      case CallStep::Kind::kNoCall:
        return give_up();
    }
    raw_.clear();
    drop_blanks_ = true;
    return true;
  }

  Mode mode_;
  std::string buffer_;       // not understood yet
  size_t buffer_begin_ = 0;  // its place in the whole text
  std::string raw_;          // of a possible call: its text so far
  CallScanner scanner_;
  std::unique_ptr<CallReader> reader_;
  bool is_last_ = false;
};

OutputParser::OutputParser(Options options) : impl_(std::make_unique<Impl>(std::move(options))) {}
OutputParser::OutputParser(OutputParser&&) noexcept = default;
OutputParser& OutputParser::operator=(OutputParser&&) noexcept = default;
OutputParser::~OutputParser() = default;

void OutputParser::feed(std::string_view text, std::vector<OutputEvent>& events) {
  impl_->feed(text, events);
}
void OutputParser::finish(std::vector<OutputEvent>& events) {
  impl_->finish(events);
}
int32_t OutputParser::n_calls() const {
  return impl_->n_calls();
}

ParsedOutput parse_output(std::string_view text, OutputParser::Options options) {
  OutputParser parser(std::move(options));
  std::vector<OutputEvent> events;
  parser.feed(text, events);
  parser.finish(events);
  ParsedOutput parsed;
  for (OutputEvent& event : events) {
    switch (event.kind) {
      case OutputEvent::Kind::kContent:
        parsed.content += event.text;
        break;
      case OutputEvent::Kind::kReasoning:
        parsed.reasoning += event.text;
        break;
      case OutputEvent::Kind::kToolCall:
        parsed.calls.push_back({std::move(event.text), "", false});
        break;
      case OutputEvent::Kind::kToolArguments:
        parsed.calls.back().arguments += event.text;
        break;
      case OutputEvent::Kind::kToolCallEnd:
        parsed.calls.back().complete = true;
        break;
    }
  }
  return parsed;
}

}  // namespace dspark
