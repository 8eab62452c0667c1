#pragma once
// The engine: several sequences in one ragged batch, stepped by draft -> plan -> verify -> accept.

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "draft/drafter.h"
#include "engine/adaptive_planner.h"
#include "engine/request.h"
#include "engine/sequence.h"
#include "kernels/kv_cache.h"
#include "kernels/kv_pages.h"
#include "models/model.h"
#include "speculate/logits_processor.h"
#include "speculate/scheduler_stats.h"

namespace dspark {

struct EngineOptions {
  int32_t max_sequences = 1;   // sequences decoded at the same time; others wait
  int32_t context_length = 0;  // most tokens of one sequence; 0: the model's
  int64_t kv_tokens = 0;       // tokens the cache holds in total; 0: max_sequences * context_length
  KvDType kv_dtype = KvDType::kBF16;
  int32_t prefill_rows = 512;     // prompt rows per step, shared by all sequences in prefill
  int32_t max_batch_rows = 2048;  // most rows of one forward pass; more than max_sequences
  VerifyPolicy policy;            // default verify policy; without a drafter nothing is drafted
  AcceptRule accept_rule = AcceptRule::kCoupled;  // default rule; greedy requests accept by equality always
  /// What passes cost, for the policies that need to know; measured by Engine::create when it is not given
  /// and the default policy is one of them.
  std::optional<CostTable> costs;
  double cost_probe_s = 0.5;     // time for that measurement
  std::vector<int32_t> eos_ids;  // ids that end the text unless a request ignores them
  TokenBytesFn token_bytes;      // needed for stop strings and StreamUpdate::text

  /// errors: invalid_argument naming the option.
  Status validate() const;
};

/// What the last step cost and did.
struct StepStats {
  int32_t decode_sequences = 0;
  int32_t decode_rows = 0;  // anchors and verified drafts
  int32_t prefill_rows = 0;
  int32_t committed_tokens = 0;
  double draft_s = 0;    // proposals
  double forward_s = 0;  // the target's pass
  double commit_s = 0;   // telling the drafter what was committed
  double step_s = 0;
  int32_t drafted_tokens = 0;  // usable drafts of all sequences
  StepShape shape;             // what the passes worked on
  double predicted_s = 0;      // by the cost model, before it saw this step; 0 without one
};

/// Sums since the engine was made.
struct EngineStats {
  int64_t steps = 0;
  int64_t prompt_tokens = 0;  // prompt rows computed
  int64_t output_tokens = 0;  // tokens committed
  int64_t requests_finished = 0;
  double draft_s = 0;
  double forward_s = 0;
  double commit_s = 0;
  double step_s = 0;
  SpeculationStats speculation;
  SchedulerStats scheduler;
};

/// thread: submit(), cancel() and has_work() from any thread; everything else from the one engine thread.
/// The text of a request is a function of its prompt, its sampling parameters and the model alone: not of the
/// drafter, the policy, the other requests, or how the prompt was cut into steps. Under kRejection and kBlock
/// that holds for its distribution; the text itself depends on drafter and policy too.
class Engine {
 public:
  /// requires: `model` outlives the engine and is used by it alone. drafter: may be null.
  /// errors: invalid_argument (options), out_of_memory (cache).
  static Result<std::unique_ptr<Engine>> create(TargetModel& model, EngineOptions options,
                                                std::unique_ptr<Drafter> drafter = nullptr);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  /// Queues a request. `on_update` gets at least one update, the last with a finish reason.
  /// errors: invalid_argument, resource_exhausted (the prompt does not fit the context or the cache).
  Result<RequestId> submit(GenerateRequest request, StreamCallback on_update);
  /// Ends a request at the next step; unknown or finished ids are ignored.
  void cancel(RequestId id);
  /// Requests waiting or running, or cancellations to be delivered.
  bool has_work() const;

  /// One step of every running sequence; callbacks are called inside. A no-op without work.
  void step();

  const EngineOptions& options() const { return options_; }
  const ModelConfig& model_config() const { return model_.config(); }
  const Drafter* drafter() const { return drafter_.get(); }
  const StepStats& last_step() const { return step_stats_; }
  const EngineStats& stats() const { return stats_; }
  /// The cost model behind adaptive policies; null without one.
  const CostModel* costs() const { return planner_ != nullptr ? &planner_->costs() : nullptr; }
  int32_t context_length() const { return options_.context_length; }
  /// Pages, queue and sequences agree with each other. For tests: costs time in proportion to the cache.
  Status check_integrity() const;

 private:
  using Clock = std::chrono::steady_clock;

  Engine(TargetModel& model, EngineOptions options, std::unique_ptr<Drafter> drafter, KvPool pool);

  Status reserve();
  Status make_planner();

  // The step, in this order; each reads what the ones before it left in `running_` and the step buffers.
  void admit();
  void draft();
  void plan();
  void batch();
  void forward();
  void accept();
  void commit();
  void emit();
  void learn();

  StepShape shape_without_drafts() const;
  int32_t adaptive_draft_length();
  void plan_adaptive();
  void take_inbox();
  bool try_start(Sequence& sequence);
  bool decodes(const Sequence& sequence) const;
  std::span<const float> confidences(const Sequence& sequence) const;
  void append_rows(Sequence& sequence, std::span<const int32_t> tokens, int32_t n_logits);
  void accept_sequence(Sequence& sequence);
  std::span<const int32_t> verified_drafts(const Sequence& sequence) const;
  std::span<const float> logits_row(const Sequence& sequence, int32_t i) const;
  AcceptResult judge(Sequence& sequence, std::span<const int32_t> drafts);
  AcceptResult judge_by_equality(Sequence& sequence, std::span<const int32_t> drafts);
  AcceptResult judge_by_probability(Sequence& sequence, std::span<const int32_t> drafts);
  void end_round(Sequence& sequence, const AcceptResult& run);
  void keep_token(Sequence& sequence, const TokenEvent& event);
  void finish(Sequence& sequence, FinishReason reason);
  void tell_drafter();
  void close(Sequence& sequence);
  RoundView round_of(const Sequence& sequence) const;
  void deliver(Sequence& sequence);

  TargetModel& model_;
  EngineOptions options_;
  std::unique_ptr<Drafter> drafter_;
  std::unique_ptr<AdaptivePlanner> planner_;  // null: no policy here weighs costs
  KvPool pool_;
  PageAllocator pages_;
  int64_t reserved_pages_ = 0;  // worst case of all running sequences; never more than there are

  std::vector<std::unique_ptr<Sequence>> waiting_;  // in order of submission
  std::vector<std::unique_ptr<Sequence>> running_;  // in order of admission
  std::vector<std::unique_ptr<Sequence>> ended_;    // cancelled before they started
  std::vector<int32_t> free_slots_;

  // Step buffers, reused.
  std::vector<DraftRequest> draft_requests_;
  DraftBlock draft_block_;
  std::vector<int32_t> verify_lengths_;
  std::vector<PlanSequence> plan_sequences_;  // plan(): those with an adaptive policy
  std::vector<int32_t> plan_lengths_;
  std::vector<int32_t> picks_;  // accept(): tokens of the round in hand, accepted drafts first
  ForwardBatch batch_;
  ForwardResult result_;
  std::vector<CommitEvent> commit_events_;
  SamplerScratch sampler_;
  DrawScratch draws_;
  std::vector<float> probabilities_;  // (vocabulary) of the row in hand, for kRejection and kBlock
  StepStats step_stats_;
  EngineStats stats_;
  Clock::time_point step_start_;

  // Shared with other threads.
  mutable std::mutex inbox_mutex_;
  std::vector<std::unique_ptr<Sequence>> submitted_;
  std::vector<RequestId> cancelled_;
  RequestId next_id_ = 1;
  std::atomic<int64_t> n_open_{0};  // requests whose last update was not delivered yet
};

}  // namespace dspark
