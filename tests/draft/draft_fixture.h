#pragma once
// What the tests of drafter formats share.

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "draft/draft_checkpoint.h"
#include "tensor/quantize.h"

namespace dspark::test {

/// A tensor as floats; empty when absent.
inline std::vector<float> floats(const DraftCheckpoint& draft, const std::string& name) {
  const TensorView* tensor = draft.find(name);
  if (tensor == nullptr) return {};
  std::vector<float> values(static_cast<size_t>(tensor->n_elements()));
  decode_row(tensor->dtype, tensor->data, values.data(), tensor->n_elements());
  return values;
}

/// Equal in everything that says how to compute; source and bookkeeping aside.
inline void expect_same_drafter(const DraftConfig& a, const DraftConfig& b) {
  EXPECT_EQ(a.kind, b.kind);
  EXPECT_EQ(a.backbone, b.backbone);
  EXPECT_EQ(a.n_layers, b.n_layers);
  EXPECT_EQ(a.dim, b.dim);
  EXPECT_EQ(a.n_heads, b.n_heads);
  EXPECT_EQ(a.n_kv_heads, b.n_kv_heads);
  EXPECT_EQ(a.head_dim, b.head_dim);
  EXPECT_EQ(a.ffn_dim, b.ffn_dim);
  EXPECT_EQ(a.norm_eps, b.norm_eps);
  EXPECT_EQ(a.qk_norm, b.qk_norm);
  EXPECT_EQ(a.k_eq_v, b.k_eq_v);
  EXPECT_EQ(a.sandwich_norms, b.sandwich_norms);
  EXPECT_EQ(a.attention_bias, b.attention_bias);
  EXPECT_EQ(a.causal, b.causal);
  EXPECT_EQ(a.window, b.window);
  EXPECT_EQ(a.activation, b.activation);
  EXPECT_EQ(a.attention_scale, b.attention_scale);
  EXPECT_EQ(a.embedding_scale, b.embedding_scale);
  EXPECT_EQ(a.final_softcap, b.final_softcap);
  EXPECT_EQ(a.rope.inv_freq, b.rope.inv_freq);
  EXPECT_EQ(a.rope.attention_factor, b.rope.attention_factor);
  EXPECT_EQ(a.rope_theta, b.rope_theta);
  EXPECT_EQ(a.context_length, b.context_length);
  EXPECT_EQ(a.vocab_size, b.vocab_size);
  EXPECT_EQ(a.draft_vocab_size, b.draft_vocab_size);
  EXPECT_EQ(a.d2t, b.d2t);
  EXPECT_EQ(a.block_size, b.block_size);
  EXPECT_EQ(a.anchor_predicts, b.anchor_predicts);
  EXPECT_EQ(a.mask_token_id, b.mask_token_id);
  EXPECT_EQ(a.taps, b.taps);
  EXPECT_EQ(a.head, b.head);
  EXPECT_EQ(a.markov_rank, b.markov_rank);
  EXPECT_EQ(a.confidence, b.confidence);
  EXPECT_EQ(a.confidence_with_markov, b.confidence_with_markov);
}

}  // namespace dspark::test
