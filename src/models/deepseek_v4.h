#pragma once
// DeepSeek V4 as a target. Structure and sources: docs/deepseek_v4.md.

#include <memory>
#include <vector>

#include "models/deepseek_v4_attention.h"
#include "models/deepseek_v4_weights.h"
#include "models/float_buffer.h"
#include "models/hyper_connections.h"
#include "models/model.h"
#include "models/moe.h"

namespace dspark {

/// Sizes of the mixing of a model's streams.
HyperShape v4_hyper_shape(const ModelConfig& config);

/// Streams captured for drafters (set_capture_layers) are means over the residual streams.
class DeepseekV4 final : public TargetModel {
 public:
  /// errors: see TargetModel::load.
  static Result<std::unique_ptr<TargetModel>> load(std::shared_ptr<const Checkpoint> checkpoint,
                                                   ModelConfig config, ThreadPool& pool,
                                                   const ModelOptions& options);

  const ModelConfig& config() const override { return config_; }
  const Checkpoint& checkpoint() const override { return *checkpoint_; }
  std::vector<KvLayerShape> kv_shapes() const override;
  void set_capture_layers(std::vector<int32_t> layers) override { capture_layers_ = std::move(layers); }
  /// Its attention takes what a context needs while it grows.
  Status reserve(int64_t n_rows, int64_t n_logit_rows, int64_t context_length) override;
  ForwardResult forward(const ForwardBatch& batch, KvPool& cache) override;
  SharedWeights shared_weights() const override;
  ThreadPool* pool() const override { return &pool_; }
  size_t weight_bytes() const override { return weights_.packed_bytes; }

 private:
  DeepseekV4(std::shared_ptr<const Checkpoint> checkpoint, ModelConfig config, V4Weights weights,
             ThreadPool& pool);
  bool grow_buffers(int64_t n_rows, int64_t n_logit_rows, int64_t n_capture_rows);
  void embed(const ForwardBatch& batch);
  bool layer(const ForwardBatch& batch, KvPool& cache, int32_t layer_idx);
  void capture(const ForwardBatch& batch, int32_t stream);
  void head(const ForwardBatch& batch);

  std::shared_ptr<const Checkpoint> checkpoint_;
  ModelConfig config_;
  V4Weights weights_;
  ThreadPool& pool_;
  HyperShape hyper_;
  std::vector<int32_t> capture_layers_;

  FloatBuffer streams_;       // (n_rows, n_streams, dim)
  FloatBuffer branch_;        // (n_rows, dim): into and out of a block
  FloatBuffer head_streams_;  // (n_logit_rows, n_streams, dim)
  FloatBuffer final_norm_, logits_, captured_;
  HyperMixer mixer_;
  V4AttentionBlock attention_;
  MoeBlock moe_;
  Activations activations_;
};

}  // namespace dspark
