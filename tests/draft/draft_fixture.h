#pragma once
// What the tests of drafter formats share.

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "draft/draft_checkpoint.h"
#include "formats/gguf_writer.h"
#include "tensor/quantize.h"

namespace dspark::test {

/// One tensor of a file that a test makes.
struct StoredTensor {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::vector<uint8_t> bytes;
};

/// The tensors of a checkpoint in memory, to be changed and written again.
inline std::vector<StoredTensor> load_tensors(const Checkpoint& file) {
  std::vector<StoredTensor> tensors;
  for (const TensorView& t : file.tensors())
    tensors.push_back({t.name, t.dtype, t.shape, {t.data, t.data + t.n_bytes}});
  return tensors;
}

/// A safetensors file without the care (and the time) of SafetensorsWriter.
inline void write_safetensors(const std::filesystem::path& path, const std::vector<StoredTensor>& tensors) {
  nlohmann::json header = nlohmann::json::object();
  size_t offset = 0;
  for (const StoredTensor& t : tensors) {
    header[t.name] = {{"dtype", t.dtype == DType::kBool ? "BOOL" : dtype_name(t.dtype)},
                      {"shape", t.shape},
                      {"data_offsets", {offset, offset + t.bytes.size()}}};
    offset += t.bytes.size();
  }
  const std::string text = header.dump();
  const uint64_t n = text.size();
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(&n), sizeof(n)) << text;
  for (const StoredTensor& t : tensors) {
    out.write(reinterpret_cast<const char*>(t.bytes.data()), static_cast<std::streamsize>(t.bytes.size()));
  }
}

/// `change` may set and remove keys after those of `source` were copied.
inline void write_gguf(const std::string& path, const Checkpoint& source,
                       const std::vector<StoredTensor>& tensors,
                       const std::function<void(GgufWriter&)>& change) {
  auto writer = GgufWriter::create(path);
  ASSERT_TRUE(writer.ok());
  writer->copy_all(source);
  if (change) change(*writer);
  for (const StoredTensor& t : tensors) ASSERT_TRUE(writer->declare(t.name, t.dtype, t.shape).ok());
  ASSERT_TRUE(writer->write_header().ok());
  for (const StoredTensor& t : tensors) ASSERT_TRUE(writer->append(t.name, t.bytes).ok());
  ASSERT_TRUE(writer->finish().ok());
}

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
  EXPECT_EQ(a.short_block, b.short_block);
  EXPECT_EQ(a.anchor_predicts, b.anchor_predicts);
  EXPECT_EQ(a.mask_token_id, b.mask_token_id);
  EXPECT_EQ(a.taps, b.taps);
  EXPECT_EQ(a.head, b.head);
  EXPECT_EQ(a.markov_rank, b.markov_rank);
  EXPECT_EQ(a.confidence, b.confidence);
  EXPECT_EQ(a.confidence_with_markov, b.confidence_with_markov);
}

}  // namespace dspark::test
