#include "models/decoder.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>
#include <utility>

#include "kernels/row_math.h"
#include "kernels/rows.h"
#include "models/model_shapes.h"
#include "tensor/quantize.h"

namespace dspark {
namespace {

const float* bias_or_null(const std::vector<float>& bias) {
  return bias.empty() ? nullptr : bias.data();
}

// to[i] = from[rows[i]]. In place it works because rows ascend.
void gather_rows(float* to, const float* from, std::span<const int32_t> rows, int64_t dim) {
  for (size_t i = 0; i < rows.size(); ++i) {
    std::memmove(to + static_cast<int64_t>(i) * dim, from + rows[i] * dim,
                 static_cast<size_t>(dim) * sizeof(float));
  }
}

}  // namespace

Result<std::unique_ptr<TargetModel>> Decoder::load(std::shared_ptr<const Checkpoint> checkpoint,
                                                   ModelConfig config, ThreadPool& pool,
                                                   const ModelOptions& options) {
  DSPARK_ASSIGN_OR_RETURN(ModelWeights weights,
                          load_weights(*checkpoint, config, pool, options.float_activations));
  return std::unique_ptr<TargetModel>(
      new Decoder(std::move(checkpoint), std::move(config), std::move(weights), pool));
}

Decoder::Decoder(std::shared_ptr<const Checkpoint> checkpoint, ModelConfig config, ModelWeights weights,
                 ThreadPool& pool)
    : checkpoint_(std::move(checkpoint)),
      config_(std::move(config)),
      weights_(std::move(weights)),
      pool_(pool) {
  int32_t n_cached = 0;
  for (int32_t i = 0; i < config_.n_layers; ++i) {
    const LayerConfig& layer = config_.layer(i);
    const int64_t head_dim = config_.mla.kv_rank > 0 ? config_.mla.v_dim : layer.head_dim;
    max_q_dim_ = std::max(max_q_dim_, config_.n_heads * head_dim);
    max_kv_dim_ = std::max(max_kv_dim_, static_cast<int64_t>(layer.n_kv_heads) * layer.head_dim);
    max_ffn_dim_ = std::max<int64_t>(max_ffn_dim_, layer.ffn_dim);
    if (config_.shares_kv(i)) {
      cache_layers_.push_back(cache_layers_[static_cast<size_t>(layer.kv_layer)]);
    } else {
      cache_layers_.push_back(n_cached++);
      last_kv_layer_ = i;
    }
  }
}

std::vector<KvLayerShape> Decoder::kv_shapes() const {
  return cache_shapes(config_);
}

SharedWeights Decoder::shared_weights() const {
  return {weights_.embedding, weights_.head_tensor, &weights_.head, weights_.final_norm};
}

bool Decoder::grow_buffers(int64_t n_rows, int64_t n_logit_rows, int64_t n_capture_rows) {
  const int64_t per_layer_dim = static_cast<int64_t>(config_.n_layers) * config_.per_layer_dim;
  const auto n_captured = static_cast<int64_t>(capture_layers_.size()) * n_capture_rows;
  return residual_.grow(n_rows * config_.dim) && branch_.grow(n_rows * config_.dim) &&
         q_.grow(n_rows * max_q_dim_) && k_.grow(n_rows * max_kv_dim_) && v_.grow(n_rows * max_kv_dim_) &&
         attended_.grow(n_rows * max_q_dim_) && gate_.grow(n_rows * max_ffn_dim_) &&
         up_.grow(n_rows * max_ffn_dim_) && per_layer_.grow(n_rows * per_layer_dim) &&
         per_layer_rows_.grow(n_rows * per_layer_dim) &&
         per_layer_gate_.grow(n_rows * config_.per_layer_dim) && grow_expert_buffers(n_rows) &&
         (config_.mla.kv_rank == 0 || mla_.grow(config_, n_rows)) &&
         final_norm_.grow(n_logit_rows * config_.dim) && logits_.grow(n_logit_rows * config_.vocab_size) &&
         captured_.grow(n_captured * config_.dim);
}

bool Decoder::grow_expert_buffers(int64_t n_rows) {
  if (config_.moe.n_experts == 0) return true;
  if (config_.moe.beside_mlp) {
    const int64_t size = n_rows * config_.dim;
    if (!router_in_.grow(size) || !expert_in_.grow(size) || !expert_out_.grow(size)) return false;
  }
  return moe_.grow(config_.moe, config_.dim, n_rows);
}

/// Layers may have heads of different sizes.
bool Decoder::reserve_attention(int64_t n_rows, int64_t context_length) {
  for (const KvLayerShape& shape : kv_shapes()) {
    const AttentionCapacity capacity{n_rows, config_.n_heads, shape, context_length};
    const bool reserved = config_.mla.kv_rank > 0 ? mla_.reserve_attention(pool_.n_threads(), capacity)
                                                  : scratch_.reserve(pool_.n_threads(), capacity);
    if (!reserved) return false;
  }
  return true;
}

Status Decoder::reserve(int64_t n_rows, int64_t n_logit_rows, int64_t context_length) {
  if (grow_buffers(n_rows, n_logit_rows, n_rows) && reserve_attention(n_rows, context_length)) {
    for (const RopeTable& rope : config_.ropes) rope.reserve(n_rows);
    return ok_status();
  }
  return out_of_memory("no memory for batches of " + std::to_string(n_rows) + " rows with " +
                       std::to_string(n_logit_rows) + " rows of logits");
}

ForwardResult Decoder::forward(const ForwardBatch& batch, KvPool& cache) {
  const int64_t n_rows = batch.n_rows();
  const auto n_logit_rows = static_cast<int64_t>(batch.logit_rows.size());
  const auto n_capture_rows = static_cast<int64_t>(batch.capture_rows.size());
  ForwardResult result;
  if (!grow_buffers(n_rows, n_logit_rows, n_capture_rows)) {
    result.out_of_memory = true;
    return result;
  }
  embed(batch);
  capture(batch, 0);
  make_per_layer_inputs(batch);
  int64_t n_live_rows = n_rows;
  for (int32_t layer_idx = 0; layer_idx < config_.n_layers; ++layer_idx) {
    attend(batch, cache, layer_idx);
    if (is_done(batch, layer_idx)) break;
    if (layer_idx + 1 == config_.n_layers) n_live_rows = drop_unasked_rows(batch);
    attention_output(layer_idx, n_live_rows);
    mlp_block(layer_idx, n_live_rows);
    add_per_layer_input(layer_idx, n_live_rows);
    scale_stream(weights_.layers[static_cast<size_t>(layer_idx)].scalar, n_live_rows);
    capture(batch, layer_idx + 1);
  }
  head(batch, n_live_rows);
  const auto size = [](int64_t rows, int64_t dim) { return static_cast<size_t>(rows * dim); };
  result.logits = {logits_.data(), size(n_logit_rows, config_.vocab_size)};
  result.final_norm = {final_norm_.data(), size(n_logit_rows, config_.dim)};
  result.captured = {captured_.data(), capture_layers_.size() * size(n_capture_rows, config_.dim)};
  return result;
}

// Rows of the embedding are decoded from the mapped file: a packed copy would only serve a tied head.
void Decoder::embed(const ForwardBatch& batch) {
  decode_rows(weights_.embedding, batch, config_.embedding_scale, residual_.data());
}

// The rows of the batch's tokens, dense, times `scale`.
void Decoder::decode_rows(const TensorView& table, const ForwardBatch& batch, float scale, float* out) const {
  const size_t row_bytes = table.row_bytes();
  const int64_t dim = table.shape.back();
  pool_.parallel_for(batch.n_rows(), [&](int64_t row, int) {
    const int32_t token = batch.tokens[static_cast<size_t>(row)];
    DSPARK_DCHECK(token >= 0 && token < config_.vocab_size);
    float* row_out = out + row * dim;
    decode_row(table.dtype, table.data + static_cast<size_t>(token) * row_bytes, row_out, dim);
    if (scale == 1.0f) return;
    for (int64_t i = 0; i < dim; ++i) row_out[i] *= scale;
  });
}

// Gemma 4 (E2B, E4B): what every layer gets of the token itself, from a table of its own and from the
// embedding. per_layer_ holds (rows, n_layers, per_layer_dim).
void Decoder::make_per_layer_inputs(const ForwardBatch& batch) {
  if (config_.per_layer_dim == 0) return;
  const int64_t n_rows = batch.n_rows();
  const int64_t row_dim = static_cast<int64_t>(config_.n_layers) * config_.per_layer_dim;
  const float width_scale = 1.0f / std::sqrt(static_cast<float>(config_.dim));
  constexpr float kMean = std::numbers::sqrt2_v<float> / 2.0f;
  const MatmulJob job = {&weights_.per_layer_projection, per_layer_.data(), row_dim, nullptr};
  multiply(residual_.data(), config_.dim, n_rows, {&job, 1});
  pool_.parallel_for(
      n_rows, [&](int64_t row, int) { scale_row(per_layer_.data() + row * row_dim, row_dim, width_scale); });
  rms_norm_heads(pool_, per_layer_.data(), row_dim, weights_.per_layer_norm.data(), config_.norm_eps, n_rows,
                 config_.n_layers, config_.per_layer_dim);
  decode_rows(weights_.per_layer_embedding, batch, config_.per_layer_scale, per_layer_rows_.data());
  add_rows(pool_, per_layer_.data(), per_layer_rows_.data(), n_rows, row_dim);
  pool_.parallel_for(n_rows,
                     [&](int64_t row, int) { scale_row(per_layer_.data() + row * row_dim, row_dim, kMean); });
}

void Decoder::attend(const ForwardBatch& batch, KvPool& cache, int32_t layer_idx) {
  const LayerWeights& w = weights_.layers[static_cast<size_t>(layer_idx)];
  const LayerConfig& layer = config_.layer(layer_idx);
  const RopeTable& rope = config_.ropes[static_cast<size_t>(layer.rope_idx)];
  const int64_t n_rows = batch.n_rows();
  const int64_t q_dim = static_cast<int64_t>(config_.n_heads) * layer.head_dim;

  norm(branch_.data(), residual_.data(), w.attn_norm, n_rows);
  if (config_.mla.kv_rank > 0) return attend_latent(batch, cache, layer_idx);
  project_qkv(layer_idx, n_rows);
  if (config_.qk_norm) {
    rms_norm_heads(pool_, q_.data(), q_dim, w.q_norm.data(), config_.norm_eps, n_rows, config_.n_heads,
                   layer.head_dim);
  }
  apply_rope(pool_, q_.data(), q_dim, rope, batch.positions, config_.n_heads, layer.head_dim);
  if (!config_.shares_kv(layer_idx)) make_keys(batch, cache, layer_idx);

  AttentionArgs args;
  args.q = q_.data();
  args.q_stride = q_dim;
  args.out = attended_.data();
  args.out_stride = q_dim;
  args.n_heads = config_.n_heads;
  args.scale = config_.attention_scale;
  args.softcap = config_.attention_softcap;
  args.window = layer.window;
  attention(pool_, cache, cache_layers_[static_cast<size_t>(layer_idx)], batch.runs, args, scratch_);
}

void Decoder::attend_latent(const ForwardBatch& batch, KvPool& cache, int32_t layer_idx) {
  MlaArgs args;
  args.x = branch_.data();
  args.out = attended_.data();
  args.positions = batch.positions;
  args.runs = batch.runs;
  args.layer = cache_layers_[static_cast<size_t>(layer_idx)];
  mla_.run(pool_, config_, weights_.layers[static_cast<size_t>(layer_idx)].mla, cache, args);
}

// From the projections to the cache.
void Decoder::make_keys(const ForwardBatch& batch, KvPool& cache, int32_t layer_idx) {
  const LayerWeights& w = weights_.layers[static_cast<size_t>(layer_idx)];
  const LayerConfig& layer = config_.layer(layer_idx);
  const RopeTable& rope = config_.ropes[static_cast<size_t>(layer.rope_idx)];
  const int64_t n_rows = batch.n_rows();
  const int64_t kv_dim = static_cast<int64_t>(layer.n_kv_heads) * layer.head_dim;
  if (layer.k_eq_v) {  // the projection is shared; norm and rotation are not
    std::memcpy(v_.data(), k_.data(), static_cast<size_t>(n_rows * kv_dim) * sizeof(float));
  }
  if (config_.qk_norm) {
    rms_norm_heads(pool_, k_.data(), kv_dim, w.k_norm.data(), config_.norm_eps, n_rows, layer.n_kv_heads,
                   layer.head_dim);
  }
  if (config_.v_norm) {
    rms_norm_heads(pool_, v_.data(), kv_dim, nullptr, config_.norm_eps, n_rows, layer.n_kv_heads,
                   layer.head_dim);
  }
  apply_rope(pool_, k_.data(), kv_dim, rope, batch.positions, layer.n_kv_heads, layer.head_dim);
  kv_write(pool_, cache, cache_layers_[static_cast<size_t>(layer_idx)], batch.runs, k_.data(), v_.data(),
           kv_dim, kv_dim);
}

void Decoder::attention_output(int32_t layer_idx, int64_t n_rows) {
  const LayerWeights& w = weights_.layers[static_cast<size_t>(layer_idx)];
  const MatmulJob out = {&w.o, branch_.data(), config_.dim, bias_or_null(w.o_bias)};
  multiply(attended_.data(), w.o.n_in, n_rows, {&out, 1});
  add_branch(w.attn_post_norm, n_rows);
}

// The inner chunks of a prompt only fill the cache (and feed a drafter): the rest reaches nothing.
bool Decoder::is_done(const ForwardBatch& batch, int32_t layer_idx) const {
  if (layer_idx < last_kv_layer_ || !batch.logit_rows.empty()) return false;
  if (batch.capture_rows.empty()) return true;
  return std::ranges::none_of(capture_layers_, [&](int32_t stream) { return stream > layer_idx; });
}

// Behind the last attention a row that nobody asked for reaches nothing: a prompt needs logits of its last
// row only. Moves the asked rows to the front. returns: the number of rows left.
int64_t Decoder::drop_unasked_rows(const ForwardBatch& batch) {
  const bool captures_last =
      std::find(capture_layers_.begin(), capture_layers_.end(), config_.n_layers) != capture_layers_.end();
  if (captures_last && !batch.capture_rows.empty()) return batch.n_rows();
  gather_rows(attended_.data(), attended_.data(), batch.logit_rows, weights_.layers.back().o.n_in);
  gather_rows(residual_.data(), residual_.data(), batch.logit_rows, config_.dim);
  if (config_.per_layer_dim > 0) {
    gather_rows(per_layer_.data(), per_layer_.data(), batch.logit_rows,
                static_cast<int64_t>(config_.n_layers) * config_.per_layer_dim);
  }
  return static_cast<int64_t>(batch.logit_rows.size());
}

void Decoder::project_qkv(int32_t layer_idx, int64_t n_rows) {
  const LayerWeights& w = weights_.layers[static_cast<size_t>(layer_idx)];
  const MatmulJob jobs[] = {
      {&w.q, q_.data(), w.q.n_out, bias_or_null(w.q_bias)},
      {&w.k, k_.data(), w.k.n_out, bias_or_null(w.k_bias)},
      {&w.v, v_.data(), w.v.n_out, bias_or_null(w.v_bias)},
  };
  size_t n_jobs = 3;
  if (config_.layer(layer_idx).k_eq_v) n_jobs = 2;
  if (config_.shares_kv(layer_idx)) n_jobs = 1;
  multiply(branch_.data(), config_.dim, n_rows, std::span(jobs).first(n_jobs));
}

void Decoder::mlp_block(int32_t layer_idx, int64_t n_rows) {
  const LayerWeights& w = weights_.layers[static_cast<size_t>(layer_idx)];
  norm(branch_.data(), residual_.data(), w.ffn_norm, n_rows);
  if (!config_.layer(layer_idx).moe) {
    dense_mlp(layer_idx, n_rows);
  } else if (config_.moe.beside_mlp) {
    dense_mlp(layer_idx, n_rows);
    experts_beside_mlp(layer_idx, n_rows);
  } else {
    MoeArgs args;
    args.router_in = branch_.data();
    args.x = branch_.data();
    args.out = branch_.data();
    args.n_rows = n_rows;
    args.activation = config_.activation;
    moe_.run(pool_, config_.moe, w.moe, args);
  }
  add_branch(w.ffn_post_norm, n_rows);
}

// branch_ -> branch_.
void Decoder::dense_mlp(int32_t layer_idx, int64_t n_rows) {
  const LayerWeights& w = weights_.layers[static_cast<size_t>(layer_idx)];
  const int64_t ffn_dim = config_.layer(layer_idx).ffn_dim;
  const MatmulJob in[] = {
      {&w.gate, gate_.data(), ffn_dim, bias_or_null(w.gate_bias)},
      {&w.up, up_.data(), ffn_dim, bias_or_null(w.up_bias)},
  };
  multiply(branch_.data(), config_.dim, n_rows, in);
  gated_activation(pool_, gate_.data(), gate_.data(), up_.data(), n_rows, ffn_dim, config_.activation);
  const MatmulJob out = {&w.down, branch_.data(), config_.dim, bias_or_null(w.down_bias)};
  multiply(gate_.data(), ffn_dim, n_rows, {&out, 1});
}

// Gemma 4: router and experts read the residual stream, each through a norm of its own; the normed results of
// the MLP (in branch_) and of the experts add up.
void Decoder::experts_beside_mlp(int32_t layer_idx, int64_t n_rows) {
  const MoeWeights& w = weights_.layers[static_cast<size_t>(layer_idx)].moe;
  norm(branch_.data(), branch_.data(), w.dense_norm, n_rows);
  norm(router_in_.data(), residual_.data(), w.router_norm, n_rows);
  norm(expert_in_.data(), residual_.data(), w.in_norm, n_rows);
  MoeArgs args;
  args.router_in = router_in_.data();
  args.x = expert_in_.data();
  args.out = expert_out_.data();
  args.n_rows = n_rows;
  args.activation = config_.activation;
  moe_.run(pool_, config_.moe, w, args);
  norm(expert_out_.data(), expert_out_.data(), w.out_norm, n_rows);
  add_rows(pool_, branch_.data(), expert_out_.data(), n_rows, config_.dim);
}

void Decoder::add_per_layer_input(int32_t layer_idx, int64_t n_rows) {
  const int64_t dim = config_.per_layer_dim;
  if (dim == 0) return;
  const LayerWeights& w = weights_.layers[static_cast<size_t>(layer_idx)];
  const MatmulJob in = {&w.per_layer_gate, per_layer_gate_.data(), dim, nullptr};
  multiply(residual_.data(), config_.dim, n_rows, {&in, 1});
  pool_.parallel_for(n_rows, [&](int64_t row, int) {
    float* gate = per_layer_gate_.data() + row * dim;
    const float* input = per_layer_.data() + (row * config_.n_layers + layer_idx) * dim;
    gated_activation_row(gate, gate, input, dim, config_.activation);
  });
  const MatmulJob out = {&w.per_layer_out, branch_.data(), config_.dim, nullptr};
  multiply(per_layer_gate_.data(), dim, n_rows, {&out, 1});
  add_branch(w.per_layer_post_norm, n_rows);
}

// Gemma 4: one number per layer multiplies the whole residual stream.
void Decoder::scale_stream(const std::vector<float>& scalar, int64_t n_rows) {
  if (scalar.empty() || scalar.front() == 1.0f) return;
  pool_.parallel_for(n_rows, [&](int64_t row, int) {
    scale_row(residual_.data() + row * config_.dim, config_.dim, scalar.front());
  });
}

// Sandwich models norm a branch before it joins the residual stream.
void Decoder::add_branch(const std::vector<float>& post_norm, int64_t n_rows) {
  if (!post_norm.empty()) norm(branch_.data(), branch_.data(), post_norm, n_rows);
  add_rows(pool_, residual_.data(), branch_.data(), n_rows, config_.dim);
}

void Decoder::capture(const ForwardBatch& batch, int32_t stream) {
  const auto n_rows = static_cast<int64_t>(batch.capture_rows.size());
  for (size_t i = 0; i < capture_layers_.size(); ++i) {
    if (capture_layers_[i] != stream) continue;
    float* out = captured_.data() + static_cast<int64_t>(i) * n_rows * config_.dim;
    gather_rows(out, residual_.data(), batch.capture_rows, config_.dim);
  }
}

void Decoder::head(const ForwardBatch& batch, int64_t n_live_rows) {
  const auto n_rows = static_cast<int64_t>(batch.logit_rows.size());
  if (n_rows == 0) return;
  if (n_live_rows == n_rows) {  // the asked rows stand in front already, in order
    std::memcpy(final_norm_.data(), residual_.data(),
                static_cast<size_t>(n_rows * config_.dim) * sizeof(float));
  } else {
    gather_rows(final_norm_.data(), residual_.data(), batch.logit_rows, config_.dim);
  }
  norm(final_norm_.data(), final_norm_.data(), weights_.final_norm, n_rows);
  const MatmulJob job = {&weights_.head, logits_.data(), config_.vocab_size, nullptr};
  multiply(final_norm_.data(), config_.dim, n_rows, {&job, 1});
  if (config_.final_softcap > 0.0f) {
    softcap_rows(pool_, logits_.data(), n_rows, config_.vocab_size, config_.final_softcap);
  }
}

void Decoder::norm(float* y, const float* x, const std::vector<float>& weight, int64_t n_rows) {
  rms_norm(pool_, y, config_.dim, x, config_.dim, weight.data(), config_.norm_eps, n_rows, config_.dim);
}

// All jobs share one set of activation blocks, made only if some weight needs them.
void Decoder::multiply(const float* x, int64_t n_in, int64_t n_rows, std::span<const MatmulJob> jobs) {
  bool quantize = false;
  for (const MatmulJob& job : jobs) quantize = quantize || uses_int8_activations(job.w->kind);
  activations_.assign(pool_, x, n_rows, n_in, n_in, quantize);
  matmul(pool_, jobs, activations_);
}

}  // namespace dspark
