#include "train/data_source.h"

#include <fmt/format.h>

#include <algorithm>

#include "train/anchors.h"

namespace dspark {
namespace {

constexpr uint64_t kHeldOutStream = uint64_t{1} << 63;

}  // namespace

Result<DataSource> DataSource::create(const TrainOptions& options, std::vector<TargetCacheReader> caches) {
  DataSource source;
  source.caches_ = std::move(caches);
  source.sequences_ = options.sequences;
  source.anchors_ = options.anchors;
  source.seed_ = options.seed;
  // Every n-th sample is held out: the choice stays when a cache is added behind the others.
  const int64_t every = options.holdout > 0 ? static_cast<int64_t>(1.0 / options.holdout) : 0;
  TargetCacheSample sample;
  int64_t n_seen = 0;
  for (size_t c = 0; c < source.caches_.size(); ++c) {
    for (int64_t i = 0; i < source.caches_[c].n_samples(); ++i) {
      source.caches_[c].read_tokens(i, sample);
      if (anchor_candidates(sample.loss_mask).empty()) continue;
      const bool held = every > 0 && ++n_seen % every == 0;
      (held ? source.held_out_ : source.train_).push_back({static_cast<int32_t>(c), i});
    }
  }
  if (source.n_train() < source.sequences_) {
    return invalid_argument(fmt::format("--data: {} samples can be trained on, one step takes {}",
                                        source.n_train(), source.sequences_));
  }
  return source;
}

AnchorSet DataSource::load(const Place& place, int64_t anchors, uint64_t stream) const {
  AnchorSet set;
  caches_[static_cast<size_t>(place.cache)].read(place.sample, set.sample);
  set.anchors = draw_anchors(anchor_candidates(set.sample.loss_mask), anchors, seed_, stream);
  return set;
}

std::vector<AnchorSet> DataSource::micro_step(int64_t index, int64_t anchors) const {
  const int64_t per_epoch = micro_steps_per_epoch();
  const std::vector<int32_t> order =
      shuffled_order(n_train(), seed_, static_cast<uint64_t>(index / per_epoch));
  std::vector<AnchorSet> sets;
  for (int64_t i = 0; i < sequences_; ++i) {
    const int64_t at = (index % per_epoch) * sequences_ + i;
    sets.push_back(load(train_[static_cast<size_t>(order[static_cast<size_t>(at)])], anchors,
                        static_cast<uint64_t>(index * sequences_ + i)));
  }
  return sets;
}

std::vector<AnchorSet> DataSource::held_out(int64_t first, int64_t count) const {
  std::vector<AnchorSet> sets;
  for (int64_t i = first; i < std::min(first + count, n_held_out()); ++i) {
    sets.push_back(
        load(held_out_[static_cast<size_t>(i)], anchors_, kHeldOutStream + static_cast<uint64_t>(i)));
  }
  return sets;
}

}  // namespace dspark
