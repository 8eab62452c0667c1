/* How many drafted tokens of every sequence a serving step should verify: dspark's scheduler for any engine.
 *
 * Plain C, no model, no threads, no clock, no files. You bring confidences (how likely each draft is to be
 * accepted given that the drafts before it are) and what your passes cost; you get verify lengths. Two
 * layers:
 *
 *   pure functions   survival, static policies, DSpark's Algorithm 1, budget from history, allotment
 *   dspark_sched     a handle that keeps history, corrects the cost table by what steps took, decides whether
 *                    to draft at all and how long, and learns acceptance where there is no confidence head
 *
 * One step of a serving loop with the handle:
 *
 *   dspark_sched_draft_length_for(s, &load, &length, &err);            // 0: a plain step
 *   ... draft `length` tokens for every decoding sequence ...
 *   dspark_sched_plan(s, &step, lengths, &err);                        // lengths[i]: drafts of sequence i
 *   ... one pass over anchors and lengths[i] drafts each, accept ...
 *   dspark_sched_observe(s, &outcome, &err);                           // what was accepted, what it took
 *   dspark_sched_forget(s, id);                                        // for every sequence that ended
 *
 * Steps do not overlap: tell what became of a step before you ask for the length of the next one. A handle
 * knows one step at a time, does not check the order, and puts a later outcome down to the wrong step.
 *
 * Losslessness. With greedy decoding, and when sampling reuses the target's own noise, any schedule keeps the
 * text. With rejection sampling (token by token or by blocks) whether draft k is verified must not depend on
 * draft k itself or on later drafts of its sequence. Everything here keeps that, provided confidence k was
 * computed before draft k was drawn and sequences with such a rule are marked (`must_not_anticipate`).
 * docs/scheduling.md has the argument.
 *
 * Every function returns a status and never throws. `error` may be NULL. Handles may be used by one thread at
 * a time; different handles are independent; pure functions are re-entrant. Structs with a `struct_size` grow
 * at their end only: set it to sizeof(the struct) that you compiled with and zero the rest. Fields that came
 * later mean with 0 what was meant before there were any. */
#ifndef DSPARK_SCHEDULER_H_
#define DSPARK_SCHEDULER_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define DSPARK_SCHED_API __attribute__((visibility("default")))
#else
#define DSPARK_SCHED_API
#endif

/* Raised when something incompatible changes. Compare with dspark_sched_abi_version() of the library. */
#define DSPARK_SCHED_ABI_VERSION 1
/* Most drafts of one sequence in one step. */
#define DSPARK_SCHED_MAX_DRAFTS 64
/* Draft positions whose calibration is watched. */
#define DSPARK_SCHED_DRIFT_POSITIONS 16

typedef enum dspark_sched_status {
  DSPARK_SCHED_OK = 0,
  DSPARK_SCHED_INVALID_ARGUMENT = 1, /* the message names the field, what was wanted and what was found */
  DSPARK_SCHED_OUT_OF_MEMORY = 2,
  DSPARK_SCHED_RESOURCE_EXHAUSTED = 3, /* more sequences than max_sequences are remembered */
  DSPARK_SCHED_INTERNAL = 4            /* a bug */
} dspark_sched_status;

/* Filled when a call fails; untouched when it succeeds. */
typedef struct dspark_sched_error {
  int32_t status;    /* a dspark_sched_status */
  char message[252]; /* UTF-8, ends with 0 */
} dspark_sched_error;

DSPARK_SCHED_API uint32_t dspark_sched_abi_version(void);

/* ---------------------------------------------------------------------------------------------------------
 * Pure functions. Sequences are rows of (n_sequences, stride) arrays, of which n_drafts[i] entries count. */

/* survival[i][j] = confidence[i][0] * ... * confidence[i][j]. confidence: in [0, 1], float32. Entries behind
 * n_drafts[i] become 0. */
DSPARK_SCHED_API dspark_sched_status dspark_sched_survival(const float* confidence, const int32_t* n_drafts,
                                                           int32_t n_sequences, int32_t stride,
                                                           double* survival, dspark_sched_error* error);

/* Policies that need no costs: "off", "fixed:K" (K from 0 to 64), "threshold:T" (T from 0 to 1: the drafts
 * before the first with confidence < T). confidence: NULL when there is none, and then a threshold keeps
 * every draft. lengths: (n_sequences). */
DSPARK_SCHED_API dspark_sched_status dspark_sched_static_lengths(const char* policy, const float* confidence,
                                                                 const int32_t* n_drafts, int32_t n_sequences,
                                                                 int32_t stride, int32_t* lengths,
                                                                 dspark_sched_error* error);

/* Survival probabilities of a batch; every row non-increasing, in [0, 1]. */
typedef struct dspark_sched_batch {
  const double* survival;  /* (n_sequences, stride) */
  const int32_t* n_drafts; /* (n_sequences) 0 .. stride */
  int32_t n_sequences;
  int32_t stride;
} dspark_sched_batch;

/* seconds[b]: a whole step whose target pass has b rows, b = 0 .. n_seconds - 1 (seconds[0] is not read); >
 * 0. Need not be monotone. Sizes behind the end are never chosen. */
typedef struct dspark_sched_costs {
  const double* seconds;
  int32_t n_seconds;
  int32_t extra_rows; /* rows of the step beside one anchor per sequence and its drafts: pieces of prompts */
} dspark_sched_costs;

/* DSpark's Algorithm 1: admits drafts in the order of falling survival (then earlier draft, then lower
 * sequence) as long as each raises expected tokens per second, and stops at the first that does not.
 * tokens_per_second: of the step; may be NULL. Never anticipates. */
DSPARK_SCHED_API dspark_sched_status dspark_sched_causal(const dspark_sched_batch* live,
                                                         const dspark_sched_costs* costs, int32_t* lengths,
                                                         double* tokens_per_second,
                                                         dspark_sched_error* error);

/* The number of drafts, of all numbers, with the highest expected tokens per second; the least on ties. Give
 * it survivals recorded in an earlier step where the rule must not anticipate, live ones elsewhere. */
DSPARK_SCHED_API dspark_sched_status dspark_sched_budget(const dspark_sched_batch* recorded,
                                                         const dspark_sched_costs* costs, int32_t* budget,
                                                         dspark_sched_error* error);

/* Gives `budget` places to drafts in the order of dspark_sched_causal. */
DSPARK_SCHED_API dspark_sched_status dspark_sched_allot(const dspark_sched_batch* live, int32_t budget,
                                                        int32_t* lengths, dspark_sched_error* error);

/* ---------------------------------------------------------------------------------------------------------
 * The handle. */

typedef struct dspark_sched dspark_sched;

/* A measured size: seconds of a target pass over n rows, or of a drafter pass for n sequences. */
typedef struct dspark_sched_point {
  int32_t n;
  double seconds;
} dspark_sched_point;

typedef struct dspark_sched_config {
  uint32_t struct_size;
  /* "off", "fixed:K", "threshold:T", "causal" or "adaptive". The last two need `verify`. */
  const char* policy;
  int32_t max_sequences; /* sequences remembered at the same time, 1 .. 65536 */
  /* Measured costs; copied. n ascending from 1. Between sizes linear, so list both ends of every stair. */
  const dspark_sched_point* verify;
  int32_t n_verify;
  const dspark_sched_point* draft; /* drafter pass with draft_length drafts each; NULL: drafting is free */
  int32_t n_draft;
  const dspark_sched_point* draft_short; /* with one draft each; NULL: the length does not matter */
  int32_t n_draft_short;
  int32_t draft_length;
  double context_s;     /* more for every cached position of a sequence in the pass */
  double row_context_s; /* more for every row times cached position it looks at */
  double overhead_s;    /* of a step beside its passes */
} dspark_sched_config;

/* What a drafter can say about a draft when it has no confidence head. */
typedef enum dspark_sched_evidence {
  DSPARK_SCHED_EVIDENCE_NONE = 0, /* nothing: the position must do */
  DSPARK_SCHED_EVIDENCE_PEAK_LOGIT =
      1, /* log(p / (1 - p)), p: the LARGEST probability of the draft distribution,
            not that of the token drawn: that one would anticipate */
  DSPARK_SCHED_EVIDENCE_MATCH_LENGTH = 2 /* tokens that agreed before the place a draft was looked up at */
} dspark_sched_evidence;

/* One step's drafts. */
typedef struct dspark_sched_step {
  uint32_t struct_size;
  int32_t n_sequences;
  int32_t stride;
  const uint64_t* sequence_ids; /* (n_sequences) yours; the same sequence keeps its id, ids are distinct */
  const int32_t* n_drafts;      /* (n_sequences) usable drafts, 0 .. stride */
  const int32_t* n_asked;  /* (n_sequences) drafts asked for, when a drafter may stop early; NULL: n_drafts */
  const float* confidence; /* (n_sequences, stride); NULL: the handle estimates them from evidence */
  const float* evidence;   /* (n_sequences, stride), of evidence_kind; NULL with DSPARK_SCHED_EVIDENCE_NONE */
  int32_t evidence_kind;   /* a dspark_sched_evidence */
  const uint8_t* must_not_anticipate; /* (n_sequences) 1: rejection or block verification; NULL: none is */
  int32_t draft_length;               /* drafts asked for per sequence; 0: this step did not draft */
  int32_t prompt_rows;                /* rows of prompts in the pass */
  int64_t context;                    /* sum over the sequences of their cached positions */
  /* Added later; 0: not told. */
  int64_t prompt_context;     /* sum over the prompts that are read of their cached positions; no part of
                                 context: drafts do not look at them */
  int64_t prompt_row_context; /* sum over these prompts of rows in the pass * cached positions */
} dspark_sched_step;

/* What became of it. Sequences are those of the plan, in its order. */
typedef struct dspark_sched_outcome {
  uint32_t struct_size;
  int32_t n_sequences;
  const int32_t* n_verified; /* (n_sequences) drafts that were really verified: lengths, or less */
  const int32_t* n_accepted; /* (n_sequences) */
  double verify_seconds;     /* of the target pass; 0: not measured */
  double draft_seconds;      /* of the drafter pass; 0: not measured */
  /* Added later. */
  double commit_seconds; /* of what the drafter did beside its pass because tokens were committed; nobody
                            needs it where nothing is drafted, so it counts as a cost of drafting */
} dspark_sched_outcome;

/* What a step has in hand when it is decided whether to draft. */
typedef struct dspark_sched_load {
  uint32_t struct_size;
  int32_t n_sequences; /* sequences that decode and may draft, 0 .. 65536 */
  /* Of these, sequences that the drafter lacks something of, features of their prompts say, so that it drafts
   * badly or not at all for them. With more than half of them nothing is drafted: what a few win says little
   * of what all would. */
  int32_t n_unready;
  int32_t max_block;   /* most drafts of one sequence, 0 .. 64 */
  int32_t prompt_rows; /* rows of prompts that will be in the pass */
} dspark_sched_load;

typedef struct dspark_sched_drift {
  int64_t count;    /* verifications in the window */
  double predicted; /* mean survival predicted up to this draft */
  double observed;  /* share in which that prefix was accepted */
  double ece;       /* expected calibration error, 20 bins */
} dspark_sched_drift;

typedef struct dspark_sched_stats {
  uint32_t struct_size;
  int32_t n_positions; /* entries of drift */
  int64_t planned_steps;
  int64_t drafting_steps;
  int64_t paused_steps; /* steps without drafts because drafting did not pay of late */
  int64_t budget_tokens;
  int32_t last_budget;
  int32_t last_draft_length;
  double predicted_s, measured_s; /* sums */
  double last_predicted_s, last_measured_s;
  double verify_correction, draft_correction; /* measured / table, recent median */
  dspark_sched_drift drift[DSPARK_SCHED_DRIFT_POSITIONS];
} dspark_sched_stats;

/* Memory is taken here and not later, except that a step with more sequences or drafts than any before it may
 * grow buffers once. */
DSPARK_SCHED_API dspark_sched_status dspark_sched_create(const dspark_sched_config* config,
                                                         dspark_sched** out, dspark_sched_error* error);
/* NULL is ignored. */
DSPARK_SCHED_API void dspark_sched_destroy(dspark_sched* scheduler);

/* Drafts worth asking for per sequence in this step, 0 .. max_block; 0: do not draft. Call it (or
 * dspark_sched_draft_length) once in every step, before dspark_sched_plan, in steps without sequences too.
 * Whether drafting pays is judged by such steps only: what a step won that was planned without asking for a
 * length corrects costs and calibration, but is no verdict on drafting. Beside prompts rows of drafts may be
 * too dear; then such a step gets 0.
 * Observe the step before it first (dspark_sched_observe). An outcome that is told after this call counts for
 * the load and the length of this call and ends its step, which then is no verdict on drafting any more. */
DSPARK_SCHED_API dspark_sched_status dspark_sched_draft_length_for(dspark_sched* scheduler,
                                                                   const dspark_sched_load* load,
                                                                   int32_t* length,
                                                                   dspark_sched_error* error);

/* dspark_sched_draft_length_for a step without prompts whose sequences are all ready. */
DSPARK_SCHED_API dspark_sched_status dspark_sched_draft_length(dspark_sched* scheduler, int32_t n_sequences,
                                                               int32_t max_block, int32_t* length,
                                                               dspark_sched_error* error);

/* lengths: (n_sequences) drafts of each sequence to verify, 0 .. n_drafts. Replaces the plan before it, whose
 * outcome can no longer be told. */
DSPARK_SCHED_API dspark_sched_status dspark_sched_plan(dspark_sched* scheduler, const dspark_sched_step* step,
                                                       int32_t* lengths, dspark_sched_error* error);

/* After the step that was planned last and before the length of the next one is asked for; once per plan.
 * Leave it out and nothing is learned from that step. */
DSPARK_SCHED_API dspark_sched_status dspark_sched_observe(dspark_sched* scheduler,
                                                          const dspark_sched_outcome* outcome,
                                                          dspark_sched_error* error);

/* The sequence ended; unknown ids are ignored. Before or after dspark_sched_observe: a sequence of the last
 * plan stays a part of its outcome and is gone when that was told, or with the next plan. */
DSPARK_SCHED_API void dspark_sched_forget(dspark_sched* scheduler, uint64_t sequence_id);

/* Fills as much of *stats as stats->struct_size says. */
DSPARK_SCHED_API dspark_sched_status dspark_sched_get_stats(const dspark_sched* scheduler,
                                                            dspark_sched_stats* stats,
                                                            dspark_sched_error* error);

#ifdef __cplusplus
}
#endif

#endif /* DSPARK_SCHEDULER_H_ */
