#include "models/deepseek_v4.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "kernels/rows.h"
#include "models/model_shapes.h"
#include "tensor/quantize.h"

namespace dspark {

HyperShape v4_hyper_shape(const ModelConfig& config) {
  return {config.dim, config.v4.n_streams, config.v4.sinkhorn_iters, config.v4.hc_eps, config.norm_eps};
}

Result<std::unique_ptr<TargetModel>> DeepseekV4::load(std::shared_ptr<const Checkpoint> checkpoint,
                                                      ModelConfig config, ThreadPool& pool,
                                                      const ModelOptions& options) {
  DSPARK_ASSIGN_OR_RETURN(V4Weights weights,
                          load_v4_weights(*checkpoint, config, pool, options.float_activations));
  return std::unique_ptr<TargetModel>(
      new DeepseekV4(std::move(checkpoint), std::move(config), std::move(weights), pool));
}

DeepseekV4::DeepseekV4(std::shared_ptr<const Checkpoint> checkpoint, ModelConfig config, V4Weights weights,
                       ThreadPool& pool)
    : checkpoint_(std::move(checkpoint)),
      config_(std::move(config)),
      weights_(std::move(weights)),
      pool_(pool),
      hyper_(v4_hyper_shape(config_)) {}

std::vector<KvLayerShape> DeepseekV4::kv_shapes() const {
  return cache_shapes(config_);
}

SharedWeights DeepseekV4::shared_weights() const {
  return {weights_.embedding, weights_.head_tensor, &weights_.head, weights_.final_norm};
}

bool DeepseekV4::grow_buffers(int64_t n_rows, int64_t n_logit_rows, int64_t n_capture_rows) {
  const int64_t dim = config_.dim, wide = hyper_.n_streams * dim;
  const auto n_captured = static_cast<int64_t>(capture_layers_.size()) * n_capture_rows;
  return streams_.grow(n_rows * wide) && branch_.grow(n_rows * dim) &&
         head_streams_.grow(n_logit_rows * wide) && final_norm_.grow(n_logit_rows * dim) &&
         logits_.grow(n_logit_rows * config_.vocab_size) && captured_.grow(n_captured * dim) &&
         mixer_.grow(hyper_, n_rows) && attention_.grow(config_, n_rows, pool_.n_threads()) &&
         moe_.grow(config_.moe, dim, n_rows);
}

Status DeepseekV4::reserve(int64_t n_rows, int64_t n_logit_rows, int64_t) {
  if (grow_buffers(n_rows, n_logit_rows, n_rows)) {
    for (const RopeTable& rope : config_.ropes) rope.reserve(n_rows);
    return ok_status();
  }
  return out_of_memory("no memory for batches of " + std::to_string(n_rows) + " rows with " +
                       std::to_string(n_logit_rows) + " rows of logits");
}

ForwardResult DeepseekV4::forward(const ForwardBatch& batch, KvPool& cache) {
  const auto n_logit_rows = static_cast<int64_t>(batch.logit_rows.size());
  const auto n_capture_rows = static_cast<int64_t>(batch.capture_rows.size());
  ForwardResult result;
  if (!grow_buffers(batch.n_rows(), n_logit_rows, n_capture_rows)) {
    result.out_of_memory = true;
    return result;
  }
  embed(batch);
  capture(batch, 0);
  for (int32_t layer_idx = 0; layer_idx < config_.n_layers; ++layer_idx) {
    if (!layer(batch, cache, layer_idx)) {
      result.out_of_memory = true;
      return result;
    }
    capture(batch, layer_idx + 1);
  }
  head(batch);
  const auto size = [](int64_t rows, int64_t dim) { return static_cast<size_t>(rows * dim); };
  result.logits = {logits_.data(), size(n_logit_rows, config_.vocab_size)};
  result.final_norm = {final_norm_.data(), size(n_logit_rows, config_.dim)};
  result.captured = {captured_.data(), capture_layers_.size() * size(n_capture_rows, config_.dim)};
  return result;
}

// Every stream starts as the embedding.
void DeepseekV4::embed(const ForwardBatch& batch) {
  const TensorView& table = weights_.embedding;
  const size_t row_bytes = table.row_bytes();
  const int64_t dim = config_.dim;
  pool_.parallel_for(batch.n_rows(), [&](int64_t row, int) {
    const int32_t token = batch.tokens[static_cast<size_t>(row)];
    DSPARK_DCHECK(token >= 0 && token < config_.vocab_size);
    float* streams = streams_.data() + row * hyper_.n_streams * dim;
    decode_row(table.dtype, table.data + static_cast<size_t>(token) * row_bytes, streams, dim);
    for (int32_t s = 1; s < hyper_.n_streams; ++s) {
      std::memcpy(streams + s * dim, streams, static_cast<size_t>(dim) * sizeof(float));
    }
  });
}

// returns: false when memory is short.
bool DeepseekV4::layer(const ForwardBatch& batch, KvPool& cache, int32_t layer_idx) {
  const V4LayerWeights& w = weights_.layers[static_cast<size_t>(layer_idx)];
  const int64_t n_rows = batch.n_rows(), dim = config_.dim;
  const auto norm = [&](const std::vector<float>& weight) {
    rms_norm(pool_, branch_.data(), dim, branch_.data(), dim, weight.data(), config_.norm_eps, n_rows, dim);
  };
  mixer_.enter(pool_, hyper_, w.attn_hc, streams_.data(), n_rows, branch_.data());
  norm(w.attn_norm);
  V4AttentionArgs attend;
  attend.x = branch_.data();
  attend.out = branch_.data();
  attend.positions = batch.positions;
  attend.runs = batch.runs;
  attend.layer = layer_idx;
  attend.kind = config_.v4.attention[static_cast<size_t>(layer_idx)];
  if (!attention_.run(pool_, config_, w, cache, attend)) return false;
  mixer_.leave(pool_, hyper_, branch_.data(), n_rows, streams_.data());

  mixer_.enter(pool_, hyper_, w.ffn_hc, streams_.data(), n_rows, branch_.data());
  norm(w.ffn_norm);
  MoeArgs experts;
  experts.router_in = experts.x = branch_.data();
  experts.out = branch_.data();
  experts.tokens = batch.tokens.data();
  experts.n_rows = n_rows;
  moe_.run(pool_, config_.moe, w.moe, experts);
  mixer_.leave(pool_, hyper_, branch_.data(), n_rows, streams_.data());
  return true;
}

// A drafter gets one vector per token: the mean of the streams.
void DeepseekV4::capture(const ForwardBatch& batch, int32_t stream) {
  const auto n_rows = static_cast<int64_t>(batch.capture_rows.size());
  const int64_t dim = config_.dim;
  const float share = 1.0f / static_cast<float>(hyper_.n_streams);
  for (size_t i = 0; i < capture_layers_.size(); ++i) {
    if (capture_layers_[i] != stream) continue;
    for (int64_t r = 0; r < n_rows; ++r) {
      float* out = captured_.data() + (static_cast<int64_t>(i) * n_rows + r) * dim;
      const float* x = streams_.data() + batch.capture_rows[static_cast<size_t>(r)] * hyper_.n_streams * dim;
      std::memcpy(out, x, static_cast<size_t>(dim) * sizeof(float));
      for (int32_t s = 1; s < hyper_.n_streams; ++s) {
        for (int64_t c = 0; c < dim; ++c) out[c] += x[s * dim + c];
      }
      for (int64_t c = 0; c < dim; ++c) out[c] *= share;
    }
  }
}

void DeepseekV4::head(const ForwardBatch& batch) {
  const auto n_rows = static_cast<int64_t>(batch.logit_rows.size());
  if (n_rows == 0) return;
  const int64_t dim = config_.dim, wide = hyper_.n_streams * dim;
  for (int64_t i = 0; i < n_rows; ++i) {
    std::memcpy(head_streams_.data() + i * wide,
                streams_.data() + batch.logit_rows[static_cast<size_t>(i)] * wide,
                static_cast<size_t>(wide) * sizeof(float));
  }
  mixer_.collapse(pool_, hyper_, weights_.head_hc, head_streams_.data(), n_rows, final_norm_.data());
  rms_norm(pool_, final_norm_.data(), dim, final_norm_.data(), dim, weights_.final_norm.data(),
           config_.norm_eps, n_rows, dim);
  activations_.assign(pool_, final_norm_.data(), n_rows, dim, dim, uses_int8_activations(weights_.head.kind));
  const MatmulJob job{&weights_.head, logits_.data(), config_.vocab_size, nullptr};
  matmul(pool_, {&job, 1}, activations_);
}

}  // namespace dspark
