#pragma once
// A loaded model with an engine, ready to answer conversations.

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "cli/answer_printer.h"
#include "cli/run_flags.h"
#include "engine/engine.h"
#include "engine/generation.h"
#include "engine/loader.h"
#include "text/chat_prompt.h"

namespace dspark::cli {

/// Movable; the engine keeps references into the model, which stays where it is.
class Session {
 public:
  /// Loads what the flags name. errors: flags, file, memory.
  static Result<Session> open(const RunFlags& flags);

  /// Whether prompts are turns of a chat (the model has a template and --raw is absent).
  bool is_chat() const { return is_chat_; }
  const LoadedModel& loaded() const { return *loaded_; }
  const Engine& engine() const { return *engine_; }
  const RunFlags& flags() const { return flags_; }
  const VerifyPolicy& policy() const { return engine_->options().policy; }
  uint64_t seed() const { return seed_; }
  /// How the flags want answers shown.
  PrinterOptions printer_options() const;

  /// Ids of a conversation that ends with a user's turn; in raw mode of the last turn's text alone.
  /// errors: the template refuses the conversation.
  Result<std::vector<int32_t>> encode(const std::vector<ChatMessage>& turns) const;
  /// Generates with the flags' options. on_update and cancel: see generate().
  Result<GenerateResult> answer(std::vector<int32_t> prompt, const StreamCallback& on_update,
                                const std::atomic<bool>* cancel);

 private:
  RunFlags flags_;
  uint64_t seed_ = 0;
  bool is_chat_ = false;
  std::unique_ptr<LoadedModel> loaded_;
  std::shared_ptr<const TokenConstraint> constraint_;  // null: answers are free
  std::unique_ptr<Engine> engine_;
};

}  // namespace dspark::cli
