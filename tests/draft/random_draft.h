#pragma once
// Drafters with random weights: any configuration, any size, without a file. For tests and benchmarks.

#include <cmath>
#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "base/thread_pool.h"
#include "draft/draft_tensors.h"
#include "draft/draft_weights.h"
#include "tensor/quantize.h"

namespace dspark::test {

/// A small DSpark configuration of the Qwen3 class with a vanilla head and a confidence head.
inline DraftConfig small_draft_config() {
  DraftConfig c;
  c.n_layers = 2;
  c.dim = 64;
  c.n_heads = 4;
  c.n_kv_heads = 2;
  c.head_dim = 32;
  c.ffn_dim = 96;
  c.attention_scale = 0.17677669f;
  c.vocab_size = c.draft_vocab_size = 600;
  c.block_size = 5;
  c.mask_token_id = 599;
  c.taps = {1, 3, 4};
  c.target_layers = 6;
  c.head = SequentialHead::kVanilla;
  c.markov_rank = 32;
  c.confidence = c.confidence_with_markov = true;
  for (int32_t i = 0; i < c.head_dim / 2; ++i) {
    c.rope.inv_freq.push_back(
        std::pow(10000.0f, -2.0f * static_cast<float>(i) / static_cast<float>(c.head_dim)));
  }
  return c;
}

/// Keeps every second id of the target: a reduced vocabulary.
inline void reduce_vocabulary(DraftConfig& c, int32_t n) {
  c.draft_vocab_size = n;
  c.d2t.clear();
  for (int32_t i = 0; i < n; ++i) {
    c.d2t.push_back(static_cast<int32_t>(int64_t{i} * c.vocab_size / n));
  }
}

/// Owns the bytes of a random drafter and of the embedding and head of its target. Both must outlive what is
/// made of them; moving keeps the bytes.
class RandomDraft {
 public:
  /// `dtype`: of all matrices. `own_head`: lm_head.weight is in the drafter (a reduced vocabulary may have
  /// one of its own, a full one never does here).
  RandomDraft(DraftConfig config, DType dtype, uint32_t seed, bool own_head = false) : rng_(seed) {
    draft_.config = std::move(config);
    const DraftConfig& c = draft_.config;
    for (const DraftTensor& tensor : draft_tensors(c)) {
      if (!tensor.required && !(own_head && tensor.role == DraftTensorRole::kHead)) continue;
      const bool is_matrix = tensor.shape.size() == 2 && tensor.role != DraftTensorRole::kConfidence;
      const bool is_norm = tensor.name.find("norm") != std::string::npos || tensor.name.ends_with("scalar");
      draft_.tensors.emplace(tensor.name, random(tensor.name, tensor.shape, is_matrix ? dtype : DType::kF32,
                                                 is_norm ? 1.0f : 0.0f));
    }
    embedding_ = random("embed", {c.vocab_size, c.dim}, dtype, 0.0f);
    head_tensor_ = random("head", {c.vocab_size, c.dim}, dtype, 0.0f);
  }

  const DraftConfig& config() const { return draft_.config; }
  /// Shares the bytes.
  DraftCheckpoint checkpoint() const { return draft_; }
  /// Packs the target's head on first use.
  DraftTarget target(ThreadPool& pool, bool float_activations) {
    if (head_.n_out == 0) head_ = pack_matrix(pool, head_tensor_, float_activations).value();
    DraftTarget target;
    target.shared.embedding = embedding_;
    target.shared.head_tensor = head_tensor_;
    target.shared.head = &head_;
    target.dim = draft_.config.dim;
    target.vocab_size = draft_.config.vocab_size;
    target.n_layers = draft_.config.target_layers;
    return target;
  }

 private:
  TensorView random(const std::string& name, const std::vector<int64_t>& shape, DType dtype, float centre) {
    TensorView view{name, dtype, shape, nullptr, 0};
    const int64_t n = view.row_elements();
    const float spread = centre != 0.0f     ? 0.1f
                         : shape.size() < 2 ? 0.3f
                                            : 1.5f / std::sqrt(static_cast<float>(n));
    std::normal_distribution<float> normal(centre, spread);
    bytes_.push_back(
        std::make_shared<std::vector<uint8_t>>(view.row_bytes() * static_cast<size_t>(view.n_rows())));
    std::vector<float> row(static_cast<size_t>(n));
    for (int64_t r = 0; r < view.n_rows(); ++r) {
      for (float& v : row) v = normal(rng_);
      encode_row(dtype, row.data(), bytes_.back()->data() + static_cast<size_t>(r) * view.row_bytes(), n);
    }
    view.data = bytes_.back()->data();
    view.n_bytes = bytes_.back()->size();
    return view;
  }

  std::mt19937 rng_;
  std::vector<std::shared_ptr<std::vector<uint8_t>>> bytes_;
  DraftCheckpoint draft_;
  TensorView embedding_;
  TensorView head_tensor_;
  PackedMatrix head_;
};

/// Random residual streams, (taps, rows, dim).
inline std::vector<float> random_features(const DraftConfig& c, int32_t n_rows, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  std::vector<float> features(c.taps.size() * static_cast<size_t>(n_rows) * static_cast<size_t>(c.dim));
  for (float& v : features) v = normal(rng);
  return features;
}

}  // namespace dspark::test
