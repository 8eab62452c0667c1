#pragma once
// The drafter interface. Virtual calls happen here, at the room's border, once per step, never per token.
//
// Life of a sequence in a drafter: commit() with the prompt's tokens (in one or several calls), then rounds
// of propose() and commit(), then release(). Only committed tokens reach a drafter, so it never has to undo
// anything it was told; what it computed ahead for a proposal is its own to discard.

#include <algorithm>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "speculate/accept.h"
#include "speculate/acceptance_estimator.h"
#include "speculate/proposal_source.h"
#include "speculate/sampling_params.h"
#include "speculate/token_constraint.h"

namespace dspark {

struct DraftTrace;

/// One sequence that wants drafts.
struct DraftRequest {
  int32_t slot = 0;        // which sequence: a dense index, reused after release()
  int32_t anchor = 0;      // the newest committed token; the target has not processed it yet
  int32_t position = 0;    // its absolute index n; drafts are for n+1, n+2, ...
  int32_t max_tokens = 0;  // at most this many drafts (>= 1)
  const SamplingParams* sampling = nullptr;  // what the target will sample with, its noise seed included
  /// kCoupled: drafts are picked with the target's own noise. kRejection, kBlock: drafts are sampled with
  /// noise of their own, and the distributions they were sampled from are kept in the block.
  AcceptRule rule = AcceptRule::kCoupled;
  /// After Drafter::use_pages: the sequence's page table, with pages for positions 0 .. position at least.
  std::span<const int32_t> pages = {};
  /// Tokens that end the text: drafts behind one are work for nothing.
  std::span<const int32_t> stop_ids = {};
  /// DraftBlock::probability is wanted. Costs a walk over the whole distribution of each draft.
  bool wants_probability = false;
  /// Where the text stands under its constraint, or nullptr. Drafts that it forbids are cut off, so a drafter
  /// does well to ask it; it stands there again when propose() returns. Learned drafters mask their logits
  /// before they pick, and ask the states of different requests on threads of the pool at the same time, one
  /// state on one thread at a time.
  ConstraintState* constraint = nullptr;

  bool stops_at(int32_t token) const {
    return std::find(stop_ids.begin(), stop_ids.end(), token) != stop_ids.end();
  }
};

/// Proposals for a batch of sequences, reused from step to step. Row i belongs to request i.
struct DraftBlock {
  int32_t stride = 0;             // tokens reserved per row
  std::vector<int32_t> tokens;    // (n_requests, stride) ids of the target's vocabulary
  std::vector<float> confidence;  // (n_requests, stride) P(accepted | predecessors accepted); 1 if unknown
  std::vector<int32_t> n_tokens;  // (n_requests) drafts of each row, 0 = nothing to propose
  bool has_confidence = false;    // confidence[] came from a confidence head
  /// (n_requests, stride) what the confidence head said before calibration, in logits; only with
  /// has_confidence.
  std::vector<float> confidence_logits;
  /// Without has_confidence: what is known about a draft, for an estimate of its confidence, and of which
  /// kind; never anything that depends on the draft itself where the draft is drawn at random. What a
  /// row of logits says is read after its constraint has masked it.
  DraftEvidence evidence_kind = DraftEvidence::kNone;
  std::vector<float> evidence;  // (n_requests, stride)
  /// (n_requests, stride) for requests that want it: probability of the draft in the drafter's own
  /// distribution at temperature 1, before filters, over what could be drafted there: tokens outside a
  /// shortlist or forbidden by the constraint have no share, and the others add up to 1. For people to look
  /// at: it depends on the draft. Negative: unknown, as of drafts that were looked up.
  std::vector<float> probability;
  std::vector<ProposalSource> sources;  // (n_requests, stride) of each draft
  int32_t model_sequences = 0;          // sequences that a learned drafter's pass computed; 0: there was none

  // Distributions, for requests that sample under kRejection or kBlock and drafters that sample. Without
  // them a draft counts as certain (a one-hot distribution).
  int32_t draft_vocab = 0;  // columns of a distribution; 0: none were kept
  // (n_requests, stride, draft_vocab) fp32, what was sampled from: 0 for tokens outside a shortlist and for
  // what a constraint forbids, the others add up to 1
  std::vector<float> probs;
  std::span<const int32_t>
      vocab_ids;                   // column -> target id, ascending; empty: the same. Owned by the drafter
  std::vector<uint8_t> has_probs;  // (n_requests)

  /// Makes room for n_requests rows of `row_stride` tokens; all rows empty. Allocates only to grow.
  void reset(size_t n_requests, int32_t row_stride);
  /// Makes room for distributions over `n_columns` ids. Allocates only to grow.
  void keep_probs(int32_t n_columns, std::span<const int32_t> ids);
  std::span<int32_t> row(size_t request_idx) {
    return {tokens.data() + request_idx * static_cast<size_t>(stride), static_cast<size_t>(stride)};
  }
  std::span<const int32_t> drafts(size_t request_idx) const {
    return {tokens.data() + request_idx * static_cast<size_t>(stride),
            static_cast<size_t>(n_tokens[request_idx])};
  }
  /// The floats of draft `draft_idx`'s distribution, (draft_vocab). requires: keep_probs was called.
  std::span<float> probs_row(size_t request_idx, int32_t draft_idx);
  /// What draft `draft_idx` of a request was sampled from; one-hot on the draft when nothing was kept, and
  /// for what was looked up.
  DraftDistribution distribution(size_t request_idx, int32_t draft_idx) const;
  /// Index of a draft in tokens, confidence, confidence_logits, probability and sources.
  size_t at(size_t request_idx, int32_t draft_idx) const {
    return request_idx * static_cast<size_t>(stride) + static_cast<size_t>(draft_idx);
  }
};

/// What became certain for one sequence. Tokens run ahead of features by one: the newest token has not been
/// processed by the target.
struct CommitEvent {
  int32_t slot = 0;
  int32_t token_position = 0;       // absolute index of tokens[0]
  std::span<const int32_t> tokens;  // newly committed: prompt tokens, accepted drafts, correction or bonus
  int32_t feature_position = 0;     // absolute index of feature row 0
  int32_t n_features = 0;           // rows the target processed and kept in this step
  /// Residual streams of those rows after the layers of tap_layers(): row r of tap t at
  /// features[t * tap_stride + r * dim]. Null when the drafter taps nothing. Valid during the call.
  const float* features = nullptr;
  int64_t tap_stride = 0;
  int32_t dim = 0;
  /// After Drafter::use_pages: the sequence's page table, with pages for all feature rows.
  std::span<const int32_t> pages = {};
};

/// A sequence that starts behind a prefix which the target has in its cache: there are no features of it.
struct AttachEvent {
  int32_t slot = 0;
  std::span<const int32_t> tokens;   // of the prefix; whole pages (kKvPageSize)
  std::span<const int32_t> pages;    // (tokens / kKvPageSize) whose rows the drafter has, or empty
  int32_t n_pages_without_rows = 0;  // of these, the first ones; only with Drafter::works_without_rows
};

/// What a drafter needs to join such a sequence.
enum class PrefixReuse : uint8_t {
  kNever,       // every feature: for its sequences the target computes the whole prompt
  kFromTokens,  // the tokens
  kFromPages,   // its own rows, which it keeps in pages numbered like the target's
};

/// Proposes blocks of tokens for the target to verify. Whatever it proposes, the text stays the target's.
/// thread: the engine thread only.
class Drafter {
 public:
  virtual ~Drafter() = default;
  /// Short name for statistics, e.g. "ngram".
  virtual std::string_view name() const = 0;
  /// The model it was made for, in the words of its file; empty: the file does not say.
  virtual std::string_view target_name() const { return {}; }
  /// Most tokens one proposal can have.
  virtual int32_t max_block() const = 0;
  /// Most tokens of a proposal that cost its model anything; those behind them are free.
  virtual int32_t model_block() const { return max_block(); }
  /// Up to so many drafts come from a pass over fewer rows, which is cheaper, and may be other drafts than
  /// the first of a longer proposal; 0: there is no such pass.
  virtual int32_t short_block() const { return 0; }
  /// Residual streams the drafter reads, ascending, in the numbering of TargetModel::set_capture_layers
  /// (0 = embedding output, l + 1 = after layer l). Empty: none.
  virtual std::span<const int32_t> tap_layers() const { return {}; }
  /// Fills `out` (already reset by the caller, stride >= every max_tokens) with at most max_tokens drafts per
  /// request. A failure here costs speed only: the engine goes on without drafts.
  virtual Status propose(std::span<const DraftRequest> requests, DraftBlock& out) = 0;
  /// Tells what was committed. Events of one call belong to different slots.
  virtual void commit(std::span<const CommitEvent> events) = 0;
  /// Work that a commit put off until the step's tokens went out. Without this call the next commit does it.
  virtual void catch_up() {}
  /// The sequence ended; its slot may come back as a new one.
  virtual void release(int32_t slot) = 0;

  // Shared prefixes. The engine remembers full pages of committed tokens and lets later sequences begin
  // behind them; wrappers forward these calls to what they wrap.

  /// How sequences behind a shared prefix are joined. Without features a drafter needs tokens only.
  virtual PrefixReuse prefix_reuse() const {
    return tap_layers().empty() ? PrefixReuse::kFromTokens : PrefixReuse::kNever;
  }
  /// From now on rows live in pages 0 .. n_pages - 1 as every event and request lists them, plus pages of the
  /// drafter's own for rows behind them. A page that several tables list is not written. Called before the
  /// first commit, for kFromPages only. errors: out_of_memory; the drafter is then as it was.
  virtual Status use_pages(int32_t n_pages);
  /// Tokens behind a page that its rows depend on, 0 or 1.
  virtual int32_t page_lookahead() const { return 0; }
  /// kFromPages: rows 0 .. n - 1 of a slot are complete in its pages.
  virtual int32_t n_rows_in_pages(int32_t /*slot*/) const { return 0; }
  /// kFromPages: rows behind them that were committed and wait for a pass over several of them. They are
  /// written by propose(), by complete_rows(), or when enough of them wait; release() forgets them.
  virtual int32_t n_rows_waiting(int32_t /*slot*/) const { return 0; }
  /// Writes all rows that wait.
  virtual void complete_rows() {}
  /// Commits may come without features (n_features 0), for speed where nobody would draft: drafts are then
  /// made from the rows behind the gap, and none while there are not any.
  virtual bool works_without_rows() const { return false; }
  /// kFromPages: rows of a slot before this one are not there or not used; whole pages.
  virtual int32_t first_row(int32_t /*slot*/) const { return 0; }
  /// The first event of a slot, instead of commits for the prefix. As it stands here: a commit of its tokens.
  virtual void attach(const AttachEvent& event);

  /// Calibration: confidence k is sigmoid(logit / temperatures[k] + biases[k]), 1 and 0 beyond the end of
  /// the list; empty: none. errors: unsupported (no confidence head), invalid_argument (not finite and > 0).
  virtual Status set_calibration(std::span<const double> temperatures, std::span<const double> biases = {});
  /// From now on rounds are recorded in `trace` (draft/draft_trace.h), which must stay alive; nullptr: no
  /// more. returns: false when this drafter records nothing.
  virtual bool set_trace(DraftTrace* /*trace*/) { return false; }
  /// Bytes of weights that the drafter holds itself (not what it borrows from the target, and no cache).
  virtual size_t weight_bytes() const { return 0; }
};

}  // namespace dspark
