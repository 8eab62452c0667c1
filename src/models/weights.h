#pragma once
// The weights of a decoder, packed for the kernels.

#include <cstddef>
#include <vector>

#include "base/status.h"
#include "base/thread_pool.h"
#include "formats/checkpoint.h"
#include "kernels/matmul.h"
#include "models/config.h"
#include "models/mla.h"
#include "models/moe.h"

namespace dspark {

/// Weights of one layer. Vectors and matrices that the layer does not have stay empty. head_dim, n_kv_heads
/// and ffn_dim are the layer's.
struct LayerWeights {
  std::vector<float> attn_norm;            // (dim) before attention
  std::vector<float> attn_post_norm;       // (dim) after attention, before the residual sum: sandwich only
  std::vector<float> ffn_norm;             // (dim) before the MLP
  std::vector<float> ffn_post_norm;        // (dim) after the MLP: sandwich only
  std::vector<float> q_norm;               // (head_dim)
  std::vector<float> k_norm;               // (head_dim)
  PackedMatrix q;                          // [n_heads * head_dim, dim], rows in half-split rotary order
  PackedMatrix k;                          // [n_kv_heads * head_dim, dim], the same
  PackedMatrix v;                          // [n_kv_heads * head_dim, dim]
  PackedMatrix o;                          // [dim, n_heads * head_dim (or v_dim)]
  PackedMatrix gate;                       // [ffn_dim, dim]
  PackedMatrix up;                         // [ffn_dim, dim]
  PackedMatrix down;                       // [dim, ffn_dim]
  std::vector<float> scalar;               // (1) scales the stream at the layer's end: Gemma 4
  std::vector<float> per_layer_post_norm;  // (dim)
  PackedMatrix per_layer_gate;             // [per_layer_dim, dim]
  PackedMatrix per_layer_out;              // [dim, per_layer_dim]
  MlaWeights mla;                          // instead of q, k and v: DeepSeek V3
  MoeWeights moe;                          // of layers with experts
  std::vector<float> q_bias;
  std::vector<float> k_bias;
  std::vector<float> v_bias;
  std::vector<float> o_bias;
  std::vector<float> gate_bias;
  std::vector<float> up_bias;
  std::vector<float> down_bias;
};

struct ModelWeights {
  TensorView embedding;               // [vocab_size, dim] in the file: rows are decoded when they are needed
  TensorView per_layer_embedding;     // [vocab_size, n_layers * per_layer_dim] in the file
  PackedMatrix per_layer_projection;  // [n_layers * per_layer_dim, dim]
  std::vector<float> per_layer_norm;  // (per_layer_dim)
  std::vector<LayerWeights> layers;
  std::vector<float> final_norm;  // (dim)
  TensorView head_tensor;         // [vocab_size, dim] in the file: the embedding when tied
  PackedMatrix head;              // [vocab_size, dim]; packed from the embedding when tied
  size_t packed_bytes = 0;
};

class TensorFinder;
/// Asks for every tensor of a decoder.
void expect_weights(TensorFinder& finder, const Checkpoint& checkpoint, const ModelConfig& config);

/// Finds every tensor by its name in the file, checks all names and shapes before any work, then packs.
/// errors: missing, misshapen or unexplained tensors (each listed by name); whatever pack_matrix reports.
Result<ModelWeights> load_weights(const Checkpoint& checkpoint, const ModelConfig& config, ThreadPool& pool,
                                  bool float_activations);

}  // namespace dspark
