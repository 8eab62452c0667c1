#include "draft/draft_weights.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "tensor/quantize.h"

namespace dspark {
namespace {

// Rows of a table that are compared when it cannot be compared byte by byte.
constexpr int64_t kComparedRows = 4096;
// Distances below these count as the same numbers in another type: float types round, quantised ones more.
constexpr double kRoundingDistance = 1e-2;
constexpr double kQuantisedDistance = 0.35;

bool is_float(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16;
}

bool same_table(ThreadPool& pool, const TensorView& own, const TensorView& target) {
  const double limit = own.dtype == target.dtype                       ? 0.0
                       : is_float(own.dtype) && is_float(target.dtype) ? kRoundingDistance
                                                                       : kQuantisedDistance;
  return table_distance(pool, own, target) <= limit;
}

}  // namespace

DraftTarget DraftTarget::of(const TargetModel& model) {
  const ModelConfig& config = model.config();
  return {model.shared_weights(), config.dim, config.vocab_size, config.n_layers, config.norm_eps};
}

Status check_draft_target(const DraftCheckpoint& draft, const DraftTarget& target) {
  ModelConfig shape;
  shape.dim = target.dim;
  shape.vocab_size = target.vocab_size;
  shape.n_layers = target.n_layers;
  Status fits = check_draft_fits(draft.config, shape);
  if (fits.ok() || draft.file == nullptr) return fits;
  return Status(fits.code(), draft.file->path() + ": " + fits.message());
}

double table_distance(ThreadPool& pool, const TensorView& a, const TensorView& b) {
  if (a.dtype == b.dtype && a.n_bytes == b.n_bytes && std::memcmp(a.data, b.data, a.n_bytes) == 0) return 0.0;
  const int64_t n_rows = a.n_rows(), n = a.row_elements();
  const int64_t n_compared = std::min(n_rows, kComparedRows);
  std::vector<double> sums(static_cast<size_t>(2 * n_compared));
  pool.parallel_for(n_compared, [&](int64_t i, int) {
    const auto row = static_cast<size_t>(i * n_rows / n_compared);
    std::vector<float> x(static_cast<size_t>(n)), y(static_cast<size_t>(n));
    decode_row(a.dtype, a.data + row * a.row_bytes(), x.data(), n);
    decode_row(b.dtype, b.data + row * b.row_bytes(), y.data(), n);
    double difference = 0.0, size = 0.0;
    for (size_t k = 0; k < x.size(); ++k) {
      const double d = static_cast<double>(x[k]) - static_cast<double>(y[k]);
      difference += d * d;
      size += static_cast<double>(x[k]) * static_cast<double>(x[k]);
    }
    sums[static_cast<size_t>(2 * i)] = difference;
    sums[static_cast<size_t>(2 * i + 1)] = size;
  });
  double difference = 0.0, size = 0.0;
  for (size_t i = 0; i < sums.size(); i += 2) {
    difference += sums[i];
    size += sums[i + 1];
  }
  // Bytes differ: not the same, however small the difference (compared rows may even all agree).
  const double distance = size > 0.0 ? std::sqrt(difference / size) : 1.0;
  return std::isfinite(distance) ? std::max(distance, 1e-12) : 1.0;
}

Status DraftWeightLoader::wrong(const std::string& name, const std::string& what) const {
  const std::string where = draft_.file != nullptr ? draft_.file->path() : std::string("drafter");
  return invalid_argument(fmt::format("{}: {} {}", where, name, what));
}

Result<TensorView> DraftWeightLoader::table(const std::string& name, int64_t n_rows,
                                            int64_t n_columns) const {
  const TensorView* tensor = draft_.find(name);
  if (tensor == nullptr) return wrong(name, "is missing");
  if (tensor->shape != std::vector<int64_t>{n_rows, n_columns}) {
    return wrong(
        name, fmt::format("is [{}], expected [{}, {}]", fmt::join(tensor->shape, ", "), n_rows, n_columns));
  }
  if (!can_decode(tensor->dtype)) {
    return wrong(name, fmt::format("is {}, which weights cannot be", dtype_name(tensor->dtype)));
  }
  return *tensor;
}

Result<PackedMatrix> DraftWeightLoader::pack(const TensorView& tensor, std::span<const int32_t> rows) {
  const auto drop = [&](std::span<const uint8_t> bytes) {
    if (draft_.file != nullptr) draft_.file->drop_resident(bytes);
  };
  Result<PackedMatrix> packed = pack_matrix(pool_, tensor, float_activations_, rows, &arena_, drop);
  if (packed.ok()) packed_bytes_ += packed->data.size();
  return packed;
}

Result<PackedMatrix> DraftWeightLoader::matrix(const std::string& name, int64_t n_out, int64_t n_in) {
  DSPARK_ASSIGN_OR_RETURN(const TensorView tensor, table(name, n_out, n_in));
  return pack(tensor);
}

Result<std::vector<float>> DraftWeightLoader::vector(const std::string& name, int64_t n) {
  const TensorView* tensor = draft_.find(name);
  if (tensor == nullptr) return wrong(name, "is missing");
  if (tensor->n_elements() != n) {
    return wrong(name, fmt::format("has {} elements, expected {}", tensor->n_elements(), n));
  }
  if (!can_decode(tensor->dtype)) {
    return wrong(name, fmt::format("is {}, which weights cannot be", dtype_name(tensor->dtype)));
  }
  std::vector<float> values(static_cast<size_t>(n));
  decode_row(tensor->dtype, tensor->data, values.data(), n);
  return values;
}

Result<DraftLayerWeights> DraftWeightLoader::layer(int32_t layer_idx, int64_t n_in) {
  const DraftConfig& c = draft_.config;
  const std::string prefix = fmt::format("layers.{}.", layer_idx);
  DraftLayerWeights w;
  DSPARK_ASSIGN_OR_RETURN(w.attn_norm, vector(prefix + "input_layernorm.weight", c.dim));
  if (draft_.find(prefix + "hidden_norm.weight") != nullptr) {
    DSPARK_ASSIGN_OR_RETURN(w.hidden_norm, vector(prefix + "hidden_norm.weight", c.dim));
  }
  DSPARK_RETURN_IF_ERROR(load_attention(prefix + "self_attn.", n_in, w));
  // Both classes call a norm "post_attention_layernorm": in front of the MLP, or in a sandwich behind
  // attention.
  const std::string post_attention = prefix + "post_attention_layernorm.weight";
  if (c.sandwich_norms) {
    DSPARK_ASSIGN_OR_RETURN(w.attn_post_norm, vector(post_attention, c.dim));
    DSPARK_ASSIGN_OR_RETURN(w.ffn_norm, vector(prefix + "pre_feedforward_layernorm.weight", c.dim));
    DSPARK_ASSIGN_OR_RETURN(w.ffn_post_norm, vector(prefix + "post_feedforward_layernorm.weight", c.dim));
    DSPARK_ASSIGN_OR_RETURN(const std::vector<float> scalar, vector(prefix + "layer_scalar", 1));
    w.layer_scalar = scalar[0];
  } else {
    DSPARK_ASSIGN_OR_RETURN(w.ffn_norm, vector(post_attention, c.dim));
  }
  DSPARK_RETURN_IF_ERROR(load_mlp(prefix + "mlp.", w));
  return w;
}

Status DraftWeightLoader::load_attention(const std::string& prefix, int64_t n_in, DraftLayerWeights& w) {
  const DraftConfig& c = draft_.config;
  const int64_t q_dim = int64_t{c.n_heads} * c.head_dim, kv_dim = int64_t{c.n_kv_heads} * c.head_dim;
  DSPARK_ASSIGN_OR_RETURN(w.q, matrix(prefix + "q_proj.weight", q_dim, n_in));
  DSPARK_ASSIGN_OR_RETURN(w.k, matrix(prefix + "k_proj.weight", kv_dim, n_in));
  if (!c.k_eq_v) {
    DSPARK_ASSIGN_OR_RETURN(w.v, matrix(prefix + "v_proj.weight", kv_dim, n_in));
  }
  DSPARK_ASSIGN_OR_RETURN(w.o, matrix(prefix + "o_proj.weight", c.dim, q_dim));
  if (c.attention_bias) {
    DSPARK_ASSIGN_OR_RETURN(w.q_bias, vector(prefix + "q_proj.bias", q_dim));
    DSPARK_ASSIGN_OR_RETURN(w.k_bias, vector(prefix + "k_proj.bias", kv_dim));
    if (!c.k_eq_v) {
      DSPARK_ASSIGN_OR_RETURN(w.v_bias, vector(prefix + "v_proj.bias", kv_dim));
    }
    if (draft_.find(prefix + "o_proj.bias") != nullptr) {
      DSPARK_ASSIGN_OR_RETURN(w.o_bias, vector(prefix + "o_proj.bias", c.dim));
    }
  }
  if (!c.qk_norm) return ok_status();
  DSPARK_ASSIGN_OR_RETURN(w.q_norm, vector(prefix + "q_norm.weight", c.head_dim));
  DSPARK_ASSIGN_OR_RETURN(w.k_norm, vector(prefix + "k_norm.weight", c.head_dim));
  return ok_status();
}

Status DraftWeightLoader::load_mlp(const std::string& prefix, DraftLayerWeights& w) {
  const DraftConfig& c = draft_.config;
  DSPARK_ASSIGN_OR_RETURN(w.gate, matrix(prefix + "gate_proj.weight", c.ffn_dim, c.dim));
  DSPARK_ASSIGN_OR_RETURN(w.up, matrix(prefix + "up_proj.weight", c.ffn_dim, c.dim));
  DSPARK_ASSIGN_OR_RETURN(w.down, matrix(prefix + "down_proj.weight", c.dim, c.ffn_dim));
  return ok_status();
}

Result<DraftVocabulary> DraftWeightLoader::vocabulary(const DraftTarget& target) {
  const DraftConfig& c = draft_.config;
  if (target.shared.embedding.data == nullptr || target.shared.head == nullptr ||
      target.shared.head_tensor.data == nullptr) {
    return unsupported("this kind of target lends a drafter no embedding and head");
  }
  DraftVocabulary out;
  out.embedding = target.shared.embedding;
  if (draft_.find("embed_tokens.weight") != nullptr) {
    DSPARK_ASSIGN_OR_RETURN(const TensorView own, table("embed_tokens.weight", c.vocab_size, c.dim));
    if (!same_table(pool_, own, target.shared.embedding)) {
      if (c.source == DraftSource::kDeepSpec) {
        return wrong("embed_tokens.weight",
                     "is not the embedding of this target: the drafter was made for another "
                     "model" +
                         (c.target_name.empty() ? "" : ", " + c.target_name));
      }
      out.embedding = own;
      out.owns_embedding = true;
    }
  }
  DSPARK_RETURN_IF_ERROR(load_head(target, out));
  return out;
}

Status DraftWeightLoader::load_head(const DraftTarget& target, DraftVocabulary& out) {
  const DraftConfig& c = draft_.config;
  const TensorView& stored = target.shared.head_tensor;
  if (draft_.find("lm_head.weight") == nullptr) {
    if (c.reduced_vocab()) {
      DSPARK_ASSIGN_OR_RETURN(out.own_head, pack(stored, c.d2t));
    } else {
      out.shared_head = target.shared.head;
    }
    return ok_status();
  }
  DSPARK_ASSIGN_OR_RETURN(const TensorView own, table("lm_head.weight", c.draft_vocab_size, c.dim));
  if (!c.reduced_vocab()) {
    if (same_table(pool_, own, stored)) {
      out.shared_head = target.shared.head;
      return ok_status();
    }
    if (c.source == DraftSource::kDeepSpec) {
      return wrong("lm_head.weight",
                   "is not the head of this target: the drafter was made for another model" +
                       (c.target_name.empty() ? "" : ", " + c.target_name));
    }
  }
  DSPARK_ASSIGN_OR_RETURN(out.own_head, pack(own));
  return ok_status();
}

namespace {

Status load_sequential_head(const DraftConfig& c, DraftWeightLoader& loader, BlockWeights& w) {
  const int64_t rank = c.markov_rank;
  if (c.head != SequentialHead::kNone) {
    DSPARK_ASSIGN_OR_RETURN(w.markov_in, loader.table("markov_head.markov_w1.weight", c.vocab_size, rank));
    const char* out = "markov_head.markov_w2.weight";
    DSPARK_ASSIGN_OR_RETURN(w.markov_out_rows, loader.table(out, c.draft_vocab_size, rank));
    DSPARK_ASSIGN_OR_RETURN(w.markov_out, loader.matrix(out, c.draft_vocab_size, rank));
  }
  if (c.head == SequentialHead::kGated) {
    DSPARK_ASSIGN_OR_RETURN(w.markov_joint,
                            loader.matrix("markov_head.gate_proj.weight", rank, c.dim + rank));
    DSPARK_ASSIGN_OR_RETURN(w.markov_bias, loader.vector("markov_head.gate_proj.bias", rank));
  } else if (c.head == SequentialHead::kRnn) {
    const char* joint = "markov_head.joint_proj.weight";
    DSPARK_ASSIGN_OR_RETURN(w.markov_joint, loader.matrix(joint, 3 * rank, 2 * rank + c.dim));
    DSPARK_ASSIGN_OR_RETURN(w.markov_bias, loader.vector("markov_head.joint_proj.bias", 3 * rank));
  }
  if (!c.confidence) return ok_status();
  const int64_t width = c.dim + (c.confidence_with_markov ? rank : 0);
  DSPARK_ASSIGN_OR_RETURN(w.confidence, loader.vector("confidence_head.proj.weight", width));
  DSPARK_ASSIGN_OR_RETURN(const std::vector<float> bias, loader.vector("confidence_head.proj.bias", 1));
  w.confidence_bias = bias[0];
  return ok_status();
}

}  // namespace

Result<BlockWeights> load_block_weights(const DraftCheckpoint& draft, const DraftTarget& target,
                                        ThreadPool& pool, bool float_activations) {
  DSPARK_RETURN_IF_ERROR(check_draft_target(draft, target));
  const DraftConfig& c = draft.config;
  DraftWeightLoader loader(draft, pool, float_activations);
  BlockWeights w;
  const int64_t n_features = static_cast<int64_t>(c.taps.size()) * c.dim;
  DSPARK_ASSIGN_OR_RETURN(w.fc, loader.matrix("fc.weight", c.dim, n_features));
  DSPARK_ASSIGN_OR_RETURN(w.hidden_norm, loader.vector("hidden_norm.weight", c.dim));
  for (int32_t i = 0; i < c.n_layers; ++i) {
    DSPARK_ASSIGN_OR_RETURN(DraftLayerWeights layer, loader.layer(i, c.dim));
    w.layers.push_back(std::move(layer));
  }
  DSPARK_ASSIGN_OR_RETURN(w.final_norm, loader.vector("norm.weight", c.dim));
  DSPARK_ASSIGN_OR_RETURN(w.vocabulary, loader.vocabulary(target));
  DSPARK_RETURN_IF_ERROR(load_sequential_head(c, loader, w));
  w.packed_bytes = loader.packed_bytes();
  return w;
}

}  // namespace dspark
