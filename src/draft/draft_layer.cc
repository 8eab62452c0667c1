#include "draft/draft_layer.h"

#include <cstring>

#include "kernels/row_math.h"
#include "kernels/rows.h"

namespace dspark {
namespace {

constexpr int kLayer = 0;  // causal drafters have one

const float* bias_or_null(const std::vector<float>& bias) {
  return bias.empty() ? nullptr : bias.data();
}

}  // namespace

bool DraftLayerPass::grow(int64_t n_rows) {
  return q_.grow(n_rows * q_dim()) && k_.grow(n_rows * kv_dim()) && v_.grow(n_rows * kv_dim()) &&
         attended_.grow(n_rows * q_dim()) && grow_finish(n_rows);
}

bool DraftLayerPass::reserve_attention(int64_t n_rows, int64_t context_length) {
  const KvLayerShape shape{config_.n_kv_heads, config_.head_dim};
  return scratch_.reserve(pool_.n_threads(), {n_rows, config_.n_heads, shape, context_length});
}

bool DraftLayerPass::grow_finish(int64_t n_rows) {
  return branch_.grow(n_rows * config_.dim) && gate_.grow(n_rows * config_.ffn_dim) &&
         up_.grow(n_rows * config_.ffn_dim);
}

void DraftLayerPass::norm_keys(const DraftLayerWeights& w, float* k, float* v, int64_t n_rows) {
  const int32_t n_heads = config_.n_kv_heads, head_dim = config_.head_dim;
  // The projection is shared; norm and rotation are not.
  if (config_.k_eq_v) std::memcpy(v, k, static_cast<size_t>(n_rows * kv_dim()) * sizeof(float));
  if (config_.backbone == DraftBackbone::kGemma4) {
    rms_norm_heads(pool_, v, kv_dim(), nullptr, config_.norm_eps, n_rows, n_heads, head_dim);
  }
  if (!config_.qk_norm) return;
  rms_norm_heads(pool_, k, kv_dim(), w.k_norm.data(), config_.norm_eps, n_rows, n_heads, head_dim);
}

void DraftLayerPass::write_keys(const DraftLayerWeights& w, KvPool& cache, std::span<const KvRun> runs,
                                std::span<const int32_t> positions, const float* x) {
  const auto n_rows = static_cast<int64_t>(positions.size());
  const MatmulJob jobs[] = {{&w.k, k_.data(), kv_dim(), bias_or_null(w.k_bias)},
                            {&w.v, v_.data(), kv_dim(), bias_or_null(w.v_bias)}};
  multiply(x, w.k.n_in, n_rows, std::span(jobs).first(config_.k_eq_v ? 1 : 2));
  norm_keys(w, k_.data(), v_.data(), n_rows);
  apply_rope(pool_, k_.data(), kv_dim(), config_.rope, positions, config_.n_kv_heads, config_.head_dim);
  kv_write(pool_, cache, kLayer, runs, k_.data(), v_.data(), kv_dim(), kv_dim());
}

void DraftLayerPass::add_layer(const DraftLayerWeights& w, const KvPool& cache, std::span<const KvRun> runs,
                               std::span<const int32_t> positions, const float* x, float* residual) {
  const auto n_rows = static_cast<int64_t>(positions.size());
  const MatmulJob query = {&w.q, q_.data(), q_dim(), bias_or_null(w.q_bias)};
  multiply(x, w.q.n_in, n_rows, {&query, 1});
  if (config_.qk_norm) {
    rms_norm_heads(pool_, q_.data(), q_dim(), w.q_norm.data(), config_.norm_eps, n_rows, config_.n_heads,
                   config_.head_dim);
  }
  apply_rope(pool_, q_.data(), q_dim(), config_.rope, positions, config_.n_heads, config_.head_dim);
  AttentionArgs args;
  args.q = q_.data();
  args.q_stride = q_dim();
  args.out = attended_.data();
  args.out_stride = q_dim();
  args.n_heads = config_.n_heads;
  args.scale = config_.attention_scale;
  args.window = config_.window;
  attention(pool_, cache, kLayer, runs, args, scratch_);
  finish(w, attended_.data(), residual, n_rows);
}

void DraftLayerPass::finish(const DraftLayerWeights& w, const float* attended, float* residual,
                            int64_t n_rows) {
  const MatmulJob out = {&w.o, branch_.data(), config_.dim, bias_or_null(w.o_bias)};
  multiply(attended, q_dim(), n_rows, {&out, 1});
  add_branch(w.attn_post_norm, residual, n_rows);
  norm(branch_.data(), config_.dim, residual, w.ffn_norm, n_rows);
  const MatmulJob in[] = {{&w.gate, gate_.data(), config_.ffn_dim, nullptr},
                          {&w.up, up_.data(), config_.ffn_dim, nullptr}};
  multiply(branch_.data(), config_.dim, n_rows, in);
  gated_activation(pool_, gate_.data(), gate_.data(), up_.data(), n_rows, config_.ffn_dim,
                   config_.activation);
  const MatmulJob down = {&w.down, branch_.data(), config_.dim, nullptr};
  multiply(gate_.data(), config_.ffn_dim, n_rows, {&down, 1});
  add_branch(w.ffn_post_norm, residual, n_rows);
  if (w.layer_scalar != 1.0f) scale_row(residual, n_rows * config_.dim, w.layer_scalar);
}

void DraftLayerPass::add_branch(const std::vector<float>& post_norm, float* residual, int64_t n_rows) {
  if (!post_norm.empty()) norm(branch_.data(), config_.dim, branch_.data(), post_norm, n_rows);
  add_rows(pool_, residual, branch_.data(), n_rows, config_.dim);
}

void DraftLayerPass::norm(float* y, int64_t y_stride, const float* x, const std::vector<float>& weight,
                          int64_t n_rows) {
  rms_norm(pool_, y, y_stride, x, config_.dim, weight.data(), config_.norm_eps, n_rows, config_.dim);
}

void DraftLayerPass::multiply(const float* x, int64_t n_rows, const PackedMatrix& w, float* y) {
  const MatmulJob job = {&w, y, w.n_out, nullptr};
  multiply(x, w.n_in, n_rows, {&job, 1});
}

/// All jobs share one set of activation blocks, made only if some weight needs them.
void DraftLayerPass::multiply(const float* x, int64_t n_in, int64_t n_rows, std::span<const MatmulJob> jobs) {
  bool quantize = false;
  for (const MatmulJob& job : jobs) quantize = quantize || uses_int8_activations(job.w->kind);
  activations_.assign(pool_, x, n_rows, n_in, n_in, quantize);
  matmul(pool_, jobs, activations_);
}

}  // namespace dspark
