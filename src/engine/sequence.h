#pragma once
// One running request: plain data, owned by the engine; the step functions have the verbs.

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/fair_queue.h"
#include "engine/request.h"
#include "engine/stop_matcher.h"
#include "speculate/accept.h"
#include "speculate/adaptive_planner.h"
#include "speculate/token_counts.h"

namespace dspark {

/// What the current step does with a sequence. Filled by the step functions named in the comments.
struct SequenceStep {
  int32_t draft_idx = -1;       // draft(): row of the draft block, -1 none
  int32_t n_drafted = 0;        // draft(): usable drafts of that row
  int32_t n_allowed = 0;        // draft(): drafts that the request's constraint allows; n_drafted or one less
  int32_t n_verify = 0;         // plan(): drafts that are judged; those allowed get a row
  int32_t n_prompt_rows = 0;    // batch(): share of the step's prompt rows
  int32_t n_rows = 0;           // batch(): rows in the forward pass, 0 = not part of it
  int32_t row_begin = 0;        // batch()
  int32_t logit_begin = 0;      // batch(): first of its logit rows
  int32_t n_logits = 0;         // batch(): 0 (prompt not finished), 1 or 1 + n_verify
  int32_t capture_begin = 0;    // batch(): first of its capture rows
  int32_t n_kept = 0;           // accept(): rows whose position holds committed text
  bool has_round = false;       // accept(): a verification took place
  int32_t anchor_position = 0;  // accept(): of that round
  RoundRecord round;            // accept(): its counts
  int32_t constraint_end = -1;  // accept(): pick that completes the constraint, -1 none
  bool is_judged = false;       // accept(): `verdict` and the sequence's picks are made
  AcceptResult verdict;         // accept(): of the round's drafts
};

/// What an EmbedRequest adds to a sequence, which ends with its prompt.
struct SequenceEmbedding {
  Pooling pooling = Pooling::kMean;
  bool normalize = true;
  EmbedCallback on_result;
  std::vector<double> sum;    // (dim) of the rows so far, or the last one
  std::vector<float> pooled;  // (dim) the result
  int32_t n_rows = 0;         // rows in `sum`
};

/// thread: the engine thread, once it left the queue; while it is judged (accept()) any one thread of the
/// target's pool.
struct Sequence {
  RequestId id = 0;
  GenerateRequest request;
  StreamCallback on_update;
  VerifyPolicy policy;
  AcceptRule rule = AcceptRule::kCoupled;  // as asked for, but kCoupled (equality) for a greedy request
  std::vector<int32_t> stop_ids;           // request's and, unless ignored, the model's
  int32_t n_prompt = 0;
  int32_t token_limit = 0;  // prompt + output never exceed this
  bool cancel_requested = false;
  bool held = false;                             // gets no rows and does not start, see Engine::hold
  std::unique_ptr<ConstraintState> constraint;   // behind the committed tokens; null without a constraint
  std::unique_ptr<SequenceEmbedding> embedding;  // null for generation

  QueueRank rank;               // its place among all requests, for good
  int64_t turn = 0;             // see FairQueue
  bool has_run = false;         // started at least once
  int32_t slot = -1;            // dense index among running sequences, -1 while it waits
  std::vector<int32_t> tokens;  // prompt, then committed output
  int32_t n_prefill =
      0;                 // tokens to be cached before the next is decoded: the prompt; after a preemption all
  int32_t n_cached = 0;  // positions 0..n_cached-1 are in the cache and final; decoding: n_tokens() - 1
  int32_t n_told = 0;    // tokens the drafter knows
  int32_t n_published = 0;     // pages that the page cache knows
  int32_t prompt_done = 0;     // largest reported so far
  bool drafts = false;         // there is a drafter and the policy lets it draft
  bool gives_rows = true;      // the drafter gets its features
  std::vector<int32_t> pages;  // page table
  SurvivalRecord survivals;    // what adaptive policies remember of its last drafts
  TokenCounts counts;          // used when the request has penalties
  StopMatcher text;
  std::string token_bytes;  // scratch
  FinishReason finish_reason = FinishReason::kNone;
  GenerateStats stats;
  std::chrono::steady_clock::time_point submitted_at, admitted_at, first_token_at;
  /// When waiting for the first start ends, and when everything does; max(): never.
  std::chrono::steady_clock::time_point queue_end, deadline;

  SequenceStep step;
  /// accept(): tokens of the round, accepted drafts first; -1: the constraint allows none.
  std::vector<int32_t> picks;
  bool has_scratches = false;              // accept(): every thread has room for its rows
  std::vector<TokenEvent> events;          // committed in this step
  std::vector<TokenLogprob> top_logprobs;  // (events, n_logprobs)

  bool prefilling() const { return n_cached < n_prefill; }
  bool finished() const { return finish_reason != FinishReason::kNone; }
  /// A running sequence that steps may have rows of.
  bool goes_on() const { return !finished() && !held; }
  /// A planner decides about its drafts; other sequences are neighbours of those it decides about.
  bool is_planned() const { return drafts && policy.needs_costs(); }
  int32_t n_tokens() const { return static_cast<int32_t>(tokens.size()); }
};

}  // namespace dspark
