#pragma once
// One model behind the server: the engine and the one thread that drives it.

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "constrain/output_format.h"
#include "engine/engine.h"
#include "engine/loader.h"
#include "server/completion_request.h"
#include "server/metrics.h"

namespace dspark {

class GrammarConstraint;  // constrain/grammar_constraint.h
class TokenTrie;          // constrain/token_trie.h

/// thread: every member from any thread, but start() and stop() once each.
class ModelHost {
 public:
  /// name: what requests call the model. drafter: how its drafter calls itself, "" for none; then
  /// drafter_error may say why.
  ModelHost(std::string name, std::unique_ptr<LoadedModel> loaded, std::unique_ptr<Engine> engine,
            std::string drafter, std::string drafter_error = {});
  ~ModelHost();
  ModelHost(const ModelHost&) = delete;
  ModelHost& operator=(const ModelHost&) = delete;

  /// Starts the engine's thread.
  void start();
  /// Ends the thread after the step in hand; what still runs gets no further update.
  void stop();

  const std::string& name() const { return name_; }
  const std::string& drafter() const { return drafter_; }
  /// Why there is no drafter though one was asked for; "" otherwise.
  const std::string& drafter_error() const { return drafter_error_; }
  const LoadedModel& loaded() const { return *loaded_; }
  const Tokenizer& tokenizer() const { return *loaded_->tokenizer; }
  const EngineOptions& options() const { return engine_->options(); }
  int32_t context_length() const { return engine_->context_length(); }
  int64_t n_waiting() const { return engine_->n_waiting(); }
  bool has_work() const { return engine_->has_work(); }
  int64_t created() const { return created_; }  // seconds since 1970

  /// As Engine's; the callback runs on the engine's thread and must not block.
  Result<RequestId> submit(GenerateRequest request, StreamCallback on_update);
  Result<RequestId> submit_embedding(EmbedRequest request, EmbedCallback on_result);
  void cancel(RequestId id);
  void hold(RequestId id);
  void release(RequestId id);

  /// The prompts of a request as ids. *reasoning: where a chat's answer stands with reasoning. errors: 400:
  /// the template refuses, no template.
  ApiError encode_prompts(const CompletionRequest& request, std::vector<std::vector<int32_t>>& out,
                          ReasoningStart* reasoning) const;
  /// What request.format, request.tool_choice and strict tools demand, as request.generate.constraint.
  /// errors: 400.
  ApiError constrain(CompletionRequest& request, ReasoningStart reasoning);
  /// How this model writes reasoning and tool calls.
  const OutputFormat& output_format() const { return output_format_; }

  EngineSnapshot snapshot() const;
  RequestMetrics& metrics() { return metrics_; }

 private:
  using Clock = std::chrono::steady_clock;

  void run();
  void wait_for_work(Clock::time_point until);
  void publish();
  void wake();

  Result<std::shared_ptr<const GrammarConstraint>> compile(const CompletionRequest& request,
                                                           ReasoningStart reasoning);

  const std::string name_;
  const std::string drafter_;
  const std::string drafter_error_;
  const int64_t created_;
  std::unique_ptr<LoadedModel> loaded_;
  std::unique_ptr<Engine> engine_;  // keeps references into loaded_
  RequestMetrics metrics_;
  OutputFormat output_format_;

  std::mutex constraints_mutex_;
  std::shared_ptr<const TokenTrie> trie_;  // made when first needed
  /// Compiled grammars by their source, the oldest first.
  std::vector<std::pair<std::string, std::shared_ptr<const GrammarConstraint>>> constraints_;

  mutable std::mutex snapshot_mutex_;
  EngineSnapshot snapshot_;
  std::optional<Clock::time_point> idle_since_;  // while the engine has nothing to do

  std::mutex mutex_;
  std::condition_variable wakeup_;
  bool woken_ = false;
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

/// The tools of a request, as the parser of answers and grammars want them.
std::vector<ToolDescription> described_tools(const CompletionRequest& request);

}  // namespace dspark
