#pragma once
// The weights of a learned drafter, packed for the kernels; what it borrows from its target.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/arena.h"
#include "base/status.h"
#include "base/thread_pool.h"
#include "draft/draft_checkpoint.h"
#include "kernels/matmul.h"
#include "models/model.h"

namespace dspark {

/// What a drafter must know of the target it drafts for. The views belong to the target.
struct DraftTarget {
  SharedWeights shared;
  int32_t dim = 0;
  int32_t vocab_size = 0;
  int32_t n_layers = 0;
  float norm_eps = 1e-6f;  // of shared.final_norm

  static DraftTarget of(const TargetModel& model);
};

/// One draft layer. Vectors that the architecture does not have stay empty.
struct DraftLayerWeights {
  std::vector<float> attn_norm;       // (dim) before attention
  std::vector<float> attn_post_norm;  // (dim) behind attention: sandwich norms only
  std::vector<float> ffn_norm;        // (dim) before the MLP
  std::vector<float> ffn_post_norm;   // (dim) behind the MLP: sandwich norms only
  std::vector<float> hidden_norm;     // (dim) of the carried hidden row: Eagle3 only
  std::vector<float> q_norm;          // (head_dim)
  std::vector<float> k_norm;          // (head_dim)
  PackedMatrix q;                     // [n_heads * head_dim, in]; in = dim, of Eagle3 2 * dim
  PackedMatrix k;                     // [n_kv_heads * head_dim, in]
  PackedMatrix v;                     // the same; n_out 0 when V is made of K (k_eq_v)
  PackedMatrix o;                     // [dim, n_heads * head_dim]
  PackedMatrix gate;                  // [ffn_dim, dim]
  PackedMatrix up;                    // [ffn_dim, dim]
  PackedMatrix down;                  // [dim, ffn_dim]
  std::vector<float> q_bias;
  std::vector<float> k_bias;
  std::vector<float> v_bias;
  std::vector<float> o_bias;
  float layer_scalar = 1.0f;  // multiplies the residual stream behind the layer
};

/// Embedding and head of a drafter: the target's where the file has none or the same ones.
struct DraftVocabulary {
  TensorView embedding;                       // [vocab_size, dim] as stored, rows decoded when needed
  const PackedMatrix* shared_head = nullptr;  // the target's; nullptr: own_head
  PackedMatrix own_head;                      // [draft_vocab_size, dim]
  bool owns_embedding = false;

  /// [draft_vocab_size, dim]
  const PackedMatrix& head() const { return shared_head != nullptr ? *shared_head : own_head; }
};

/// check_draft_fits, with the drafter's file in front of the message.
Status check_draft_target(const DraftCheckpoint& draft, const DraftTarget& target);

/// Finds and packs the tensors of one drafter. Used by the loaders of all kinds.
class DraftWeightLoader {
 public:
  DraftWeightLoader(const DraftCheckpoint& draft, ThreadPool& pool, bool float_activations)
      : draft_(draft), pool_(pool), float_activations_(float_activations) {}

  /// errors: not_found (no such tensor), invalid_argument (another shape), whatever pack_matrix reports.
  Result<PackedMatrix> matrix(const std::string& name, int64_t n_out, int64_t n_in);
  /// Decodes all elements. errors: as matrix.
  Result<std::vector<float>> vector(const std::string& name, int64_t n);
  /// The view, its shape checked.
  Result<TensorView> table(const std::string& name, int64_t n_rows, int64_t n_columns) const;
  /// "layers.<layer_idx>.*"; `n_in`: columns of q, k and v.
  Result<DraftLayerWeights> layer(int32_t layer_idx, int64_t n_in);
  /// Embedding and head. A copy in the file that equals the target's is not loaded. errors: invalid_argument
  /// when a DeepSpec drafter brings an embedding or full-vocabulary head that is not the target's (it was
  /// made for another model), or the target has none to lend.
  Result<DraftVocabulary> vocabulary(const DraftTarget& target);

  /// Bytes packed so far.
  size_t packed_bytes() const { return packed_bytes_; }

 private:
  Result<PackedMatrix> pack(const TensorView& tensor, std::span<const int32_t> rows = {});
  Status wrong(const std::string& name, const std::string& what) const;
  Status load_head(const DraftTarget& target, DraftVocabulary& out);
  Status load_attention(const std::string& prefix, int64_t n_in, DraftLayerWeights& w);
  Status load_mlp(const std::string& prefix, DraftLayerWeights& w);

  const DraftCheckpoint& draft_;
  ThreadPool& pool_;
  bool float_activations_;
  Arena arena_;  // one pass reads the matrices in the order in which they are packed
  size_t packed_bytes_ = 0;
};

/// How far two tables of the same shape are from each other: root of sum (a - b)^2 / sum a^2, over all rows
/// or, of large ones, several thousand. 0 for equal bytes of one type. requires: same shape, decodable types.
double table_distance(ThreadPool& pool, const TensorView& a, const TensorView& b);

/// Weights of a block drafter (DSpark, DFlash).
struct BlockWeights {
  PackedMatrix fc;                 // [dim, taps * dim]
  std::vector<float> hidden_norm;  // (dim) of context rows
  std::vector<DraftLayerWeights> layers;
  std::vector<float> final_norm;  // (dim)
  DraftVocabulary vocabulary;

  // Sequential head; unset without one.
  TensorView markov_in;            // w1 [vocab_size, rank] as stored: rows are decoded when needed
  PackedMatrix markov_out;         // w2 [draft_vocab_size, rank]
  TensorView markov_out_rows;      // the same as stored, for single rows
  PackedMatrix markov_joint;       // gated: [rank, dim + rank]; rnn: [3 rank, 2 rank + dim]
  std::vector<float> markov_bias;  // of markov_joint
  std::vector<float> confidence;   // (dim) or (dim + rank): hidden first
  float confidence_bias = 0.0f;

  size_t packed_bytes = 0;
};

/// Checks the drafter against the target, then packs. errors: check_draft_fits, DraftWeightLoader.
Result<BlockWeights> load_block_weights(const DraftCheckpoint& draft, const DraftTarget& target,
                                        ThreadPool& pool, bool float_activations);

}  // namespace dspark
