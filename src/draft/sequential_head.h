#pragma once
// The sequential head of a block drafter: walks the slots left to right and adds to each row of base logits a
// bias that depends on the token drafted before it. Batched over sequences.
//
//   e = row x_{k-1} of w1, the previous token (the anchor before the first draft)
//   vanilla   bias = w2 e
//   gated     bias = w2 (sigmoid(W [h ; e] + b) * e)
//   rnn       [gate | candidate | output] = W [s ; e ; h] + b;  bias = w2 tanh(output);
//             s <- sigmoid(gate) * s + (1 - sigmoid(gate)) * tanh(candidate), s = 0 before the first draft
//   none      no bias: slots are independent
// and the confidence z = w [h ; e] + b or w h + b. (DSpark, arXiv 2607.05147; DeepSpec.)

#include <cstdint>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "draft/bias_bounds.h"
#include "draft/draft_config.h"
#include "draft/draft_constraint.h"
#include "draft/draft_pick.h"
#include "draft/draft_weights.h"
#include "draft/drafter.h"
#include "draft/float_buffer.h"

namespace dspark {

/// One sequence of a pass.
struct HeadRequest {
  const DraftRequest* request = nullptr;
  size_t out_row = 0;     // in the DraftBlock
  int64_t first_row = 0;  // of hidden and logits: draft k + 1 is predicted by row first_row + k
  int32_t n_drafts = 0;
};

struct HeadPass {
  std::span<const HeadRequest> requests;
  const float* hidden = nullptr;  // (rows, dim) after the final norm
  // (rows, draft vocabulary) base logits; becomes the step logits, without a shortlist masked by constraints
  float* logits = nullptr;
  std::span<const int32_t> forced;  // drafts of the first request, instead of picking; empty: none
  bool keep_logits = false;         // the step logits are wanted even where a shortlist could do without
};

class SequentialDecoder {
 public:
  /// shortlist: tokens of each slot that get a bias and can be drafted, the best by base logit; 0: all. They
  /// are chosen before a constraint masks anything, so it may leave few of them, or none, which ends the
  /// drafts.
  /// config and weights must outlive the decoder.
  SequentialDecoder(const DraftConfig& config, const BlockWeights& weights, ThreadPool& pool,
                    int32_t shortlist);

  /// Drafts for every request: tokens, confidences and, where the rule wants them, distributions. Fewer where
  /// a request's constraint allows nothing of the draft vocabulary, or of the shortlist. Drafts are picked,
  /// and evidence, distributions and probabilities are told, from the allowed tokens alone, whose shares add
  /// up to 1; a confidence head knows of no constraint.
  /// thread: the one that uses the pool. Constraints of different requests are asked on the pool's threads at
  /// the same time, each by one of them.
  /// requires: rows of `out` hold n_drafts tokens. errors: out_of_memory.
  Status run(const HeadPass& pass, DraftBlock& out);

  /// Temperatures and biases of confidences, position by position; 1 and 0 beyond the end.
  void set_calibration(std::span<const double> temperatures, std::span<const double> biases) {
    temperatures_.assign(temperatures.begin(), temperatures.end());
    biases_.assign(biases.begin(), biases.end());
  }

  /// Steps, of one sequence each, in which only some of w2 was read; for tests and benchmarks.
  int64_t n_pruned_steps() const { return n_pruned_steps_; }
  /// Chunks of w2 read in these steps, of n_chunks() each.
  int64_t n_pruned_chunks() const { return n_pruned_chunks_; }
  int64_t n_chunks() const { return (config_.draft_vocab_size + kPickChunk - 1) / kPickChunk; }

 private:
  bool grow(const HeadPass& pass);
  void keep_distributions(const HeadPass& pass, DraftBlock& out) const;
  void step(const HeadPass& pass, int32_t k, DraftBlock& out);
  void embed_previous();
  void score(const HeadPass& pass, int32_t k, DraftBlock& out) const;
  void make_latents(const HeadPass& pass, int32_t k);
  void multiply_joint(const HeadPass& pass, int32_t k);
  void update_rnn();
  void add_bias(const HeadPass& pass, int32_t k);
  void bias_group(const HeadPass& pass, int32_t k, int64_t group_idx, int thread);
  bool can_prune(const HeadPass& pass) const;
  void prune(const HeadPass& pass, int32_t k, size_t active_idx, int thread);
  void judge_pruning();
  void choose_shortlists(const HeadPass& pass);
  bool constrain(const HeadPass& pass, int32_t k, size_t active_idx);
  void score_shortlist(const HeadPass& pass, int32_t k, size_t active_idx, int thread);
  PickRow pick_row(const HeadPass& pass, int32_t k, size_t active_idx) const;
  void pick(const HeadPass& pass, int32_t k, size_t active_idx, int thread, DraftBlock& out);
  int32_t pick_token(const HeadPass& pass, int32_t k, size_t active_idx, int thread, DraftBlock& out);

  bool shortlisted() const { return shortlist_ > 0; }
  int64_t row_of(const HeadPass& pass, int32_t k, size_t active_idx) const {
    return pass.requests[static_cast<size_t>(active_[active_idx])].first_row + k;
  }

  const DraftConfig& config_;
  const BlockWeights& weights_;
  ThreadPool& pool_;
  int32_t shortlist_;
  std::vector<double> temperatures_, biases_;

  // One run. Rows of the buffers are requests that still draft (active_), except state_: all requests.
  std::vector<int32_t> active_;
  std::vector<int32_t> previous_;           // per request: the token before the next draft
  FloatBuffer embedded_;                    // (active, rank) e
  FloatBuffer latent_;                      // (active, rank) what w2 multiplies
  FloatBuffer joint_in_;                    // (active, columns of markov_joint)
  FloatBuffer joint_out_;                   // (active, rows of markov_joint)
  FloatBuffer state_;                       // (requests, rank) of the rnn
  FloatBuffer chunk_max_;                   // (active, chunks)
  FloatBuffer bias_;                        // (threads, active, kGroupColumns)
  FloatBuffer shortlist_logits_;            // (active, shortlist)
  FloatBuffer thread_rows_;                 // (threads, rank + shortlist)
  std::vector<int32_t> shortlist_columns_;  // (rows, shortlist) ascending
  std::vector<int32_t> shortlist_ids_;      // the same as target ids
  std::vector<std::vector<std::pair<float, int32_t>>> candidates_;  // per thread
  std::vector<PickScratch> scratch_;                                // per thread
  Activations activations_;
  DraftConstraints constraints_;

  // Pruned steps, see prune().
  bool prunes_ = false;
  BiasBounds bounds_;
  std::vector<std::span<float>> claims_;      // (active) where this step's bounds are kept
  std::vector<Activations> row_activations_;  // per thread
  std::vector<int64_t> chunks_read_;          // (active)
  double share_read_ = 0.0;                   // of w2, mean of late
  int32_t full_steps_left_ = 0;               // before pruning is tried again
  int64_t n_pruned_steps_ = 0, n_pruned_chunks_ = 0;
};

}  // namespace dspark
