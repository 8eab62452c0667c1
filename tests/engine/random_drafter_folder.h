#pragma once
// Writes a drafter with random weights for any target, as a DeepSpec folder.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "draft/draft_tensors.h"
#include "draft/draft_writer.h"
#include "models/config.h"

namespace dspark::test {

inline constexpr int32_t kMostRandomDraftIds = 8192;

/// `n` layers to tap, spread over a target of n_layers > n; the output of the last one cannot be tapped.
inline std::vector<int32_t> spread_taps(int32_t n_layers, int32_t n) {
  std::vector<int32_t> taps;
  for (int32_t i = 0; i < n; ++i) taps.push_back(1 + i * (n_layers - 2) / (n - 1));
  return taps;
}

/// One layer of the Qwen3 class with a vanilla head and a confidence head; embedding and head are the
/// target's own. Of a large vocabulary it drafts every n-th token only, so that it costs little.
inline DraftConfig random_drafter_config(const ModelConfig& target, int32_t block_size) {
  DraftConfig c;
  c.n_layers = 1;
  c.dim = target.dim;
  c.n_heads = 4;
  c.n_kv_heads = 2;
  c.head_dim = 32;
  c.ffn_dim = 128;
  c.attention_scale = 1.0f / std::sqrt(32.0f);
  c.context_length = 4096;
  c.vocab_size = target.vocab_size;
  c.draft_vocab_size = std::min(target.vocab_size, kMostRandomDraftIds);
  for (int32_t i = 0; c.reduced_vocab() && i < c.draft_vocab_size; ++i) {
    c.d2t.push_back(static_cast<int32_t>(int64_t{i} * c.vocab_size / c.draft_vocab_size));
  }
  c.block_size = block_size;
  c.mask_token_id = 0;
  c.taps = spread_taps(target.n_layers, 2);
  c.target_layers = target.n_layers;
  c.head = SequentialHead::kVanilla;
  c.markov_rank = 16;
  c.confidence = c.confidence_with_markov = true;
  for (int32_t i = 0; i < c.head_dim / 2; ++i) {
    c.rope.inv_freq.push_back(
        std::pow(10000.0f, -2.0f * static_cast<float>(i) / static_cast<float>(c.head_dim)));
  }
  return c;
}

/// Such a drafter of another kind.
enum class RandomDrafterKind { kVanilla, kGated, kRnn, kDFlash, kGemma, kEagle3, kMtp };
inline constexpr RandomDrafterKind kRandomDrafterKinds[] = {
    RandomDrafterKind::kVanilla, RandomDrafterKind::kGated, RandomDrafterKind::kRnn,
    RandomDrafterKind::kDFlash,  RandomDrafterKind::kGemma, RandomDrafterKind::kEagle3,
    RandomDrafterKind::kMtp};

inline const char* random_drafter_name(RandomDrafterKind kind) {
  constexpr const char* kNames[] = {"vanilla", "gated", "rnn", "dflash", "gemma", "eagle3", "mtp"};
  return kNames[static_cast<size_t>(kind)];
}

inline DraftConfig random_drafter_config(const ModelConfig& target, int32_t block_size,
                                         RandomDrafterKind kind) {
  DraftConfig c = random_drafter_config(target, block_size);
  const bool has_heads = kind != RandomDrafterKind::kDFlash && kind != RandomDrafterKind::kEagle3 &&
                         kind != RandomDrafterKind::kMtp;
  if (kind == RandomDrafterKind::kGated) c.head = SequentialHead::kGated;
  if (kind == RandomDrafterKind::kRnn) c.head = SequentialHead::kRnn;
  if (!has_heads) {
    c.head = SequentialHead::kNone;
    c.markov_rank = 0;
    c.confidence = c.confidence_with_markov = false;
  }
  if (kind == RandomDrafterKind::kDFlash) c.kind = DraftKind::kDFlash;
  if (kind == RandomDrafterKind::kGemma) {
    c.backbone = DraftBackbone::kGemma4;
    c.sandwich_norms = true;
    c.activation = GateActivation::kGeluTanh;
    c.attention_scale = 1.0f;
    c.embedding_scale = 8.0f;
    c.final_softcap = 12.0f;
  }
  if (kind == RandomDrafterKind::kEagle3) {
    c.kind = DraftKind::kEagle3;
    c.taps = spread_taps(target.n_layers, 5);
  }
  if (kind == RandomDrafterKind::kMtp) {
    c.kind = DraftKind::kMtp;
    c.block_size = 1;
    c.taps = {target.n_layers};
  }
  return c;
}

/// The same bytes for the same target, block size, seed and kind.
inline void write_random_drafter(const std::string& folder, const ModelConfig& target, int32_t block_size,
                                 uint32_t seed, RandomDrafterKind kind = RandomDrafterKind::kVanilla) {
  const DraftConfig config = random_drafter_config(target, block_size, kind);
  std::mt19937 rng(seed);
  std::vector<std::vector<float>> values;
  std::vector<NamedFloats> tensors;
  const std::vector<DraftTensor> wanted = draft_tensors(config);
  values.reserve(wanted.size());
  for (const DraftTensor& tensor : wanted) {
    if (!tensor.required) continue;
    size_t n = 1;
    for (int64_t size : tensor.shape) n *= static_cast<size_t>(size);
    const bool is_norm = tensor.name.find("norm") != std::string::npos;
    std::normal_distribution<float> normal(is_norm ? 1.0f : 0.0f, is_norm ? 0.1f : 0.05f);
    values.emplace_back(n);
    for (float& value : values.back()) value = normal(rng);
    tensors.push_back({tensor.name, tensor.shape, values.back()});
  }
  const Status written = write_deepspec_draft(folder, config, tensors, DType::kBF16);
  EXPECT_TRUE(written.ok()) << written.to_string();
}

}  // namespace dspark::test
