#pragma once
// Chat templates: the Jinja programs that models ship to turn a conversation into a prompt. See
// docs/chat_templates.md for what of Jinja is understood.

#include <ctime>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "base/status.h"

namespace dspark {

/// What a conversation gives its template. The JSON is only read; pointers must outlive the call of render.
struct ChatInputs {
  /// Array of {"role": ..., "content": ..., ...}; required.
  const nlohmann::ordered_json* messages = nullptr;
  /// Array of tool descriptions; none in the template when null.
  const nlohmann::ordered_json* tools = nullptr;
  /// Object of further variables (enable_thinking, documents, ...); they win over all others.
  const nlohmann::ordered_json* extra = nullptr;
  /// Texts of the special tokens; undefined in the template when absent.
  std::optional<std::string> bos_token, eos_token;
  /// Whether the prompt ends with the opening of the assistant's turn.
  bool add_generation_prompt = true;
};

/// A parsed template. Cheap to copy (shared). thread: render from any number of threads at once.
class ChatTemplate {
 public:
  /// The local time that strftime_now() shows.
  using Clock = std::function<std::tm()>;

  /// Parses `source` (the tokenizer.chat_template of a GGUF file, chat_template.jinja of a model folder).
  /// Errors: kCorruptData with the line of a syntax error, kUnsupported for tags of Jinja that chat templates
  /// do not use (include, extends, block, ...), kResourceExhausted for templates nested or sized beyond
  /// reason.
  static Result<ChatTemplate> parse(std::string source);

  /// The prompt for a conversation. Errors: kInvalidArgument with exactly the template's own text when it
  /// calls raise_exception; kInvalidArgument with line, kind and text of any other error in evaluating it;
  /// kResourceExhausted when it runs into a limit on work, memory, output (16 MiB), loops or recursion;
  /// kUnsupported for a feature of Jinja that is not there.
  Result<std::string> render(const ChatInputs& inputs) const;

  /// Renders with exactly these variables (an object), none added.
  Result<std::string> render_variables(const nlohmann::ordered_json& variables) const;

  /// Replaces the clock of strftime_now (default: this machine's local time).
  void set_clock(Clock clock) { clock_ = std::move(clock); }

  /// Whether the template ever reads a variable of this name, e.g. "tools" or "enable_thinking".
  bool uses_variable(std::string_view name) const;

  /// The text that was parsed.
  const std::string& source() const;

 private:
  struct Parsed;
  explicit ChatTemplate(std::shared_ptr<const Parsed> parsed);
  std::shared_ptr<const Parsed> parsed_;
  Clock clock_;
};

}  // namespace dspark
