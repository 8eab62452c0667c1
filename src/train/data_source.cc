#include "train/data_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <span>
#include <string_view>
#include <unordered_map>

#include "train/anchors.h"

namespace dspark {
namespace {

constexpr uint64_t kHeldOutStream = uint64_t{1} << 63;
constexpr int64_t kAnnouncedSteps = 3;  // micro-steps that a source hears of ahead

/// Hash of what the answer of `sample` was given to. A text without a prompt (written from a first token
/// alone) is its own.
size_t prompt_hash(const TargetCacheSample& sample) {
  const auto n_prompt =
      static_cast<size_t>(std::ranges::find(sample.loss_mask, uint8_t{1}) - sample.loss_mask.begin());
  const std::span<const int32_t> ids(sample.input_ids);
  const auto bytes = std::as_bytes(n_prompt > 1 ? ids.first(n_prompt) : ids);
  return std::hash<std::string_view>()({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

}  // namespace

Result<DataSource> DataSource::create(const TrainOptions& options, SampleSources sources) {
  DataSource source;
  source.sources_ = std::move(sources);
  source.sequences_ = options.sequences;
  source.rank_ = options.processes.rank;
  source.world_ = options.processes.world;
  source.anchors_ = options.anchors;
  source.seed_ = options.seed;
  // Every n-th prompt is held out: the choice stays when a cache is added behind the others.
  const int64_t every = options.holdout > 0 ? static_cast<int64_t>(1.0 / options.holdout) : 0;
  TargetCacheSample sample;
  std::unordered_map<size_t, int64_t> number_of_prompt;  // hash -> from 1, in the order of first answers
  for (size_t c = 0; c < source.sources_.size(); ++c) {
    for (int64_t i = 0; i < source.sources_[c]->n_samples(); ++i) {
      source.sources_[c]->read_tokens(i, sample);
      if (anchor_candidates(sample.loss_mask).empty()) continue;
      const auto n_prompts = static_cast<int64_t>(number_of_prompt.size());
      const int64_t number = number_of_prompt.try_emplace(prompt_hash(sample), n_prompts + 1).first->second;
      const bool held = every > 0 && number % every == 0;
      (held ? source.held_out_ : source.train_).push_back({static_cast<int32_t>(c), i});
    }
  }
  if (source.micro_steps_per_epoch() < 1) {
    return invalid_argument(fmt::format("--data: {} samples can be trained on, one step takes {}",
                                        source.n_train(), source.sequences_ * source.world_));
  }
  return source;
}

Result<AnchorSet> DataSource::load(const Place& place, int64_t anchors, uint64_t stream) {
  AnchorSet set;
  DSPARK_RETURN_IF_ERROR(sources_[static_cast<size_t>(place.source)]->read(place.sample, set.sample));
  set.anchors = draw_anchors(anchor_candidates(set.sample.loss_mask), anchors, seed_, stream);
  return set;
}

const DataSource::Place& DataSource::place_of(int64_t micro_step, int64_t i) {
  const int64_t per_epoch = micro_steps_per_epoch();
  if (epoch_ != micro_step / per_epoch) {
    epoch_ = micro_step / per_epoch;
    order_ = shuffled_order(n_train(), seed_, static_cast<uint64_t>(epoch_));
  }
  const int64_t at = (micro_step % per_epoch) * sequences_ * world_ + i;
  return train_[static_cast<size_t>(order_[static_cast<size_t>(at)])];
}

void DataSource::announce(int64_t index) {
  std::vector<std::vector<int64_t>> next(sources_.size());
  for (int64_t step = index; step < index + kAnnouncedSteps; ++step) {
    for (int64_t j = 0; j < sequences_; ++j) {
      const Place& place = place_of(step, share(j));
      next[static_cast<size_t>(place.source)].push_back(place.sample);
    }
  }
  for (size_t s = 0; s < sources_.size(); ++s) sources_[s]->expect(next[s]);
}

Result<std::vector<AnchorSet>> DataSource::micro_step(int64_t index, int64_t anchors) {
  announce(index);
  std::vector<AnchorSet> sets;
  for (int64_t j = 0; j < sequences_; ++j) {
    const int64_t i = share(j);
    const auto stream = static_cast<uint64_t>(index * sequences_ * world_ + i);
    DSPARK_ASSIGN_OR_RETURN(AnchorSet set, load(place_of(index, i), anchors, stream));
    sets.push_back(std::move(set));
  }
  return sets;
}

Result<std::vector<AnchorSet>> DataSource::held_out(int64_t first, int64_t count) {
  std::vector<AnchorSet> sets;
  for (int64_t i = first; i < std::min(first + count, n_held_out()); ++i) {
    const Place& place = held_out_[static_cast<size_t>(i)];
    DSPARK_ASSIGN_OR_RETURN(AnchorSet set, load(place, anchors_, kHeldOutStream + static_cast<uint64_t>(i)));
    sets.push_back(std::move(set));
  }
  return sets;
}

}  // namespace dspark
