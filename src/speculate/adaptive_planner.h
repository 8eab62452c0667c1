#pragma once
// Verify lengths for a whole batch from confidences, history and what steps cost: the policies "causal" and
// "adaptive" (DSpark, sections 4.6 and 5.2). Decides also how much to draft, and when not to draft at all.
// docs/scheduling.md tells what each decision looks at.

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "speculate/batch_scheduler.h"
#include "speculate/cost_model.h"
#include "speculate/draft_gate.h"
#include "speculate/scheduler.h"
#include "speculate/scheduler_stats.h"
#include "speculate/step_bias.h"

namespace dspark {

/// Survival probabilities of a sequence's drafts in the last two steps that drafted for it; entries behind
/// `n` are not known. Budgets that must not anticipate come from the older one, so that a step can be laid
/// out while the one before it still runs.
struct SurvivalRecord {
  std::array<double, kMaxDraftTokens> values{};  // of the newest step
  int32_t n = 0;
  std::array<double, kMaxDraftTokens> older{};
  int32_t n_older = 0;
};

/// One decoding sequence, as a plan sees it.
struct PlanSequence {
  int32_t n_drafts = 0;               // usable drafts
  int32_t n_asked = 0;                // drafts asked for; a drafter that stops early anticipates its drafts
  std::span<const float> confidence;  // of them; empty: the drafter says nothing
  /// The accept rule keeps the target's distribution under any schedule (greedy, coupled). If one adaptive
  /// sequence's does not, all of them are planned from records, which were made before its drafts were.
  bool any_schedule = true;
  SurvivalRecord* record = nullptr;                         // read, then rewritten with this step's
  VerifyPolicy::Kind kind = VerifyPolicy::Kind::kAdaptive;  // or kCausal
};

/// What decodes beside the sequences that a planner decides about: those whose policy needs no costs. Their
/// rows are part of the step and their tokens part of what it brings, but they are no verdict on drafts.
struct PlanNeighbours {
  int32_t n_sequences = 0;
  int32_t rows = 0;             // their anchors and drafts
  int64_t context = 0;          // sum of their cached positions
  int64_t row_context = 0;      // sum of rows * cached positions
  int32_t draft_sequences = 0;  // of these, sequences that are drafted for
  int32_t draft_length = 0;     // drafts asked for, at most
  double tokens = 0.0;          // that they commit in the step: expected, or seen

  /// One more, with `n_drafts` verified of `n_asked` and `n_cached` positions in the cache.
  void add(int32_t n_drafts, int32_t n_asked, int64_t n_cached, double n_tokens) {
    ++n_sequences;
    rows += 1 + n_drafts;
    context += n_cached;
    row_context += (1 + n_drafts) * n_cached;
    draft_sequences += n_asked > 0 ? 1 : 0;
    draft_length = n_asked > draft_length ? n_asked : draft_length;
    tokens += n_tokens;
  }
};

/// Conditional acceptance by draft position, forgetting slowly.
struct AcceptanceCount {
  double tries = 0.0;
  double hits = 0.0;
};

/// Decoding sequences that may draft.
struct PlanLoad {
  int32_t n_sequences = 0;
  int32_t n_ready = 0;  // of these, what the drafter has all it needs of
  /// The others that decode; `rows` with all drafts that are asked for. What they will commit is taken from
  /// what such sequences committed of late.
  PlanNeighbours neighbours = {};
};

/// What a planner learned, to start the next one with (engine/cost_file.h keeps it on disk).
struct PlannerMemory {
  std::array<AcceptanceCount, kMaxDraftTokens> acceptance{};
};

/// Only sequences with a policy that needs costs are told to it; the others of a step are its neighbours.
/// Loads are numbers of decoding sequences, neighbours included.
///
/// thread: the engine thread. No allocation in steady state.
class AdaptivePlanner {
 public:
  /// requires: table.validate().ok().
  explicit AdaptivePlanner(CostTable table, const PlannerMemory& memory = {});

  /// How many tokens to draft for each sequence, at most `max_block`; 0: do not draft in this step.
  /// As many as bring most: a position is worth what it was verified and accepted of late at such a load,
  /// less the rows it took, and costs what the drafter's pass grows by it. One more now and then. Zero while
  /// drafting does not pay at this load (DraftGate), or in this step, because it reads `prompt_rows` rows of
  /// prompts too and further rows are dear there, or because less than half of the sequences are ready: what
  /// a few win says little of what all would. Once in every step, without sequences too: what other policies
  /// do in it is no verdict on this one. Gains are counted in steps only that this was called for.
  int32_t draft_length(PlanLoad load, int32_t max_block, int32_t prompt_rows = 0);
  int32_t draft_length(int32_t n_sequences, int32_t max_block, int32_t prompt_rows = 0) {
    return draft_length({n_sequences, n_sequences}, max_block, prompt_rows);
  }

  /// Whether steps of so many sequences, beside the neighbours of the last step, draft for the most part, of
  /// late or, at a load that was never seen, by what acceptance elsewhere promises: what drafts need
  /// beforehand is worth its while then.
  bool drafting_pays(int32_t n_sequences) const;

  /// The verify length of every sequence. `shape`: the step without drafts, all its anchors and prompt rows
  /// included; draft_sequences > 0 when this step drafted. What prompts cost is no part of what is weighed:
  /// they are read whatever is verified. lengths: same size as sequences.
  void verify_lengths(VerifyPolicy::Kind kind, const StepShape& shape,
                      std::span<const PlanSequence> sequences, std::span<int32_t> lengths);
  /// The same where every sequence has a kind of its own: the causal ones are planned together, then the
  /// adaptive ones beside what came out for the causal ones. shape: with the rows of `neighbours`, of which
  /// context and expected tokens are read. What a step brings is counted for all who are in it: a draft is
  /// not worth a row that costs the others more than it wins.
  void verify_lengths(const StepShape& shape, std::span<const PlanSequence> sequences,
                      std::span<int32_t> lengths, const PlanNeighbours& neighbours = {});

  /// One round's outcome: what a drafter without confidences is judged by.
  void observe_round(int32_t n_verified, int32_t n_accepted);
  /// What the step's passes really took, and what the drafter did beside them (commit_s), which nobody needs
  /// where nothing is drafted. The step ends with it.
  void observe_step(const StepShape& shape, double verify_s, double draft_s, double commit_s = 0.0);
  /// Whether drafting paid: `n_tokens` committed in the rounds of `n_sequences` sequences in a step of
  /// `shape` that `neighbours` were part of. What steps that did not draft won is ignored.
  void observe_gain(const StepShape& shape, int32_t n_sequences, int32_t n_tokens,
                    const PlanNeighbours& neighbours = {});

  const CostModel& costs() const { return costs_; }
  const DraftGate& gate() const { return gate_; }
  PlannerMemory memory() const { return {acceptance_}; }
  /// All but the drift of calibration, which is the caller's.
  const SchedulerStats& stats() const { return stats_; }

 private:
  /// Rounds that asked for a draft at one position, forgetting slowly; in how many of them it was verified,
  /// and accepted.
  struct AskedCount {
    double asked = 0.0;
    double verified = 0.0;
    double accepted = 0.0;
  };
  /// Drafting steps at one load.
  struct Reach {
    std::array<AskedCount, kMaxDraftTokens> positions{};
    int64_t n_steps = 0;
    double mean_verified = 1.0;  // per sequence, running
  };

  /// Steps without drafts at one load while drafting pays.
  struct PlainSteps {
    int32_t drafting_steps = 0;  // since the last one
    int32_t gap = 2;             // of them until the next one, at most; doubles
    double mean_gain = 0.0;      // of drafting steps, in plain steps; running
  };

  double acceptance_at(size_t draft_idx, double before) const;
  StepShape plain_shape(int32_t n_sequences) const;
  /// The length that pays most by the acceptance seen so far, and its gain over not drafting as a share.
  struct Prospect {
    int32_t length = 0;
    double gain = 0.0;
  };
  bool knows_acceptance() const;
  Prospect prospect(int32_t n_sequences, int32_t max_block) const;
  double drafting_risk(int32_t n_sequences, int32_t length) const;
  double drafts_seconds(const StepShape& shape, int32_t n_sequences, const PlanNeighbours& neighbours) const;
  double tokens_beside(int32_t n_sequences) const;
  double row_seconds(int32_t n_sequences, int32_t prompt_rows) const;
  int32_t wanted_length(int32_t n_sequences, int32_t max_block, int32_t prompt_rows) const;
  bool plain_step_is_due();
  void fill_prior(std::span<double> out) const;
  void fill_live(const PlanSequence& sequence, std::span<double> out) const;
  void fill_recorded(const SurvivalRecord& record, std::span<double> out) const;
  void plan(const StepShape& shape, std::span<const PlanSequence> sequences, std::span<int32_t> lengths,
            const PlanNeighbours& neighbours);
  bool measure(std::span<const PlanSequence> sequences);
  int32_t take(bool causal, std::span<const PlanSequence> sequences);
  void fill_step_seconds(const StepShape& shape, int32_t n_more, double context, size_t n_sequences);
  void leave_out_prompts(const StepShape& shape, int32_t n_more, double context);
  void allot(std::span<const PlanSequence> sequences, double given_tokens);
  void remember(std::span<const PlanSequence> sequences);

  CostModel costs_;
  ScheduleScratch scratch_;
  std::array<AcceptanceCount, kMaxDraftTokens> acceptance_{};
  SurvivalRecord prior_;  // running mean of recent survivals
  DraftGate gate_;
  std::array<Reach, DraftGate::kLoads> reach_{};
  std::array<PlainSteps, DraftGate::kLoads> plain_{};
  std::array<StepBias, DraftGate::kLoads> bias_{};
  std::array<double, DraftGate::kLoads> open_share_{};  // of steps of late at a load
  SchedulerStats stats_;
  int32_t steps_unverified_ = 0;
  bool plans_ = false;                               // the step has sequences that it decides about
  int32_t load_ = 0;                                 // of the step
  int32_t n_planned_ = 0;                            // sequences that it decides about
  PlanNeighbours neighbours_;                        // the others
  double tokens_per_neighbour_ = 1.0;                // of late
  double context_per_sequence_ = 0;                  // of those that decoded last
  double commit_s_ = 0;                              // running mean
  std::vector<double> live_, recorded_, prior_row_;  // (sequences, stride), (sequences, stride), (stride)
  std::vector<VerifyPolicy::Kind> kinds_;
  // Of the kind that is being planned; sequences of the other kind have none.
  std::vector<int32_t> n_drafts_, n_asked_, kind_lengths_;
  bool any_schedule_ = true;
  std::vector<double> step_seconds_, alone_seconds_;
};

}  // namespace dspark
