#include "train_data/feature_tap.h"

#include <algorithm>
#include <utility>

#include "kernels/rows.h"
#include "tensor/half.h"
#include "train_data/features.h"

namespace dspark {
namespace {

void append_bf16(std::vector<uint16_t>& to, const float* from, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to.push_back(f32_to_bf16(from[i]));
}

}  // namespace

Result<std::unique_ptr<FeatureTap>> FeatureTap::create(const TargetModel& model,
                                                       std::span<const int32_t> layer_ids) {
  FeatureOptions options;
  options.layer_ids.assign(layer_ids.begin(), layer_ids.end());
  options.max_length = 1;  // not its business
  DSPARK_RETURN_IF_ERROR(options.validate(model.config()));
  if (model.shared_weights().final_norm.empty()) {
    return unsupported(model.config().arch + ": this target does not tell its final norm");
  }
  std::vector<int32_t> streams;
  for (const int32_t id : layer_ids) streams.push_back(id + 1);
  streams.push_back(model.config().n_layers);
  return std::unique_ptr<FeatureTap>(new FeatureTap(model, std::move(streams)));
}

Status FeatureTap::propose(std::span<const DraftRequest> requests, DraftBlock& out) {
  for (size_t i = 0; i < requests.size(); ++i) out.n_tokens[i] = 0;
  return ok_status();
}

void FeatureTap::commit(std::span<const CommitEvent> events) {
  for (const CommitEvent& event : events) {
    Text& text = texts_[event.slot];
    text.tokens.resize(static_cast<size_t>(event.token_position));
    text.tokens.insert(text.tokens.end(), event.tokens.begin(), event.tokens.end());
    if (event.n_features > 0) add_rows(text, event);
  }
}

void FeatureTap::add_rows(Text& text, const CommitEvent& event) {
  DSPARK_DCHECK(text.n_rows == static_cast<size_t>(event.feature_position));
  const int64_t dim = event.dim;
  const auto n_layers = static_cast<int64_t>(streams_.size()) - 1;
  normed_.resize(static_cast<size_t>(event.n_features * dim));
  rms_norm(pool_, normed_.data(), dim, event.features + n_layers * event.tap_stride, dim,
           model_.shared_weights().final_norm.data(), model_.config().norm_eps, event.n_features, dim);
  for (int64_t row = 0; row < event.n_features; ++row) {
    for (int64_t layer = 0; layer < n_layers; ++layer) {
      append_bf16(text.features, event.features + layer * event.tap_stride + row * dim, dim);
    }
  }
  append_bf16(text.last_hidden, normed_.data(), event.n_features * dim);
  text.n_rows += static_cast<size_t>(event.n_features);
}

void FeatureTap::release(int32_t slot) {
  texts_.erase(slot);
}

bool FeatureTap::copy_to(TargetCacheSample& sample) const {
  const size_t n = sample.n_tokens();
  const auto rows = [n](const std::vector<uint16_t>& all, size_t n_rows) {
    return std::vector<uint16_t>(all.begin(),
                                 all.begin() + static_cast<std::ptrdiff_t>(all.size() / n_rows * n));
  };
  for (const auto& [slot, text] : texts_) {
    if (text.n_rows < n || text.tokens.size() < n) continue;
    if (!std::equal(sample.input_ids.begin(), sample.input_ids.end(), text.tokens.begin())) continue;
    sample.target_hidden_states = rows(text.features, text.n_rows);
    sample.target_last_hidden = rows(text.last_hidden, text.n_rows);
    return true;
  }
  return false;
}

}  // namespace dspark
