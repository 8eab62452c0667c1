#pragma once
// The engine: several sequences in one ragged batch, stepped by draft -> plan -> verify -> accept.

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "draft/drafter.h"
#include "engine/accept_scratch.h"
#include "engine/fair_queue.h"
#include "engine/page_cache.h"
#include "engine/request.h"
#include "engine/sequence.h"
#include "kernels/kv_cache.h"
#include "models/model.h"
#include "speculate/acceptance_estimator.h"
#include "speculate/adaptive_planner.h"
#include "speculate/calibration_drift.h"
#include "speculate/scheduler_stats.h"

namespace dspark {

class Engine;

struct EngineOptions {
  int32_t max_sequences = 1;   // sequences decoded at the same time; others wait
  int32_t context_length = 0;  // most tokens of one sequence; 0: the model's
  int64_t kv_tokens = 0;       // tokens the cache holds in total; 0: max_sequences * context_length
  KvDType kv_dtype = KvDType::kBF16;
  int32_t prefill_rows = 128;     // prompt rows per step, of all sequences: suitable_prefill_rows()
  int32_t max_batch_rows = 2048;  // most rows of one forward pass; more than max_sequences
  /// Memory for the logits of a step: drafts whose rows do not fit are trimmed. Two rows for every sequence
  /// and sixteen more fit always.
  int64_t logit_bytes = int64_t{64} << 20;
  bool prefix_cache = true;  // requests that begin alike share their pages, see engine/page_cache.h
  /// Where drafting does not pay, sequences start without giving the drafter features (docs/scheduling.md).
  bool rows_on_demand = true;
  int64_t max_waiting = 0;  // most requests that wait for their first start; 0: any number
  VerifyPolicy policy;      // default verify policy; without a drafter nothing is drafted
  AcceptRule accept_rule = AcceptRule::kCoupled;  // default rule; greedy requests accept by equality always
  /// What passes cost, for the policies that need to know; measured by Engine::create when it is not given
  /// and the default policy is one of them, or always_costs.
  std::optional<CostTable> costs;
  /// Costs are known whatever the default policy is, so that single requests may ask for `adaptive` or
  /// `causal`. Without a drafter nobody needs them.
  bool always_costs = false;
  double cost_probe_s = 0.8;     // time for that measurement; twice that where passes exceed 64 rows
  PlannerMemory planner_memory;  // how drafts fared in earlier runs (engine/cost_file.h)
  std::function<void(const Engine&)>
      on_close;                  // called once, before the engine goes: to keep what it learned
  std::vector<int32_t> eos_ids;  // ids that end the text unless a request ignores them
  TokenBytesFn token_bytes;      // needed for stop strings and StreamUpdate::text
  /// The time that deadlines are compared with and that everything is measured by; empty: the steady clock.
  /// For tests.
  std::function<std::chrono::steady_clock::time_point()> clock = {};

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
  double commit_s = 0;  // telling the drafter what was committed; rows that wait for a block count as draft_s
  double step_s = 0;
  int32_t drafted_tokens = 0;  // usable drafts of all sequences
  StepShape shape;             // what the passes worked on
  double predicted_s = 0;      // by the cost model, before it saw this step; 0 without one
  int32_t rounds = 0;          // verifications, one per decoding sequence
  int32_t round_tokens = 0;    // tokens they committed
  // Of these rounds, what a planner is judged by: those of sequences it decides about, and beside them the
  // others.
  int32_t planned_rounds = 0;
  int32_t planned_tokens = 0;
  PlanNeighbours neighbours;
  int32_t updates = 0;             // told to requests: what was committed, prompts that go on, ends
  int32_t judged_in_parallel = 0;  // sequences that were judged side by side: 0 or at least 2
};

/// Prompt rows per step for a model: as few as keep its passes bound by arithmetic, so that whoever decodes
/// waits for a short pass and the first of several prompts does not wait for the last. A row of a mixture
/// meets few experts, so more rows have to share the reading of their weights.
int32_t suitable_prefill_rows(const ModelConfig& config);

/// Sums since the engine was made.
struct EngineStats {
  int64_t steps = 0;
  int64_t prompt_tokens = 0;      // rows computed of prompts, and of texts after a preemption
  int64_t cached_tokens = 0;      // tokens at starts whose rows were in the cache already
  int64_t recomputed_tokens = 0;  // tokens at starts after a preemption whose rows were not
  int64_t preemptions = 0;
  int64_t evicted_pages = 0;  // remembered pages that were given to somebody else
  int64_t output_tokens = 0;  // tokens committed
  int64_t requests_finished = 0;
  double draft_s = 0;
  double forward_s = 0;
  double commit_s = 0;
  double step_s = 0;
  SpeculationStats speculation;
  SchedulerStats scheduler;
};

/// How full the engine is.
struct EngineLoad {
  int32_t n_running = 0;
  int32_t n_prefilling = 0;  // of these, sequences whose prompt is not done
  int32_t n_waiting = 0;     // preempted ones included
  int32_t n_preempted = 0;   // of these
  int32_t n_pages = 0;
  int32_t n_pages_used = 0;
  int32_t n_pages_idle = 0;  // remembered, in nobody's use
  int32_t n_held = 0;        // of those that run and those that wait, see Engine::hold
};

/// thread: submit(), submit_embedding(), cancel(), hold(), release(), has_work() and n_waiting() from any
/// thread; everything else from the one engine thread. The text of a request is a function of its prompt, its
/// sampling parameters and the model alone: not of the drafter, the policy, the other requests, or how the
/// prompt was cut into steps. Under kRejection and kBlock that holds for its distribution; the text itself
/// depends on drafter and policy too.
class Engine {
 public:
  /// requires: `model` outlives the engine and is used by it alone, or by several engines that step in turn
  /// in one thread, those with a drafter made last and with the same taps. drafter: may be null. errors:
  /// invalid_argument (options), out_of_memory (cache).
  static Result<std::unique_ptr<Engine>> create(TargetModel& model, EngineOptions options,
                                                std::unique_ptr<Drafter> drafter = nullptr);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  /// Queues a request. `on_update` gets at least one update, the last with a finish reason.
  /// errors: invalid_argument, resource_exhausted (the prompt does not fit the context or the cache, or
  /// max_waiting requests wait already).
  Result<RequestId> submit(GenerateRequest request, StreamCallback on_update);
  /// Queues a text to be turned into a vector. errors: those of submit.
  Result<RequestId> submit_embedding(EmbedRequest request, EmbedCallback on_result);
  /// Ends a request at the next step; unknown or finished ids are ignored.
  void cancel(RequestId id);
  /// From the next step on a request gets no rows, whatever it is about, until it is released: for readers
  /// that are slower than the model. It keeps its slot and its pages unless others need them; then it goes
  /// back to the queue, and there, as one that has not started yet, it stays and lets others pass. Its text
  /// does not change by it, nor do others'. Its deadline and its time in the queue go on to count, and it can
  /// be cancelled. Unknown or finished ids are ignored.
  void hold(RequestId id);
  /// Lets a held request go on from the next step on; others are ignored.
  void release(RequestId id);
  /// Requests waiting or running, held ones too, or cancellations to be delivered.
  bool has_work() const;
  /// Requests that wait for their first start.
  int64_t n_waiting() const { return n_waiting_.load(std::memory_order_relaxed); }

  /// One step of every running sequence that is not held; callbacks are called inside. returns: false when
  /// nobody had a row and nobody was told anything: there is no work, or all of it is held or waits for what
  /// is held. Then another step does nothing either before a submit(), cancel() or release(), or
  /// next_expiry().
  bool step();
  /// When the next deadline or time in the queue ends, by the clock of the options; max(): none does.
  std::chrono::steady_clock::time_point next_expiry() const;

  const EngineOptions& options() const { return options_; }
  const ModelConfig& model_config() const { return model_.config(); }
  const Drafter* drafter() const { return drafter_.get(); }
  const StepStats& last_step() const { return step_stats_; }
  const EngineStats& stats() const { return stats_; }
  /// The cost model behind adaptive policies; null without one.
  const CostModel* costs() const { return planner_ != nullptr ? &planner_->costs() : nullptr; }
  /// What plans adaptive verify lengths; null when no policy here does.
  const AdaptivePlanner* planner() const { return planner_.get(); }
  int32_t context_length() const { return options_.context_length; }
  EngineLoad load() const;
  /// Pages, queue and sequences agree with each other. For tests: costs time in proportion to the cache.
  Status check_integrity() const;

 private:
  using Clock = std::chrono::steady_clock;
  using SequenceList = std::vector<std::unique_ptr<Sequence>>;

  Engine(TargetModel& model, EngineOptions options, std::unique_ptr<Drafter> drafter, KvPool pool);

  int64_t max_decode_rows() const;
  Status reserve();
  int32_t most_probed_rows() const;
  Status make_planner();
  void make_page_cache();
  Status fill_sequence(Sequence& sequence, GenerateRequest request);
  Result<RequestId> enqueue(std::unique_ptr<Sequence> sequence, const QueueParams& queue);

  // The step, in this order; each reads what the ones before it left in `running_` and the step buffers.
  void admit();
  void draft();
  void plan();
  void batch();
  void forward();
  void accept();
  void commit();
  void emit();
  void catch_up();
  void learn();

  void learn_costs();
  AcceptanceEstimator& estimator(const Sequence& sequence);
  void estimate_confidences();
  void learn_acceptance(const Sequence& sequence);
  void learn_round(const Sequence& sequence);

  // Sequences with an adaptive policy (plan_step.cc)
  int64_t counted_positions(int64_t n_cached) const;
  StepShape shape_without_drafts() const;
  int32_t draft_limit(const Sequence& sequence, int32_t most) const;
  int32_t adaptive_draft_length();
  void begin_draft_rows();
  void plan_adaptive();
  int32_t n_asked(const Sequence& sequence) const;

  // admit() (admission.cc, preemption.cc)
  Clock::time_point now() const { return options_.clock ? options_.clock() : Clock::now(); }
  void take_inbox();
  void insert_by_rank(SequenceList& list, std::unique_ptr<Sequence> sequence);
  void end_waiting();
  void start_waiting();
  bool has_room_for(const Sequence& sequence) const;
  bool keeps_draft_rows(const Sequence& sequence) const;
  bool starts_where_drafting_pays(const Sequence& sequence) const;
  bool shares_only_draft_rows(const Sequence& sequence, std::span<const int32_t> tokens) const;
  bool starts_with_draft_rows(const Sequence& sequence);
  int32_t most_shared_pages(const Sequence& sequence) const;
  void start(Sequence& sequence);
  void secure_pages();
  void preempt(size_t index);
  std::optional<size_t> preempt_one();
  bool preempt_held();
  bool preempt_for_start();
  void trim_drafts_to_pages();

  bool decodes(const Sequence& sequence) const;
  std::span<const float> confidences(const Sequence& sequence) const;
  void share_prompt_rows(int32_t budget);
  void append_prompt_rows(Sequence& sequence);
  void append_rows(Sequence& sequence, std::span<const int32_t> tokens, int32_t n_logits);

  // Constraints and log-probabilities (constraint_step.cc)
  int32_t n_drafts_allowed(Sequence& sequence, std::span<const int32_t> drafts);
  std::span<const float> masked_row(Sequence& sequence, std::span<const float> row);
  int32_t allowed_pick(Sequence& sequence, int32_t pick);
  void add_logprobs(Sequence& sequence, int32_t i);

  bool is_judged_alone(const Sequence& sequence) const;
  void judge_in_parallel();
  void accept_sequence(Sequence& sequence);
  std::span<const int32_t> verified_drafts(const Sequence& sequence) const;
  size_t n_vocab() const { return static_cast<size_t>(model_.config().vocab_size); }
  std::span<const float> logits_row(const Sequence& sequence, int32_t i) const;
  void judge(Sequence& sequence, AcceptScratch& scratch) noexcept;
  AcceptResult judge_by_equality(Sequence& sequence, AcceptScratch& scratch);
  AcceptResult judge_by_probability(Sequence& sequence, AcceptScratch& scratch);
  void end_round(Sequence& sequence, const AcceptResult& run);
  void keep_token(Sequence& sequence, const TokenEvent& event);
  void finish(Sequence& sequence, FinishReason reason);

  // commit() and emit() (commit_step.cc)
  void pool_embedding(Sequence& sequence);
  void tell_drafter();
  void publish_pages(Sequence& sequence);
  void close(Sequence& sequence);
  void count_end(const Sequence& sequence);
  void deliver_embedding(Sequence& sequence);
  RoundView round_of(const Sequence& sequence) const;
  void deliver(Sequence& sequence);

  TargetModel& model_;
  EngineOptions options_;
  std::unique_ptr<Drafter> drafter_;
  std::unique_ptr<AdaptivePlanner> planner_;  // null: no policy here weighs costs
  CalibrationDrift drift_;
  /// Stands in for a confidence head; apart for greedy, coupled and the other rules, whose drafts are
  /// accepted differently.
  std::array<AcceptanceEstimator, 3> estimators_;
  KvPool pool_;
  PageCache pages_;
  PrefixReuse drafter_reuse_ = PrefixReuse::kNever;  // kFromPages only after Drafter::use_pages

  FairQueue queue_;
  SequenceList waiting_;  // by rank, the next one last; new ones and preempted ones
  SequenceList running_;  // by rank, the most senior one first
  SequenceList ended_;    // ended while they waited
  std::vector<int32_t> free_slots_;
  int64_t n_starts_without_pay_ = 0;  // sequences that started while drafting did not pay
  Clock::time_point next_expiry_ = Clock::time_point::max();  // no waiting request expires earlier

  // Step buffers, reused.
  std::vector<DraftRequest> draft_requests_;
  DraftBlock draft_block_;
  std::vector<int32_t> verify_lengths_;
  std::vector<PlanSequence> plan_sequences_;  // plan(): those that are planned together
  std::vector<int32_t> plan_lengths_;
  std::vector<Sequence*> prefills_;  // batch(): sequences in prefill
  std::vector<Sequence*> judged_;    // accept(): those that are judged in parallel
  std::vector<float> masked_;        // (vocabulary) the row in hand under its constraint
  ForwardBatch batch_;
  ForwardResult result_;
  std::vector<CommitEvent> commit_events_;
  std::vector<AcceptScratch> scratches_;  // one per thread that judges, at least one
  StepStats step_stats_;
  EngineStats stats_;
  Clock::time_point step_start_;

  // Shared with other threads.
  mutable std::mutex inbox_mutex_;
  std::vector<std::unique_ptr<Sequence>> submitted_;
  std::vector<RequestId> cancelled_;
  std::vector<std::pair<RequestId, bool>> holds_;  // in their order; false: released
  RequestId next_id_ = 1;
  std::atomic<int64_t> n_open_{0};     // requests whose last update was not delivered yet
  std::atomic<int64_t> n_waiting_{0};  // requests that have not started yet
};

}  // namespace dspark
