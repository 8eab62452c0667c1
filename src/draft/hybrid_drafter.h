#pragma once
// Two proposals for the same places, and the better one goes to verification: a learned drafter's block and
// the continuation of an earlier occurrence of the newest tokens (prompt lookup), token by token. A proposal
// follows the block for some drafts, perhaps none, and then an earlier occurrence of what it has by then.
// docs/drafters.md tells how the two are weighed and why that anticipates nothing.

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "draft/drafter.h"
#include "draft/ngram.h"
#include "draft/proposal_odds.h"

namespace dspark {

struct HybridOptions {
  NgramOptions lookup{1, 6, 16};
  /// Steps in which a pass of the model is expected to bring less than this share of what the step commits
  /// without it do without.
  double pass_cost = 0.1;
};

/// thread: the engine thread only. No allocation in steady state while sequences have no more tokens than
/// options.lookup.reserve and NgramIndex::kMostReserved; beyond, their indices double now and then.
class HybridDrafter final : public Drafter {
 public:
  /// requires: model is not null; options.lookup.validate().ok().
  HybridDrafter(std::unique_ptr<Drafter> model, const HybridOptions& options);

  std::string_view name() const override { return name_; }
  std::string_view target_name() const override { return model_->target_name(); }
  int32_t max_block() const override;
  int32_t model_block() const override { return model_->model_block(); }
  int32_t short_block() const override { return model_->short_block(); }
  std::span<const int32_t> tap_layers() const override { return model_->tap_layers(); }
  Status propose(std::span<const DraftRequest> requests, DraftBlock& out) override;
  void commit(std::span<const CommitEvent> events) override;
  void release(int32_t slot) override;
  PrefixReuse prefix_reuse() const override { return model_->prefix_reuse(); }
  Status use_pages(int32_t n_pages) override { return model_->use_pages(n_pages); }
  int32_t page_lookahead() const override { return model_->page_lookahead(); }
  int32_t n_rows_in_pages(int32_t slot) const override { return model_->n_rows_in_pages(slot); }
  int32_t n_rows_waiting(int32_t slot) const override { return model_->n_rows_waiting(slot); }
  void complete_rows() override { model_->complete_rows(); }
  void catch_up() override { model_->catch_up(); }
  bool works_without_rows() const override { return model_->works_without_rows(); }
  int32_t first_row(int32_t slot) const override { return model_->first_row(slot); }
  void attach(const AttachEvent& event) override;
  Status set_calibration(std::span<const double> temperatures, std::span<const double> biases = {}) override;
  bool set_trace(DraftTrace* trace) override { return model_->set_trace(trace); }
  size_t weight_bytes() const override { return model_->weight_bytes(); }

  const Drafter& model() const { return *model_; }

 private:
  /// What could be proposed behind the first s drafts of the block, for every s.
  struct Place {
    NgramIndex::Match match;
    int32_t token = -1;  // its first token
  };
  /// A sequence, and its last proposals until it is known what became of them.
  struct Slot {
    explicit Slot(const NgramOptions& options) : index(options.min_n, options.max_n) {}

    NgramIndex index;
    bool is_pending = false;
    bool samples = false;  // drafts were sampled, not picked
    int32_t position = 0;  // of the anchor
    int32_t n_model = 0;   // drafts of the block; 0: the model was not asked
    int32_t n_looked = 0;  // of looked_up
    double gain = 0.0;     // accepted drafts expected more than of lookup alone
    size_t gain_class = 0;
    std::array<int32_t, kMaxDraftTokens> drafts{};
    std::array<float, kMaxDraftTokens> confidence{};
    DraftEvidence evidence_kind = DraftEvidence::kNone;  // what `confidence` was estimated from, if it was
    std::array<float, kMaxDraftTokens> evidence{};
    std::array<int32_t, kMaxDraftTokens> looked_up{};  // what lookup alone would propose
    std::array<Place, kMaxDraftTokens + 1> places{};   // (n_model + 1)
  };
  struct Gain {
    double mean = 1.0;
    int32_t seen = 0;
  };
  static constexpr size_t kGainClasses = 8;

  Slot& slot_of(int32_t slot);
  ProposalOdds& odds_of(const Slot& slot) { return odds_[slot.samples ? 1 : 0]; }
  void look_up(Slot& slot, const DraftRequest& request);
  bool can_do_without_model(std::span<const DraftRequest> requests);
  void take_block(Slot& slot, size_t request_idx, const DraftRequest& request, const DraftBlock& out);
  void find_places(Slot& slot, int32_t limit);
  int32_t best_switch(Slot& slot, int32_t limit, std::span<float> confidence);
  int32_t causal_switch(const Slot& slot, int32_t limit);
  void write(Slot& slot, size_t request_idx, const DraftRequest& request, int32_t limit, DraftBlock& out);
  void learn(Slot& slot, std::span<const int32_t> tokens);

  std::unique_ptr<Drafter> model_;
  HybridOptions options_;
  std::string name_;
  std::vector<std::unique_ptr<Slot>> slots_;
  bool is_sure_ = false;              // the model has a confidence head
  std::array<ProposalOdds, 2> odds_;  // drafts that were picked, drafts that were sampled
  std::array<std::array<Gain, kGainClasses>, 2> gains_{};
  int32_t steps_without_ = 0;  // of late, without a pass of the model
  std::array<double, kMaxDraftTokens + 1> values_{};
};

}  // namespace dspark
