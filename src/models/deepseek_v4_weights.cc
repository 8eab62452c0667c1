#include "models/deepseek_v4_weights.h"

#include <fmt/format.h>

#include <utility>

#include "models/moe_weights.h"

namespace dspark {
namespace {

/// Full names of one block's tensors.
struct Names {
  std::string attn_norm, ffn_norm, attn_hc, ffn_hc;
  std::string q_a, q_norm, q_b, kv, kv_norm, o_a, o_b, sinks;
  std::string index_q, index_weights;
};

Names names_of(bool gguf, const std::string& p) {
  if (gguf) {
    return {p + "attn_norm.weight",
            p + "ffn_norm.weight",
            p + "hc_attn",
            p + "hc_ffn",
            p + "attn_q_a.weight",
            p + "attn_q_a_norm.weight",
            p + "attn_q_b.weight",
            p + "attn_kv.weight",
            p + "attn_kv_a_norm.weight",
            p + "attn_output_a.weight",
            p + "attn_output_b.weight",
            p + "attn_sinks.weight",
            p + "indexer.attn_q_b.weight",
            p + "indexer.proj.weight"};
  }
  return {p + "attn_norm.weight",
          p + "ffn_norm.weight",
          p + "hc_attn",
          p + "hc_ffn",
          p + "attn.wq_a.weight",
          p + "attn.q_norm.weight",
          p + "attn.wq_b.weight",
          p + "attn.wkv.weight",
          p + "attn.kv_norm.weight",
          p + "attn.wo_a.weight",
          p + "attn.wo_b.weight",
          p + "attn.attn_sink",
          p + "attn.indexer.wq_b.weight",
          p + "attn.indexer.weights_proj.weight"};
}

struct CompressorNames {
  std::string wkv, wgate, ape, norm;
};

CompressorNames compressor_names(bool gguf, const std::string& p, bool of_indexer) {
  if (gguf) {
    const std::string stem = p + (of_indexer ? "indexer_compressor_" : "attn_compressor_");
    return {stem + "kv.weight", stem + "gate.weight", stem + "ape.weight", stem + "norm.weight"};
  }
  const std::string stem = p + (of_indexer ? "attn.indexer.compressor." : "attn.compressor.");
  return {stem + "wkv.weight", stem + "wgate.weight", stem + "ape", stem + "norm.weight"};
}

int32_t rate_of(const ModelConfig& config, V4BlockKind kind) {
  return kind.attention == V4Attention::kSparse ? config.v4.sparse_rate : config.v4.heavy_rate;
}

void expect_compressor(TensorFinder& finder, const CompressorNames& names, int64_t rate, int64_t wide,
                       int64_t width, int64_t dim) {
  finder.expect(names.wkv, {wide, dim});
  finder.expect(names.wgate, {wide, dim});
  finder.expect(names.ape, {rate, wide});
  finder.expect(names.norm, {width});
}

Status load_compressor(WeightReader& reader, const CompressorNames& names, V4Compressor& out) {
  DSPARK_ASSIGN_OR_RETURN(out.wkv, reader.matrix(names.wkv));
  DSPARK_ASSIGN_OR_RETURN(out.wgate, reader.matrix(names.wgate));
  out.ape = reader.floats(names.ape);
  out.norm = reader.floats(names.norm);
  return ok_status();
}

/// The mixture of this kind of block; a hash-routed one chooses without a bias.
MoeConfig moe_of(const ModelConfig& config, V4BlockKind kind) {
  MoeConfig moe = config.moe;
  if (kind.hash_routed) moe.choice_bias = false;
  return moe;
}

MoeNames expert_names(const ModelConfig& config, V4BlockKind kind, bool gguf, const std::string& prefix) {
  MoeNames names = moe_names(config.arch, moe_of(config, kind), gguf, prefix);
  if (kind.hash_routed) {
    names.token_experts = prefix + (gguf ? "ffn_gate_tid2eid.weight" : "ffn.gate.tid2eid");
  }
  return names;
}

}  // namespace

void expect_hyper(TensorFinder& finder, const ModelConfig& config, bool gguf, const std::string& prefix,
                  int64_t n_fn, int64_t n_scale) {
  const std::string end = gguf ? ".weight" : "";
  finder.expect(prefix + "_fn" + end, {n_fn, int64_t{config.v4.n_streams} * config.dim});
  finder.expect(prefix + "_base" + end, {n_fn});
  finder.expect(prefix + "_scale" + end, {n_scale});
}

Status load_hyper(WeightReader& reader, bool gguf, const std::string& prefix, HyperWeights& weights) {
  const std::string end = gguf ? ".weight" : "";
  DSPARK_ASSIGN_OR_RETURN(weights.fn, reader.matrix(prefix + "_fn" + end));
  weights.base = reader.floats(prefix + "_base" + end);
  weights.scale = reader.floats(prefix + "_scale" + end);
  return ok_status();
}

void expect_v4_block(TensorFinder& finder, const ModelConfig& config, V4BlockKind kind, bool gguf,
                     const std::string& prefix) {
  const Names names = names_of(gguf, prefix);
  const V4Config& v4 = config.v4;
  const int64_t dim = config.dim, c = config.head_dim, heads = config.n_heads;
  const int64_t n_mix = int64_t{2 + v4.n_streams} * v4.n_streams;
  finder.expect(names.attn_norm, {dim});
  finder.expect(names.ffn_norm, {dim});
  expect_hyper(finder, config, gguf, names.attn_hc, n_mix, 3);
  expect_hyper(finder, config, gguf, names.ffn_hc, n_mix, 3);
  finder.expect(names.q_a, {v4.q_rank, dim});
  finder.expect(names.q_norm, {v4.q_rank});
  finder.expect(names.q_b, {heads * c, v4.q_rank});
  finder.expect(names.kv, {c, dim});
  finder.expect(names.kv_norm, {c});
  finder.expect(names.o_a, {int64_t{v4.o_groups} * v4.o_rank, heads * c / v4.o_groups});
  finder.expect(names.o_b, {dim, int64_t{v4.o_groups} * v4.o_rank});
  finder.expect(names.sinks, {heads});
  if (kind.attention != V4Attention::kSliding) {
    const int64_t wide = kind.attention == V4Attention::kSparse ? 2 * c : c;
    expect_compressor(finder, compressor_names(gguf, prefix, false), rate_of(config, kind), wide, c, dim);
  }
  if (kind.attention == V4Attention::kSparse) {
    finder.expect(names.index_q, {int64_t{v4.index_heads} * v4.index_dim, v4.q_rank});
    finder.expect(names.index_weights, {v4.index_heads, dim});
    expect_compressor(finder, compressor_names(gguf, prefix, true), v4.sparse_rate, 2 * v4.index_dim,
                      v4.index_dim, dim);
  }
  expect_moe(finder, expert_names(config, kind, gguf, prefix), moe_of(config, kind), dim, config.vocab_size);
  if (kind.hash_routed) finder.allow(prefix + "ffn.gate.bias");  // some files keep one, unused
}

Status load_v4_block(WeightReader& reader, const ModelConfig& config, V4BlockKind kind, bool gguf,
                     const std::string& prefix, V4LayerWeights& weights) {
  const Names names = names_of(gguf, prefix);
  const V4Config& v4 = config.v4;
  weights.attn_norm = reader.floats(names.attn_norm);
  weights.ffn_norm = reader.floats(names.ffn_norm);
  DSPARK_RETURN_IF_ERROR(load_hyper(reader, gguf, names.attn_hc, weights.attn_hc));
  DSPARK_RETURN_IF_ERROR(load_hyper(reader, gguf, names.ffn_hc, weights.ffn_hc));
  DSPARK_ASSIGN_OR_RETURN(weights.q_a, reader.matrix(names.q_a));
  weights.q_norm = reader.floats(names.q_norm);
  DSPARK_ASSIGN_OR_RETURN(weights.q_b, reader.matrix(names.q_b));
  DSPARK_ASSIGN_OR_RETURN(weights.kv, reader.matrix(names.kv));
  weights.kv_norm = reader.floats(names.kv_norm);
  for (int32_t g = 0; g < v4.o_groups; ++g) {
    DSPARK_ASSIGN_OR_RETURN(weights.o_a.emplace_back(),
                            reader.matrix_rows(names.o_a, int64_t{g} * v4.o_rank, v4.o_rank));
  }
  DSPARK_ASSIGN_OR_RETURN(weights.o_b, reader.matrix(names.o_b));
  weights.sinks = reader.floats(names.sinks);
  if (kind.attention != V4Attention::kSliding) {
    DSPARK_RETURN_IF_ERROR(
        load_compressor(reader, compressor_names(gguf, prefix, false), weights.compressor));
  }
  if (kind.attention == V4Attention::kSparse) {
    DSPARK_ASSIGN_OR_RETURN(weights.indexer.wq_b, reader.matrix(names.index_q));
    DSPARK_ASSIGN_OR_RETURN(weights.indexer.weights, reader.matrix(names.index_weights));
    DSPARK_RETURN_IF_ERROR(
        load_compressor(reader, compressor_names(gguf, prefix, true), weights.indexer.compressor));
  }
  return load_moe(reader, expert_names(config, kind, gguf, prefix), moe_of(config, kind), config.dim,
                  weights.moe);
}

namespace {

/// Names outside of the blocks.
struct TopNames {
  explicit TopNames(bool gguf)
      : embedding(gguf ? "token_embd.weight" : "embed.weight"),
        final_norm(gguf ? "output_norm.weight" : "norm.weight"),
        head(gguf ? "output.weight" : "head.weight"),
        head_hc(gguf ? "output_hc" : "hc_head"),
        block(gguf ? "blk" : "layers") {}
  std::string prefix(int32_t layer_idx) const { return fmt::format("{}.{}.", block, layer_idx); }
  std::string embedding, final_norm, head, head_hc, block;
};

V4BlockKind kind_of(const ModelConfig& config, int32_t layer_idx) {
  const auto at = static_cast<size_t>(layer_idx);
  return {config.v4.attention[at], config.v4.hash_routed[at]};
}

}  // namespace

void expect_v4_weights(TensorFinder& finder, const ModelConfig& config, bool gguf) {
  const TopNames names(gguf);
  finder.expect(names.embedding, {config.vocab_size, config.dim});
  finder.expect(names.final_norm, {config.dim});
  finder.expect(names.head, {config.vocab_size, config.dim});
  expect_hyper(finder, config, gguf, names.head_hc, config.v4.n_streams, 1);
  for (int32_t i = 0; i < config.n_layers; ++i) {
    expect_v4_block(finder, config, kind_of(config, i), gguf, names.prefix(i));
  }
}

Result<V4Weights> load_v4_weights(const Checkpoint& checkpoint, const ModelConfig& config, ThreadPool& pool,
                                  bool float_activations) {
  const bool gguf = checkpoint.format() == Checkpoint::Format::kGguf;
  const TopNames names(gguf);
  TensorFinder finder(checkpoint);
  expect_v4_weights(finder, config, gguf);
  DSPARK_RETURN_IF_ERROR(
      finder.finish(config.arch, [](std::string_view name) { return name.starts_with("mtp."); }));

  V4Weights weights;
  WeightReader reader(checkpoint, pool, float_activations);
  weights.embedding = *checkpoint.find(names.embedding);
  weights.layers.resize(static_cast<size_t>(config.n_layers));
  for (int32_t i = 0; i < config.n_layers; ++i) {
    DSPARK_RETURN_IF_ERROR(load_v4_block(reader, config, kind_of(config, i), gguf, names.prefix(i),
                                         weights.layers[static_cast<size_t>(i)]));
  }
  DSPARK_RETURN_IF_ERROR(load_hyper(reader, gguf, names.head_hc, weights.head_hc));
  weights.final_norm = reader.floats(names.final_norm);
  weights.head_tensor = *checkpoint.find(names.head);
  DSPARK_ASSIGN_OR_RETURN(weights.head, reader.matrix(names.head));
  weights.packed_bytes = reader.packed_bytes();
  return weights;
}

}  // namespace dspark
