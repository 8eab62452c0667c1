#pragma once
// The generic decoder: llama, qwen2, qwen3, qwen3moe, gemma3, gemma4 and DeepSeek V3 differ by data
// (ModelConfig), not by code.

#include <memory>
#include <vector>

#include "kernels/attention.h"
#include "kernels/matmul.h"
#include "models/float_buffer.h"
#include "models/model.h"
#include "models/moe.h"
#include "models/weights.h"

namespace dspark {

class Decoder final : public TargetModel {
 public:
  /// errors: see TargetModel::load.
  static Result<std::unique_ptr<TargetModel>> load(std::shared_ptr<const Checkpoint> checkpoint,
                                                   ModelConfig config, ThreadPool& pool,
                                                   const ModelOptions& options);

  const ModelConfig& config() const override { return config_; }
  const Checkpoint& checkpoint() const override { return *checkpoint_; }
  std::vector<KvLayerShape> kv_shapes() const override;
  void set_capture_layers(std::vector<int32_t> layers) override { capture_layers_ = std::move(layers); }
  Status reserve(int64_t n_rows, int64_t n_logit_rows, int64_t context_length) override;
  ForwardResult forward(const ForwardBatch& batch, KvPool& cache) override;
  SharedWeights shared_weights() const override;
  ThreadPool* pool() const override { return &pool_; }
  size_t weight_bytes() const override { return weights_.packed_bytes; }

 private:
  Decoder(std::shared_ptr<const Checkpoint> checkpoint, ModelConfig config, ModelWeights weights,
          ThreadPool& pool);

  bool grow_buffers(int64_t n_rows, int64_t n_logit_rows, int64_t n_capture_rows);
  bool grow_expert_buffers(int64_t n_rows);
  bool reserve_attention(int64_t n_rows, int64_t context_length);
  void embed(const ForwardBatch& batch);
  void decode_rows(const TensorView& table, const ForwardBatch& batch, float scale, float* out) const;
  void make_per_layer_inputs(const ForwardBatch& batch);
  void attend(const ForwardBatch& batch, KvPool& cache, int32_t layer_idx);
  void attend_latent(const ForwardBatch& batch, KvPool& cache, int32_t layer_idx);
  void make_keys(const ForwardBatch& batch, KvPool& cache, int32_t layer_idx);
  void attention_output(int32_t layer_idx, int64_t n_rows);
  bool is_done(const ForwardBatch& batch, int32_t layer_idx) const;
  int64_t drop_unasked_rows(const ForwardBatch& batch);
  void project_qkv(int32_t layer_idx, int64_t n_rows);
  void mlp_block(int32_t layer_idx, int64_t n_rows);
  void dense_mlp(int32_t layer_idx, int64_t n_rows);
  void experts_beside_mlp(int32_t layer_idx, int64_t n_rows);
  void add_per_layer_input(int32_t layer_idx, int64_t n_rows);
  void scale_stream(const std::vector<float>& scalar, int64_t n_rows);
  void add_branch(const std::vector<float>& post_norm, int64_t n_rows);
  void capture(const ForwardBatch& batch, int32_t stream);
  void head(const ForwardBatch& batch, int64_t n_live_rows);
  void norm(float* y, const float* x, const std::vector<float>& weight, int64_t n_rows);
  void multiply(const float* x, int64_t n_in, int64_t n_rows, std::span<const MatmulJob> jobs);

  std::shared_ptr<const Checkpoint> checkpoint_;
  ModelConfig config_;
  ModelWeights weights_;
  ThreadPool& pool_;
  std::vector<int32_t> capture_layers_;

  // What follows from the config.
  std::vector<int32_t> cache_layers_;  // per layer: the layer of the cache that it reads
  int32_t last_kv_layer_ = 0;          // layers behind it write nothing to the cache
  int64_t max_q_dim_ = 0;              // widest of all layers
  int64_t max_kv_dim_ = 0;
  int64_t max_ffn_dim_ = 0;

  // Scratch of one forward, rows dense. `residual_` is the stream; `branch_` holds what goes into and comes
  // out of the attention and the MLP.
  FloatBuffer residual_, branch_, q_, k_, v_, attended_, gate_, up_;
  FloatBuffer router_in_, expert_in_, expert_out_;
  MoeBlock moe_;
  MlaBlock mla_;
  FloatBuffer per_layer_, per_layer_rows_, per_layer_gate_;
  FloatBuffer final_norm_, logits_, captured_;
  Activations activations_;
  AttentionScratch scratch_;
};

}  // namespace dspark
