#include "train_data/features.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "kernels/row_math.h"
#include "kernels/rows.h"
#include "tensor/half.h"

namespace dspark {
namespace {

// A sample begins on a page of its own: pages for samples that share a pass.
constexpr int32_t kSparePages = 32;

int32_t pages_for(int64_t n_tokens) {
  return static_cast<int32_t>((n_tokens + kKvPageSize - 1) / kKvPageSize);
}

void to_bf16(uint16_t* to, const float* from, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = f32_to_bf16(from[i]);
}

}  // namespace

Status FeatureOptions::validate(const ModelConfig& config) const {
  if (layer_ids.empty()) return invalid_argument("layers: none given");
  for (size_t i = 0; i < layer_ids.size(); ++i) {
    if (layer_ids[i] < -1 || layer_ids[i] >= config.n_layers || (i > 0 && layer_ids[i] <= layer_ids[i - 1])) {
      return invalid_argument(fmt::format("layers: want ascending numbers from -1 to {}, found {}",
                                          config.n_layers - 1, layer_ids[i]));
    }
  }
  if (batch_rows < 1) return invalid_argument(fmt::format("batch rows: {} is not positive", batch_rows));
  if (max_length < 1 || (config.context_length > 0 && max_length > config.context_length)) {
    return invalid_argument(fmt::format("max length: want 1 to {} (what the model was trained for), found {}",
                                        config.context_length, max_length));
  }
  return ok_status();
}

std::vector<int32_t> spread_layer_ids(int32_t n_layers, int32_t n) {
  const int32_t first = std::min(1, n_layers - 1);
  const int32_t last = std::max(first, n_layers - 3);
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < n; ++i) {
    const double at = n == 1 ? last : first + static_cast<double>(i) * (last - first) / (n - 1);
    const auto id = static_cast<int32_t>(std::floor(at + 0.5));
    if (ids.empty() || id > ids.back()) ids.push_back(id);
  }
  return ids;
}

Result<std::unique_ptr<FeatureExtractor>> FeatureExtractor::create(TargetModel& model, ThreadPool& pool,
                                                                   const FeatureOptions& options) {
  DSPARK_RETURN_IF_ERROR(options.validate(model.config()));
  if (model.shared_weights().final_norm.empty()) {
    return unsupported(model.config().arch + ": this target does not tell its final norm");
  }
  const int32_t n_pages =
      std::max(pages_for(options.batch_rows) + kSparePages, pages_for(options.max_length));
  DSPARK_ASSIGN_OR_RETURN(KvPool cache, KvPool::create(options.kv_dtype, model.kv_shapes(), n_pages));
  std::vector<int32_t> streams;
  for (const int32_t id : options.layer_ids) streams.push_back(id + 1);
  streams.push_back(model.config().n_layers);
  model.set_capture_layers(std::move(streams));
  return std::unique_ptr<FeatureExtractor>(new FeatureExtractor(model, pool, options, std::move(cache)));
}

FeatureExtractor::FeatureExtractor(TargetModel& model, ThreadPool& pool, const FeatureOptions& options,
                                   KvPool cache)
    : model_(model), pool_(pool), options_(options), cache_(std::move(cache)) {
  logit_scratch_.resize(static_cast<size_t>(pool.n_threads()));
}

Status FeatureExtractor::check(const TargetCacheSample& sample) const {
  const int32_t vocab_size = model_.config().vocab_size;
  if (sample.n_tokens() == 0 || sample.n_tokens() > static_cast<size_t>(options_.max_length)) {
    return invalid_argument(
        fmt::format("a sample of {} tokens, want 1 to {}", sample.n_tokens(), options_.max_length));
  }
  if (sample.loss_mask.size() != sample.n_tokens()) {
    return invalid_argument(
        fmt::format("a loss mask of {} tokens for {}", sample.loss_mask.size(), sample.n_tokens()));
  }
  for (const int32_t token : sample.input_ids) {
    if (token < 0 || token >= vocab_size) {
      return invalid_argument(fmt::format("token id {} is not in the vocabulary of {}", token, vocab_size));
    }
  }
  return ok_status();
}

void FeatureExtractor::prepare(TargetCacheSample& sample) const {
  const size_t n = sample.n_tokens();
  const auto dim = static_cast<size_t>(model_.config().dim);
  sample.target_hidden_states.resize(n * options_.layer_ids.size() * dim);
  sample.target_last_hidden.resize(n * dim);
  sample.log_sum_exp.assign(options_.log_sum_exp ? n : 0, std::numeric_limits<float>::quiet_NaN());
}

Status FeatureExtractor::extract(std::span<TargetCacheSample> samples) {
  for (TargetCacheSample& sample : samples) {
    DSPARK_RETURN_IF_ERROR(check(sample));
    prepare(sample);
  }
  for (size_t begin = 0; begin < samples.size();) {
    // As many samples as fit one pass and the cache, or a single longer one.
    size_t end = begin;
    int64_t n_rows = 0;
    int32_t n_pages = 0;
    while (end < samples.size()) {
      const auto n = static_cast<int64_t>(samples[end].n_tokens());
      const bool fits = n_rows + n <= options_.batch_rows && n_pages + pages_for(n) <= cache_.n_pages;
      if (end > begin && !fits) break;
      n_rows += n;
      n_pages += pages_for(n);
      ++end;
    }
    DSPARK_RETURN_IF_ERROR(extract_group(samples.subspan(begin, end - begin)));
    begin = end;
  }
  return ok_status();
}

/// One pass, or several for a sample that is longer than a pass.
Status FeatureExtractor::extract_group(std::span<TargetCacheSample> group) {
  pages_.assign(group.size(), {});
  int32_t next_page = 0;
  int64_t longest = 0;
  for (size_t i = 0; i < group.size(); ++i) {
    longest = std::max(longest, static_cast<int64_t>(group[i].n_tokens()));
    for (int32_t n = pages_for(static_cast<int64_t>(group[i].n_tokens())); n > 0; --n) {
      pages_[i].push_back(next_page++);
    }
  }
  DSPARK_DCHECK(next_page <= cache_.n_pages);
  for (int64_t begin = 0; begin < longest; begin += options_.batch_rows) {
    batch_.clear();
    places_.clear();
    for (size_t i = 0; i < group.size(); ++i) {
      const int64_t n =
          std::min<int64_t>(static_cast<int64_t>(group[i].n_tokens()) - begin, options_.batch_rows);
      if (n <= 0) continue;
      for (int64_t p = begin; p < begin + n; ++p) places_.push_back({&group[i], p});
      add_rows_of(group[i], begin, n, pages_[i]);
    }
    const ForwardResult result = model_.forward(batch_, cache_);
    if (result.out_of_memory) {
      return out_of_memory(fmt::format("no memory for a pass of {} rows", batch_.n_rows()));
    }
    store(result);
    store_log_sum_exp(result);
  }
  return ok_status();
}

void FeatureExtractor::add_rows_of(const TargetCacheSample& sample, int64_t begin, int64_t n,
                                   std::span<const int32_t> pages) {
  const auto row_begin = static_cast<int32_t>(batch_.n_rows());
  KvRun run;
  run.row_begin = row_begin;
  run.n_rows = static_cast<int32_t>(n);
  run.pos_begin = static_cast<int32_t>(begin);
  run.pages = pages;
  batch_.runs.push_back(run);
  for (int64_t i = 0; i < n; ++i) {
    const auto position = static_cast<size_t>(begin + i);
    const int32_t row = row_begin + static_cast<int32_t>(i);
    batch_.tokens.push_back(sample.input_ids[position]);
    batch_.positions.push_back(static_cast<int32_t>(begin + i));
    batch_.capture_rows.push_back(row);
    if (options_.log_sum_exp && sample.loss_mask[position] != 0) batch_.logit_rows.push_back(row);
  }
}

void FeatureExtractor::store(const ForwardResult& result) {
  const int64_t dim = model_.config().dim;
  const auto n_rows = static_cast<int64_t>(places_.size());
  const auto n_taps = static_cast<int64_t>(options_.layer_ids.size());
  normed_.resize(static_cast<size_t>(n_rows * dim));
  rms_norm(pool_, normed_.data(), dim, result.captured.data() + n_taps * n_rows * dim, dim,
           model_.shared_weights().final_norm.data(), model_.config().norm_eps, n_rows, dim);
  pool_.parallel_for(n_rows, [&](int64_t row, int) {
    const RowPlace& place = places_[static_cast<size_t>(row)];
    for (int64_t tap = 0; tap < n_taps; ++tap) {
      to_bf16(place.sample->target_hidden_states.data() + (place.position * n_taps + tap) * dim,
              result.captured.data() + (tap * n_rows + row) * dim, dim);
    }
    to_bf16(place.sample->target_last_hidden.data() + place.position * dim, normed_.data() + row * dim, dim);
  });
}

void FeatureExtractor::store_log_sum_exp(const ForwardResult& result) {
  const auto vocab = static_cast<size_t>(model_.config().vocab_size);
  pool_.parallel_for(static_cast<int64_t>(batch_.logit_rows.size()), [&](int64_t i, int thread) {
    std::vector<float>& row = logit_scratch_[static_cast<size_t>(thread)];
    const std::span<const float> logits = result.logits.subspan(static_cast<size_t>(i) * vocab, vocab);
    row.assign(logits.begin(), logits.end());
    const auto n = static_cast<int64_t>(vocab);
    const float top = max_row(row.data(), n);
    softmax_row(row.data(), n);
    // The largest probability is exp(top - log_sum_exp).
    const RowPlace& place = places_[static_cast<size_t>(batch_.logit_rows[static_cast<size_t>(i)])];
    place.sample->log_sum_exp[static_cast<size_t>(place.position)] = top - std::log(max_row(row.data(), n));
  });
}

}  // namespace dspark
