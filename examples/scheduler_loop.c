/* A serving loop around the scheduler, without a model: sequences whose drafts are accepted with probability
 * 0.8 each, on a machine where a pass costs the same up to eight rows. Build it against libdspark_scheduler:
 *
 *   cc -std=c99 -Iinclude examples/scheduler_loop.c -Lbuild/release -ldspark_scheduler -o scheduler_loop
 */
#include <stdio.h>
#include <string.h>

#include "dspark/scheduler.h"

enum { kSequences = 4, kBlock = 7, kSteps = 400 };

static int check(dspark_sched_status status, const dspark_sched_error* error, const char* what) {
  if (status == DSPARK_SCHED_OK) return 1;
  fprintf(stderr, "%s: %s\n", what, error->message);
  return 0;
}

/* The next of a fixed sequence of numbers in [0, 1). */
static double next_random(uint64_t* state) {
  *state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
  return (double)(*state >> 40) / (double)(1 << 24);
}

/* Drafts of one sequence that the target agrees with, of n that it looked at. */
static int32_t accept(int32_t n, uint64_t* random) {
  int32_t accepted = 0;
  while (accepted < n && next_random(random) < 0.8) ++accepted;
  return accepted;
}

static double pass_seconds(int rows) {
  return rows <= 8 ? 0.010 : 0.010 + 0.001 * (rows - 8);
}

/* One step of all sequences; adds its tokens and seconds. */
static int step(dspark_sched* scheduler, uint64_t* random, double* tokens, double* seconds) {
  static const uint64_t ids[kSequences] = {11, 12, 13, 14};
  dspark_sched_error error;
  dspark_sched_load load;
  dspark_sched_step drafts;
  dspark_sched_outcome outcome;
  float confidence[kSequences * kBlock];
  int32_t n_drafts[kSequences], lengths[kSequences], accepted[kSequences];
  int32_t length = 0, rows = kSequences, i;
  memset(&load, 0, sizeof(load));
  load.struct_size = sizeof(load);
  load.n_sequences = kSequences;
  load.max_block = kBlock;
  if (!check(dspark_sched_draft_length_for(scheduler, &load, &length, &error), &error, "draft_length"))
    return 0;
  for (i = 0; i < kSequences * kBlock; ++i) confidence[i] = 0.8f;
  for (i = 0; i < kSequences; ++i) n_drafts[i] = length;
  memset(&drafts, 0, sizeof(drafts));
  drafts.struct_size = sizeof(drafts);
  drafts.n_sequences = kSequences;
  drafts.stride = kBlock;
  drafts.sequence_ids = ids;
  drafts.n_drafts = n_drafts;
  drafts.confidence = confidence;
  drafts.draft_length = length;
  if (!check(dspark_sched_plan(scheduler, &drafts, lengths, &error), &error, "plan")) return 0;
  for (i = 0; i < kSequences; ++i) {
    accepted[i] = accept(lengths[i], random);
    rows += lengths[i];
    *tokens += 1 + accepted[i];
  }
  memset(&outcome, 0, sizeof(outcome));
  outcome.struct_size = sizeof(outcome);
  outcome.n_sequences = kSequences;
  outcome.n_verified = lengths;
  outcome.n_accepted = accepted;
  outcome.verify_seconds = pass_seconds(rows);
  outcome.draft_seconds = length > 0 ? 0.001 : 0.0;
  outcome.commit_seconds = 0.0001; /* this drafter reads what was committed, drafts or not */
  *seconds += outcome.verify_seconds + outcome.draft_seconds + outcome.commit_seconds;
  return check(dspark_sched_observe(scheduler, &outcome, &error), &error, "observe");
}

int main(void) {
  const dspark_sched_point verify[] = {{1, 0.010}, {8, 0.010}, {9, 0.011}, {32, 0.034}};
  const dspark_sched_point draft[] = {{1, 0.001}};
  dspark_sched_config config;
  dspark_sched_error error;
  dspark_sched_stats stats;
  dspark_sched* scheduler = NULL;
  uint64_t random = 1;
  double tokens = 0.0, seconds = 0.0;
  int i;
  if (dspark_sched_abi_version() != DSPARK_SCHED_ABI_VERSION) {
    fprintf(stderr, "library and header do not belong together\n");
    return 1;
  }
  memset(&config, 0, sizeof(config));
  config.struct_size = sizeof(config);
  config.policy = "adaptive";
  config.max_sequences = kSequences;
  config.verify = verify;
  config.n_verify = sizeof(verify) / sizeof(verify[0]);
  config.draft = draft;
  config.n_draft = 1;
  config.draft_length = kBlock;
  if (!check(dspark_sched_create(&config, &scheduler, &error), &error, "create")) return 1;
  for (i = 0; i < kSteps; ++i) {
    if (!step(scheduler, &random, &tokens, &seconds)) return 1;
  }
  stats.struct_size = sizeof(stats);
  if (!check(dspark_sched_get_stats(scheduler, &stats, &error), &error, "get_stats")) return 1;
  printf("%.0f tokens/s, %.0f without drafts; %.1f drafts verified per step\n", tokens / seconds,
         kSequences / pass_seconds(kSequences), (double)stats.budget_tokens / (double)stats.planned_steps);
  for (i = 0; i < 4; ++i) dspark_sched_forget(scheduler, 11 + (uint64_t)i);
  dspark_sched_destroy(scheduler);
  /* A scheduler that did not help would be an error in this world. */
  return tokens / seconds > 1.3 * kSequences / pass_seconds(kSequences) ? 0 : 1;
}
