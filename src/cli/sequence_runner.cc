#include "cli/sequence_runner.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <utility>

namespace dspark::cli {
namespace {

constexpr int64_t kLogitsBytes = int64_t{64} << 20;
constexpr int32_t kMaxChunk = 512;

}  // namespace

Result<OpenedModel> open_model(const ModelFlags& flags, const std::string& dtype) {
  if (dtype != "auto" && dtype != "f32") {
    return invalid_argument("--dtype: expected auto or f32, found '" + dtype + "'");
  }
  OpenedModel opened;
  DSPARK_ASSIGN_OR_RETURN(opened.kv_dtype, parse_kv_type(flags.kv_type));
  std::string path = flags.model;
  if (path.empty()) {
    DSPARK_ASSIGN_OR_RETURN(path, default_model_path());
  }
  ModelOptions options;
  if (dtype == "f32") {
    options.float_activations = true;
    opened.kv_dtype = KvDType::kF32;
  }
  opened.pool = std::make_unique<ThreadPool>(flags.threads > 0 ? flags.threads : default_thread_count());
  DSPARK_ASSIGN_OR_RETURN(opened.model, TargetModel::open(path, *opened.pool, options));
  return opened;
}

Result<SequenceRunner> SequenceRunner::create(TargetModel& model, KvDType kv_dtype, int32_t n_positions) {
  const int32_t n_pages = (n_positions + kKvPageSize - 1) / kKvPageSize;
  DSPARK_ASSIGN_OR_RETURN(KvPool cache, KvPool::create(kv_dtype, model.kv_shapes(), n_pages));
  return SequenceRunner(model, std::move(cache), n_positions);
}

SequenceRunner::SequenceRunner(TargetModel& model, KvPool cache, int32_t n_positions)
    : model_(&model), cache_(std::move(cache)), n_positions_(n_positions) {
  pages_.resize(static_cast<size_t>(cache_.n_pages));
  std::iota(pages_.begin(), pages_.end(), 0);
}

int32_t SequenceRunner::chunk_rows() const {
  const int64_t rows = kLogitsBytes / (static_cast<int64_t>(model_->config().vocab_size) * 4);
  return static_cast<int32_t>(std::clamp<int64_t>(rows, 1, kMaxChunk));
}

Result<ForwardResult> SequenceRunner::forward(std::span<const int32_t> tokens) {
  const auto n_rows = static_cast<int32_t>(tokens.size());
  if (n_rows > n_positions_ - length_) {
    return invalid_argument(fmt::format("more than {} tokens in one sequence", n_positions_));
  }
  batch_.clear();
  KvRun run;
  run.n_rows = n_rows;
  run.pos_begin = length_;
  run.pages = pages_;
  batch_.runs.push_back(run);
  for (int32_t row = 0; row < n_rows; ++row) {
    const int32_t token = tokens[static_cast<size_t>(row)];
    if (token < 0 || token >= model_->config().vocab_size) {
      return invalid_argument(fmt::format("token id {} is not in the vocabulary (0 to {})", token,
                                          model_->config().vocab_size - 1));
    }
    batch_.tokens.push_back(token);
    batch_.positions.push_back(length_ + row);
    batch_.logit_rows.push_back(row);
    batch_.capture_rows.push_back(row);
  }
  const ForwardResult result = model_->forward(batch_, cache_);
  if (result.out_of_memory) return out_of_memory(fmt::format("no memory for a batch of {} rows", n_rows));
  length_ += n_rows;
  return result;
}

}  // namespace dspark::cli
