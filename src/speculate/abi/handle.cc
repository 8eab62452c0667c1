// The part of include/dspark/scheduler.h that keeps history.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "speculate/abi/abi_error.h"
#include "speculate/abi/sequence_table.h"
#include "speculate/acceptance_estimator.h"
#include "speculate/adaptive_planner.h"
#include "speculate/calibration_drift.h"

using namespace dspark;
using namespace dspark::abi;

static_assert(DSPARK_SCHED_MAX_DRAFTS == kMaxDraftTokens);
static_assert(DSPARK_SCHED_DRIFT_POSITIONS == kDriftPositions);

/// What a caller holds.
struct dspark_sched {
  dspark_sched(const VerifyPolicy& chosen, int32_t max_sequences) : policy(chosen), sequences(max_sequences) {
    planned.reserve(static_cast<size_t>(max_sequences));
    plan.reserve(static_cast<size_t>(max_sequences));
    forgotten.reserve(static_cast<size_t>(max_sequences));
  }

  VerifyPolicy policy;
  SequenceTable sequences;
  std::optional<AdaptivePlanner> planner;
  std::array<AcceptanceEstimator, 2> estimators;  // rules that allow any schedule, and the others
  CalibrationDrift drift;
  // The last plan.
  std::vector<KnownSequence*> planned;
  std::vector<PlanSequence> plan;
  std::vector<uint8_t> careful;     // must_not_anticipate
  std::vector<uint64_t> forgotten;  // ids of the last plan that ended before its outcome was told
  DraftEvidence evidence_kind = DraftEvidence::kNone;
  bool has_confidence = false;
  uint64_t n_plans = 0;
  StepShape shape;  // with draft rows added by the outcome
  int64_t context = 0, prompt_row_context = 0;
};

namespace dspark::abi {
namespace {

constexpr int64_t kMostContext = int64_t{1} << 48;
constexpr int32_t kMostPromptRows = 1 << 20;

// What the structs had before anything was added to them.
constexpr size_t kFirstStep = offsetof(dspark_sched_step, prompt_context);
constexpr size_t kFirstOutcome = offsetof(dspark_sched_outcome, commit_seconds);

/// Reads a struct of the caller's size; what it does not have stays as the default says.
template <typename Struct>
Result<Struct> read_struct(const char* name, const Struct* from, size_t least) {
  DSPARK_RETURN_IF_ERROR(check_pointer(name, from));
  uint32_t size = 0;
  std::memcpy(&size, from, sizeof(size));
  if (size < least) {
    return want((std::string(name) + ".struct_size").c_str(), "at least " + std::to_string(least),
                std::to_string(size));
  }
  Struct out{};
  std::memcpy(&out, from, std::min<size_t>(size, sizeof(Struct)));
  return out;
}

Result<std::vector<CostPoint>> read_points(const char* field, const dspark_sched_point* points, int32_t n) {
  DSPARK_RETURN_IF_ERROR(check_range((std::string("n_") + field).c_str(), n, 0, 65536));
  DSPARK_RETURN_IF_ERROR(check_pointer(field, points, n > 0));
  std::vector<CostPoint> out;
  for (int32_t i = 0; i < n; ++i) out.push_back({points[i].n, points[i].seconds});
  return out;
}

Result<CostTable> read_table(const dspark_sched_config& config) {
  CostTable table;
  DSPARK_ASSIGN_OR_RETURN(table.verify, read_points("verify", config.verify, config.n_verify));
  DSPARK_ASSIGN_OR_RETURN(table.draft, read_points("draft", config.draft, config.n_draft));
  DSPARK_ASSIGN_OR_RETURN(table.draft_short,
                          read_points("draft_short", config.draft_short, config.n_draft_short));
  table.draft_length = config.draft_length;
  table.context_s = config.context_s;
  table.row_context_s = config.row_context_s;
  table.overhead_s = config.overhead_s;
  DSPARK_RETURN_IF_ERROR(table.validate());
  return table;
}

Status check_step(const dspark_sched_step& step, const int32_t* lengths) {
  const bool any = step.n_sequences > 0;
  DSPARK_RETURN_IF_ERROR(check_batch(step.n_drafts, step.n_sequences, step.stride));
  DSPARK_RETURN_IF_ERROR(check_pointer("sequence_ids", step.sequence_ids, any));
  DSPARK_RETURN_IF_ERROR(check_pointer("lengths", lengths, any));
  DSPARK_RETURN_IF_ERROR(check_range("evidence_kind", step.evidence_kind, 0, 2));
  DSPARK_RETURN_IF_ERROR(check_range("draft_length", step.draft_length, 0, DSPARK_SCHED_MAX_DRAFTS));
  DSPARK_RETURN_IF_ERROR(check_range("prompt_rows", step.prompt_rows, 0, kMostPromptRows));
  DSPARK_RETURN_IF_ERROR(check_range("context", step.context, 0, kMostContext));
  DSPARK_RETURN_IF_ERROR(check_range("prompt_context", step.prompt_context, 0, kMostContext));
  DSPARK_RETURN_IF_ERROR(check_range("prompt_row_context", step.prompt_row_context, 0, kMostContext));
  const bool needs_evidence = step.confidence == nullptr && step.evidence_kind != DSPARK_SCHED_EVIDENCE_NONE;
  DSPARK_RETURN_IF_ERROR(check_pointer("evidence", step.evidence, needs_evidence && any && step.stride > 0));
  for (int32_t i = 0; i < step.n_sequences; ++i) {
    if (step.n_asked != nullptr) {
      DSPARK_RETURN_IF_ERROR(
          check_range("n_asked", step.n_asked[i], step.n_drafts[i], DSPARK_SCHED_MAX_DRAFTS));
    }
    if (step.confidence == nullptr) continue;
    for (int32_t j = 0; j < step.n_drafts[i]; ++j) {
      const float c =
          step.confidence[static_cast<size_t>(i) * static_cast<size_t>(step.stride) + static_cast<size_t>(j)];
      if (!(c >= 0.0f && c <= 1.0f)) return check_probability("confidence", i, j, static_cast<double>(c));
    }
  }
  return ok_status();
}

bool is_careful(const dspark_sched_step& step, size_t i) {
  return step.must_not_anticipate != nullptr && step.must_not_anticipate[i] != 0;
}

/// Copies a sequence's drafts to where the outcome finds them.
void take_drafts(dspark_sched& s, const dspark_sched_step& step, size_t i, KnownSequence& known) {
  const size_t first = i * static_cast<size_t>(step.stride);
  known.n_drafts = step.n_drafts[i];
  for (size_t j = 0; j < static_cast<size_t>(known.n_drafts); ++j) {
    known.evidence[j] = step.evidence != nullptr ? step.evidence[first + j] : 0.0f;
    known.confidence[j] = s.has_confidence
                              ? step.confidence[first + j]
                              : static_cast<float>(s.estimators[is_careful(step, i) ? 1 : 0].confidence(
                                    s.evidence_kind, static_cast<int32_t>(j), known.evidence[j]));
  }
}

/// The last plan is over, with it those of its sequences that had ended already.
void end_plan(dspark_sched& s) {
  s.planned.clear();
  for (const uint64_t id : s.forgotten) s.sequences.erase(id);
  s.forgotten.clear();
}

Status plan_step(dspark_sched& s, const dspark_sched_step& step, int32_t* lengths) {
  DSPARK_RETURN_IF_ERROR(check_step(step, lengths));
  end_plan(s);
  s.plan.clear();
  s.careful.clear();
  s.has_confidence = step.confidence != nullptr;
  ++s.n_plans;
  s.evidence_kind = static_cast<DraftEvidence>(step.evidence_kind);
  for (size_t i = 0; i < static_cast<size_t>(step.n_sequences); ++i) {
    KnownSequence* known = s.sequences.find_or_add(step.sequence_ids[i]);
    if (known == nullptr) {
      s.planned.clear();
      return resource_exhausted(
          "sequence_ids: more than max_sequences are remembered; forget those that ended");
    }
    if (known->plan == s.n_plans) {
      s.planned.clear();
      return want("sequence_ids", "distinct ids", std::to_string(known->id) + " twice");
    }
    known->plan = s.n_plans;
    take_drafts(s, step, i, *known);
    s.planned.push_back(known);
    s.careful.push_back(is_careful(step, i) ? 1 : 0);
    const int32_t n_asked = step.n_asked != nullptr ? step.n_asked[i] : step.n_drafts[i];
    const std::span confidence(known->confidence.data(), static_cast<size_t>(known->n_drafts));
    s.plan.push_back({known->n_drafts, n_asked, confidence, s.careful.back() == 0, &known->survivals});
  }
  s.shape = {};
  s.shape.rows = step.n_sequences + step.prompt_rows;
  s.shape.prompt_rows = step.prompt_rows;
  s.shape.context = step.context + step.prompt_context;
  s.shape.row_context = step.context;
  s.shape.prompt_context = step.prompt_context;
  s.context = step.context;
  s.prompt_row_context = step.prompt_row_context;
  s.shape.draft_length = step.draft_length;
  s.shape.draft_sequences = step.draft_length > 0 ? step.n_sequences : 0;
  const std::span out(lengths, s.planned.size());
  if (s.planner && s.policy.needs_costs()) {
    s.planner->verify_lengths(s.policy.kind, s.shape, s.plan, out);
    return ok_status();
  }
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = verify_length(s.policy, s.plan[i].n_drafts, s.plan[i].confidence);
  }
  return ok_status();
}

Status check_outcome(const dspark_sched_outcome& outcome, const dspark_sched& s) {
  const auto n_planned = static_cast<int64_t>(s.planned.size());
  DSPARK_RETURN_IF_ERROR(check_range("n_sequences", outcome.n_sequences, n_planned, n_planned));
  DSPARK_RETURN_IF_ERROR(check_pointer("n_verified", outcome.n_verified, n_planned > 0));
  DSPARK_RETURN_IF_ERROR(check_pointer("n_accepted", outcome.n_accepted, n_planned > 0));
  for (size_t i = 0; i < s.planned.size(); ++i) {
    DSPARK_RETURN_IF_ERROR(check_range("n_verified", outcome.n_verified[i], 0, s.planned[i]->n_drafts));
    DSPARK_RETURN_IF_ERROR(check_range("n_accepted", outcome.n_accepted[i], 0, outcome.n_verified[i]));
  }
  for (const auto& [field, seconds] : {std::pair{"verify_seconds", outcome.verify_seconds},
                                       {"draft_seconds", outcome.draft_seconds},
                                       {"commit_seconds", outcome.commit_seconds}}) {
    if (!(seconds >= 0.0) || !std::isfinite(seconds)) {
      return want(field, "seconds >= 0", std::to_string(seconds));
    }
  }
  return ok_status();
}

void learn_round(dspark_sched& s, size_t i, int32_t n_verified, int32_t n_accepted) {
  const KnownSequence& known = *s.planned[i];
  const std::span confidence(known.confidence.data(), static_cast<size_t>(n_verified));
  s.drift.add(confidence, n_accepted);
  if (s.planner) s.planner->observe_round(n_verified, n_accepted);
  if (s.has_confidence) return;
  for (int32_t j = 0; j < std::min(n_verified, n_accepted + 1); ++j) {
    s.estimators[s.careful[i]].observe(s.evidence_kind, j, known.evidence[static_cast<size_t>(j)],
                                       j < n_accepted);
  }
}

Status observe_outcome(dspark_sched& s, const dspark_sched_outcome& outcome) {
  DSPARK_RETURN_IF_ERROR(check_outcome(outcome, s));
  const auto n = static_cast<int32_t>(s.planned.size());
  int32_t n_verified = 0, n_tokens = n;
  for (size_t i = 0; i < s.planned.size(); ++i) {
    learn_round(s, i, outcome.n_verified[i], outcome.n_accepted[i]);
    n_verified += outcome.n_verified[i];
    n_tokens += outcome.n_accepted[i];
  }
  end_plan(s);  // an outcome is told once
  for (AcceptanceEstimator& learned : s.estimators) learned.end_step();
  if (!s.planner || n == 0) return ok_status();
  s.shape.rows += n_verified;
  s.shape.row_context += s.context / n * n_verified + s.prompt_row_context;
  s.planner->observe_gain(s.shape, n, n_tokens);
  s.planner->observe_step(s.shape, outcome.verify_seconds, outcome.draft_seconds, outcome.commit_seconds);
  return ok_status();
}

Status choose_length(dspark_sched& s, const dspark_sched_load& load, int32_t* length) {
  DSPARK_RETURN_IF_ERROR(check_pointer("length", length));
  DSPARK_RETURN_IF_ERROR(check_range("n_sequences", load.n_sequences, 0, 65536));
  DSPARK_RETURN_IF_ERROR(check_range("n_unready", load.n_unready, 0, load.n_sequences));
  DSPARK_RETURN_IF_ERROR(check_range("max_block", load.max_block, 0, DSPARK_SCHED_MAX_DRAFTS));
  DSPARK_RETURN_IF_ERROR(check_range("prompt_rows", load.prompt_rows, 0, kMostPromptRows));
  const PlanLoad planned{load.n_sequences, load.n_sequences - load.n_unready};
  const bool plans = s.planner && s.policy.needs_costs();
  *length = plans ? s.planner->draft_length(planned, load.max_block, load.prompt_rows)
                  : std::min(s.policy.draft_tokens(), load.max_block);
  return ok_status();
}

}  // namespace
}  // namespace dspark::abi

extern "C" {

dspark_sched_status dspark_sched_create(const dspark_sched_config* config, dspark_sched** out,
                                        dspark_sched_error* error) {
  return guarded(error, [&]() -> Status {
    DSPARK_RETURN_IF_ERROR(check_pointer("out", out));
    *out = nullptr;
    DSPARK_ASSIGN_OR_RETURN(const dspark_sched_config c, read_struct("config", config, sizeof(*config)));
    DSPARK_RETURN_IF_ERROR(check_pointer("policy", c.policy));
    DSPARK_ASSIGN_OR_RETURN(const VerifyPolicy policy, VerifyPolicy::parse(c.policy));
    DSPARK_RETURN_IF_ERROR(check_range("max_sequences", c.max_sequences, 1, 65536));
    auto made = std::make_unique<dspark_sched>(policy, c.max_sequences);
    made->careful.reserve(static_cast<size_t>(c.max_sequences));
    if (policy.needs_costs() || c.n_verify > 0) {
      DSPARK_ASSIGN_OR_RETURN(CostTable table, read_table(c));
      made->planner.emplace(std::move(table));
    }
    *out = made.release();
    return ok_status();
  });
}

void dspark_sched_destroy(dspark_sched* scheduler) {
  delete scheduler;
}

dspark_sched_status dspark_sched_draft_length_for(dspark_sched* scheduler, const dspark_sched_load* load,
                                                  int32_t* length, dspark_sched_error* error) {
  return guarded(error, [&]() -> Status {
    DSPARK_RETURN_IF_ERROR(check_pointer("scheduler", scheduler));
    DSPARK_ASSIGN_OR_RETURN(const dspark_sched_load l, read_struct("load", load, sizeof(*load)));
    return choose_length(*scheduler, l, length);
  });
}

dspark_sched_status dspark_sched_draft_length(dspark_sched* scheduler, int32_t n_sequences, int32_t max_block,
                                              int32_t* length, dspark_sched_error* error) {
  return guarded(error, [&]() -> Status {
    DSPARK_RETURN_IF_ERROR(check_pointer("scheduler", scheduler));
    const dspark_sched_load load{sizeof(load), n_sequences, 0, max_block, 0};
    return choose_length(*scheduler, load, length);
  });
}

dspark_sched_status dspark_sched_plan(dspark_sched* scheduler, const dspark_sched_step* step,
                                      int32_t* lengths, dspark_sched_error* error) {
  return guarded(error, [&]() -> Status {
    DSPARK_RETURN_IF_ERROR(check_pointer("scheduler", scheduler));
    DSPARK_ASSIGN_OR_RETURN(const dspark_sched_step s, read_struct("step", step, kFirstStep));
    return plan_step(*scheduler, s, lengths);
  });
}

dspark_sched_status dspark_sched_observe(dspark_sched* scheduler, const dspark_sched_outcome* outcome,
                                         dspark_sched_error* error) {
  return guarded(error, [&]() -> Status {
    DSPARK_RETURN_IF_ERROR(check_pointer("scheduler", scheduler));
    DSPARK_ASSIGN_OR_RETURN(const dspark_sched_outcome o, read_struct("outcome", outcome, kFirstOutcome));
    return observe_outcome(*scheduler, o);
  });
}

void dspark_sched_forget(dspark_sched* scheduler, uint64_t sequence_id) {
  if (scheduler == nullptr) return;
  KnownSequence* known = scheduler->sequences.find(sequence_id);
  if (known == nullptr) return;
  // A sequence of the last plan is part of the outcome, which may still be told.
  if (scheduler->planned.empty() || known->plan != scheduler->n_plans) {
    scheduler->sequences.erase(sequence_id);
  } else if (!known->is_forgotten) {
    known->is_forgotten = true;
    scheduler->forgotten.push_back(sequence_id);  // its memory is there: no id is listed twice
  }
}

dspark_sched_status dspark_sched_get_stats(const dspark_sched* scheduler, dspark_sched_stats* stats,
                                           dspark_sched_error* error) {
  return guarded(error, [&]() -> Status {
    DSPARK_RETURN_IF_ERROR(check_pointer("scheduler", scheduler));
    DSPARK_RETURN_IF_ERROR(check_pointer("stats", stats));
    DSPARK_RETURN_IF_ERROR(check_range("stats.struct_size", stats->struct_size, 8, INT32_MAX));
    const SchedulerStats from = scheduler->planner ? scheduler->planner->stats() : SchedulerStats{};
    dspark_sched_stats out{};
    out.struct_size = stats->struct_size;
    out.n_positions = scheduler->drift.n_positions();
    out.planned_steps = from.planned_steps;
    out.drafting_steps = from.drafting_steps;
    out.paused_steps = from.paused_steps;
    out.budget_tokens = from.budget_tokens;
    out.last_budget = from.last_budget;
    out.last_draft_length = from.last_draft_length;
    out.predicted_s = from.predicted_s;
    out.measured_s = from.measured_s;
    out.last_predicted_s = from.last_predicted_s;
    out.last_measured_s = from.last_measured_s;
    out.verify_correction = from.verify_correction;
    out.draft_correction = from.draft_correction;
    for (int32_t j = 0; j < out.n_positions; ++j) {
      const DriftPosition at = scheduler->drift.at(j);
      out.drift[j] = {at.count, at.predicted, at.observed, at.ece};
    }
    std::memcpy(stats, &out, std::min<size_t>(stats->struct_size, sizeof(out)));
    return ok_status();
  });
}

}  // extern "C"
