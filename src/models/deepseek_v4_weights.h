#pragma once
// Weights of DeepSeek V4: names in released checkpoints and in GGUF files, loading of one block.

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "models/config.h"
#include "models/hyper_connections.h"
#include "models/moe.h"
#include "models/weight_reader.h"

namespace dspark {

/// Makes one entry of several tokens.
struct V4Compressor {
  PackedMatrix wkv;         // [k * width, dim]; k = 2 where windows overlap (sparse), else 1
  PackedMatrix wgate;       // the same
  std::vector<float> ape;   // (rate, k * width) joins the gates
  std::vector<float> norm;  // (width)
};

/// Chooses the entries that a query of a sparse layer sees.
struct V4Indexer {
  PackedMatrix wq_b;     // [index_heads * index_dim, q_rank]
  PackedMatrix weights;  // [index_heads, dim]
  V4Compressor compressor;
};

/// One block: attention and experts, each inside its hyper-connection.
struct V4LayerWeights {
  HyperWeights attn_hc, ffn_hc;
  std::vector<float> attn_norm, ffn_norm;  // (dim)
  PackedMatrix q_a;                        // [q_rank, dim]
  std::vector<float> q_norm;               // (q_rank)
  PackedMatrix q_b;                        // [n_heads * head_dim, q_rank]
  PackedMatrix kv;                         // [head_dim, dim]
  std::vector<float> kv_norm;              // (head_dim)
  std::vector<PackedMatrix> o_a;           // per group [o_rank, n_heads * head_dim / o_groups]
  PackedMatrix o_b;                        // [dim, o_groups * o_rank]
  std::vector<float> sinks;                // (n_heads)
  V4Compressor compressor;                 // sparse and heavy layers
  V4Indexer indexer;                       // sparse layers
  MoeWeights moe;
};

struct V4Weights {
  TensorView embedding;  // [vocab_size, dim] in the file
  std::vector<V4LayerWeights> layers;
  HyperWeights head_hc;
  std::vector<float> final_norm;  // (dim)
  TensorView head_tensor;
  PackedMatrix head;  // [vocab_size, dim]
  size_t packed_bytes = 0;
};

/// What a block has. `attention` and `hash_routed` as in V4Config.
struct V4BlockKind {
  V4Attention attention = V4Attention::kSliding;
  bool hash_routed = false;
};

/// Asks for the tensors of one block; `prefix` stands before their names ("layers.3.", "blk.3.", "mtp.0.").
void expect_v4_block(TensorFinder& finder, const ModelConfig& config, V4BlockKind kind, bool gguf,
                     const std::string& prefix);
/// errors: out_of_memory, invalid_argument (a hash table that names an expert that does not exist).
Status load_v4_block(WeightReader& reader, const ModelConfig& config, V4BlockKind kind, bool gguf,
                     const std::string& prefix, V4LayerWeights& weights);
/// A mixing: fn [n_fn, n_streams * dim], base (n_fn), scale (n_scale). GGUF names end in ".weight".
void expect_hyper(TensorFinder& finder, const ModelConfig& config, bool gguf, const std::string& prefix,
                  int64_t n_fn, int64_t n_scale);
Status load_hyper(WeightReader& reader, bool gguf, const std::string& prefix, HyperWeights& weights);

/// Asks for everything of the target.
void expect_v4_weights(TensorFinder& finder, const ModelConfig& config, bool gguf);

/// Everything of the target. Tensors of the bundled drafter (`mtp.*`) are left alone.
/// errors: missing, misshapen or unexplained tensors (each listed by name); out_of_memory.
Result<V4Weights> load_v4_weights(const Checkpoint& checkpoint, const ModelConfig& config, ThreadPool& pool,
                                  bool float_activations);

}  // namespace dspark
