#include "train/paired_batch.h"

#include <algorithm>

namespace dspark {
namespace {

/// Whether row `row` has a weight at step `step`.
bool has_weight(const TargetCacheSample& sample, int64_t row, int64_t step) {
  const int64_t at = row + step;
  return at + 1 < static_cast<int64_t>(sample.n_tokens()) && sample.loss_mask[static_cast<size_t>(at)] != 0;
}

/// -1 behind the end.
int64_t token_at(const TargetCacheSample& sample, int64_t position) {
  return position < static_cast<int64_t>(sample.n_tokens()) ? sample.input_ids[static_cast<size_t>(position)]
                                                            : -1;
}

/// Rows with a weight at one of the first `n_steps` steps, ascending.
std::vector<int64_t> active_rows(const TargetCacheSample& sample, int64_t n_steps) {
  std::vector<int64_t> rows;
  for (int64_t row = 0; row < static_cast<int64_t>(sample.n_tokens()); ++row) {
    bool used = false;
    for (int64_t step = 0; step < n_steps && !used; ++step) used = has_weight(sample, row, step);
    if (used) rows.push_back(row);
  }
  return rows;
}

/// Token ids and bookkeeping of one step of the unroll.
struct StepRows {
  std::vector<int64_t> tokens, rows, labels, target_rows;
};

class Builder {
 public:
  Builder(const DraftConfig& config, int64_t max_context)
      : n_steps_(config.n_drafts()), max_context_(max_context), steps_(static_cast<size_t>(n_steps_)) {}

  void add(const TargetCacheSample& sample) {
    const auto index = static_cast<int64_t>(samples_.size());
    samples_.push_back(&sample);
    longest_ = std::max(longest_, static_cast<int64_t>(sample.n_tokens()));
    const std::vector<int64_t> active = active_rows(sample, n_steps_);
    first_.push_back(0);
    if (!active.empty()) {
      if (max_context_ > 0) first_.back() = std::max<int64_t>(0, active.front() - max_context_);
      for (int64_t row = first_.back(); row <= active.back(); ++row) {
        positions_.push_back(row);
        tokens_.push_back(std::max<int64_t>(0, token_at(sample, row + 1)));
      }
    }
    for (int64_t row : active) {
      for (int64_t k = 0; k < n_steps_; ++k) add_step(sample, index, row, k);
      active_.push_back(row_begin_.back() + row - first_.back());
    }
    row_begin_.push_back(static_cast<int64_t>(positions_.size()));
    active_begin_.push_back(static_cast<int64_t>(active_.size()));
  }

  PairedBatch finish(const DraftConfig& config, const at::Device& device) {
    PairedBatch batch;
    const bool mtp = config.kind == DraftKind::kMtp;
    const int64_t width = mtp ? config.dim : static_cast<int64_t>(config.taps.size()) * config.dim;
    at::Tensor carried = at::empty({row_begin_.back(), width}, at::kBFloat16);
    for (size_t s = 0; s < samples_.size(); ++s) {
      copy_rows(mtp ? samples_[s]->target_last_hidden : samples_[s]->target_hidden_states, first_[s],
                row_begin_[s + 1] - row_begin_[s], carried, row_begin_[s]);
    }
    batch.carried = carried.to(device);
    batch.positions = index_tensor(positions_, device);
    batch.tokens = index_tensor(tokens_, device);
    batch.active = index_tensor(active_, device);
    for (const StepRows& step : steps_) {
      batch.steps.push_back({index_tensor(step.tokens, device), index_tensor(step.rows, device),
                             index_tensor(step.labels, device), index_tensor(step.target_rows, device)});
    }
    static_cast<TargetRows&>(batch) = targets_.gather(samples_, config.dim, device);
    batch.n_padded = static_cast<int64_t>(samples_.size()) * longest_;
    batch.row_begin = std::move(row_begin_);
    batch.active_begin = std::move(active_begin_);
    return batch;
  }

 private:
  void add_step(const TargetCacheSample& sample, int64_t index, int64_t row, int64_t k) {
    StepRows& step = steps_[static_cast<size_t>(k)];
    step.tokens.push_back(std::max<int64_t>(0, token_at(sample, row + k + 1)));
    if (!has_weight(sample, row, k)) return;
    step.rows.push_back(static_cast<int64_t>(active_.size()));
    step.labels.push_back(token_at(sample, row + k + 2));
    step.target_rows.push_back(targets_.row_of(index, static_cast<int32_t>(row + k + 1)));
  }

  int64_t n_steps_;
  int64_t max_context_;
  int64_t longest_ = 0;
  std::vector<StepRows> steps_;
  TargetRowList targets_;
  std::vector<const TargetCacheSample*> samples_;
  std::vector<int64_t> first_;  // per sample, position of its first row
  std::vector<int64_t> row_begin_ = {0};
  std::vector<int64_t> active_begin_ = {0};
  std::vector<int64_t> positions_, tokens_, active_;
};

}  // namespace

PairedBatch build_paired_batch(const std::vector<AnchorSet>& sets, const DraftConfig& config,
                               int64_t max_context, const at::Device& device) {
  Builder builder(config, max_context);
  for (const AnchorSet& set : sets) builder.add(set.sample);
  return builder.finish(config, device);
}

}  // namespace dspark
