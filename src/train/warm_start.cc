#include "train/warm_start.h"

#include <fmt/format.h>

#include <algorithm>

#include "train/layer.h"

namespace dspark {
namespace {

using at::Tensor;

constexpr int64_t kMeasuredSamples = 8;   // from which sizes of intermediate rows are measured
constexpr int64_t kMeasuredTokens = 512;  // of each, at most

/// Tensors of one target layer, by their Hugging Face names, fp32, rotary rows half-split.
class TargetLayer {
 public:
  TargetLayer(const TrainTarget& target, int32_t layer) : target_(target), layer_(layer) {}

  /// `gguf` and `hf`: the two spellings of one tensor.
  Result<Tensor> get(const char* gguf, const char* hf) const {
    const bool is_gguf = target_.checkpoint->format() == Checkpoint::Format::kGguf;
    const std::string name =
        is_gguf ? fmt::format("blk.{}.{}", layer_, gguf) : fmt::format("model.layers.{}.{}", layer_, hf);
    const TensorView* view = target_.checkpoint->find(name);
    if (view == nullptr) return not_found(target_.checkpoint->path() + ": no tensor '" + name + "'");
    return decode_tensor(*view);
  }

  /// The same for norms, as plain factors.
  Result<Tensor> get_norm(const char* gguf, const char* hf) const {
    DSPARK_ASSIGN_OR_RETURN(const Tensor stored, get(gguf, hf));
    return target_.config.norm_plus_one ? stored + 1.0 : stored;
  }

  /// The same for weights and biases of q and k: GGUF files of arch llama interleave the rotary pairs.
  Result<Tensor> get_rotary(const char* gguf, const char* hf, int64_t n_heads) const {
    DSPARK_ASSIGN_OR_RETURN(const Tensor stored, get(gguf, hf));
    if (!target_.config.qk_interleaved) return stored;
    const int64_t head_dim = target_.config.head_dim;
    return stored.view({n_heads, head_dim / 2, 2, -1}).transpose(1, 2).reshape(stored.sizes());
  }

 private:
  const TrainTarget& target_;
  int32_t layer_;
};

/// Rows of the first samples, fp32 [rows, dim] each.
struct MeasuredRows {
  std::vector<Tensor> taps;         // outputs of one tapped layer
  std::vector<Tensor> last_hidden;  // inputs of the target's head
};

/// `tap`: place of the layer among those of the source.
Result<MeasuredRows> measured_rows(SampleSource& source, int64_t tap) {
  const auto n_taps = static_cast<int64_t>(source.info().target_layer_ids.size());
  const int64_t dim = source.info().hidden_size;
  MeasuredRows rows;
  TargetCacheSample sample;
  for (int64_t i = 0; i < std::min(kMeasuredSamples, source.n_samples()); ++i) {
    DSPARK_RETURN_IF_ERROR(source.read(i, sample));
    const auto n_rows = static_cast<int64_t>(sample.n_tokens());
    const auto kept = [&](std::vector<uint16_t>& bits, int64_t n, int64_t which) {
      return at::from_blob(bits.data(), {n_rows, n, dim}, at::TensorOptions(at::kBFloat16))
          .slice(0, 0, kMeasuredTokens)
          .select(1, which)
          .to(at::kFloat);
    };
    rows.taps.push_back(kept(sample.target_hidden_states, n_taps, tap));
    rows.last_hidden.push_back(kept(sample.target_last_hidden, 1, 0));
  }
  return rows;
}

/// What stands in for the input of target layer `layer`, sample by sample: the tap before the layer, or the
/// last tap, which keys are computed from at the start.
Result<std::vector<Tensor>> tapped_rows(SampleSource& source, int32_t layer) {
  const std::vector<int32_t>& ids = source.info().target_layer_ids;
  const auto own = std::find(ids.begin(), ids.end(), layer - 1);
  const auto tap = own == ids.end() ? std::ssize(ids) - 1 : own - ids.begin();
  DSPARK_ASSIGN_OR_RETURN(MeasuredRows rows, measured_rows(source, tap));
  return std::move(rows.taps);
}

/// How large the numbers of the target's stream are at the last tapped layer of the samples.
double stream_size(const std::vector<Tensor>& samples) {
  double size = 0;
  for (const Tensor& rows : samples) {
    // The median row: the first token's stream is often many times larger.
    size += rows.square().mean(-1).sqrt().median().item<double>();
  }
  return size / static_cast<double>(samples.size());
}

/// One draft layer from one of the target's. The drafter's layer is of the Qwen3 class: norms in front of
/// attention and MLP and none behind them.
class LayerCopy {
 public:
  LayerCopy(DraftModel& model, const TrainTarget& target, int32_t layer, int32_t source)
      : config_(model.config),
        target_(target.config),
        from_(target, source),
        to_(model.trainable),
        prefix_(fmt::format("layers.{}.", layer)),
        attn_(prefix_ + "self_attn.") {}

  Status run(const std::vector<Tensor>& samples) {
    DSPARK_RETURN_IF_ERROR(copy_inputs());
    DSPARK_RETURN_IF_ERROR(copy_head_norms(samples));
    const struct {
      const char* gguf;
      const char* hf;
    } copied[] = {{"attn_output.weight", "self_attn.o_proj.weight"},
                  {"ffn_gate.weight", "mlp.gate_proj.weight"},
                  {"ffn_up.weight", "mlp.up_proj.weight"},
                  {"ffn_down.weight", "mlp.down_proj.weight"}};
    for (const auto& tensor : copied) {
      DSPARK_ASSIGN_OR_RETURN(to_[prefix_ + tensor.hf], from_.get(tensor.gguf, tensor.hf));
    }
    const char* mlp_norm =
        target_.sandwich_norms ? "pre_feedforward_layernorm.weight" : "post_attention_layernorm.weight";
    DSPARK_ASSIGN_OR_RETURN(to_[prefix_ + "post_attention_layernorm.weight"],
                            from_.get_norm("ffn_norm.weight", mlp_norm));
    return target_.sandwich_norms ? fold_post_norms(samples) : ok_status();
  }

 private:
  /// The weight of the first norm goes into q, k and v, because context rows do not pass the drafter's own.
  /// Biases are added behind the product, so they stay as they are.
  Status copy_inputs() {
    DSPARK_ASSIGN_OR_RETURN(const Tensor norm, from_.get_norm("attn_norm.weight", "input_layernorm.weight"));
    DSPARK_ASSIGN_OR_RETURN(const Tensor q,
                            from_.get_rotary("attn_q.weight", "self_attn.q_proj.weight", target_.n_heads));
    DSPARK_ASSIGN_OR_RETURN(const Tensor k,
                            from_.get_rotary("attn_k.weight", "self_attn.k_proj.weight", target_.n_kv_heads));
    DSPARK_ASSIGN_OR_RETURN(const Tensor v, from_.get("attn_v.weight", "self_attn.v_proj.weight"));
    to_[attn_ + "q_proj.weight"] = q * norm;
    to_[attn_ + "k_proj.weight"] = k * norm;
    to_[attn_ + "v_proj.weight"] = v * norm;
    if (!config_.attention_bias) return ok_status();
    DSPARK_ASSIGN_OR_RETURN(to_[attn_ + "q_proj.bias"],
                            from_.get_rotary("attn_q.bias", "self_attn.q_proj.bias", target_.n_heads));
    DSPARK_ASSIGN_OR_RETURN(to_[attn_ + "k_proj.bias"],
                            from_.get_rotary("attn_k.bias", "self_attn.k_proj.bias", target_.n_kv_heads));
    DSPARK_ASSIGN_OR_RETURN(to_[attn_ + "v_proj.bias"], from_.get("attn_v.bias", "self_attn.v_proj.bias"));
    if (!target_.o_bias) return ok_status();
    DSPARK_ASSIGN_OR_RETURN(to_[attn_ + "o_proj.bias"],
                            from_.get("attn_output.bias", "self_attn.o_proj.bias"));
    return ok_status();
  }

  /// Norms of heads that the target lacks get the size that queries and keys have without them.
  Status copy_head_norms(const std::vector<Tensor>& samples) {
    if (target_.qk_norm) {
      DSPARK_ASSIGN_OR_RETURN(to_[attn_ + "q_norm.weight"],
                              from_.get_norm("attn_q_norm.weight", "self_attn.q_norm.weight"));
      DSPARK_ASSIGN_OR_RETURN(to_[attn_ + "k_norm.weight"],
                              from_.get_norm("attn_k_norm.weight", "self_attn.k_norm.weight"));
      return ok_status();
    }
    const Tensor rows = rms_norm(at::cat(samples, 0), {}, config_.norm_eps);
    for (const char* side : {"q", "k"}) {
      const Tensor values = project(rows, fmt::format("{}_proj", side));
      to_[attn_ + side + "_norm.weight"] =
          at::full({config_.head_dim}, values.square().mean().sqrt().item<double>());
    }
    return ok_status();
  }

  Tensor param(const std::string& name) const { return find_param(to_, name); }

  /// A product of the attention with its bias.
  Tensor project(const Tensor& x, const std::string& name) const {
    return linear(x, param(attn_ + name + ".weight"), param(attn_ + name + ".bias"), Precision::kFloat32);
  }

  /// Output of the attention over one sample, causal, fp32 [rows, dim]. x: inputs of the layer.
  Tensor attention(const Tensor& x) const {
    const int64_t n_rows = x.size(0);
    const Angles angles = rope_angles(config_.rope, at::arange(n_rows, at::kLong));
    const Tensor u = rms_norm(x, {}, config_.norm_eps);
    const auto heads = [&](const char* name, int64_t n_heads) {
      return project(u, name).view({n_rows, n_heads, config_.head_dim});
    };
    const auto rotated = [&](const char* name, const char* norm, int64_t n_heads) {
      return rotate(rms_norm(heads(name, n_heads), param(attn_ + norm), config_.norm_eps), angles);
    };
    const int64_t group = config_.n_heads / config_.n_kv_heads;
    const Tensor q = rotated("q_proj", "q_norm.weight", config_.n_heads).transpose(0, 1);
    const Tensor k = rotated("k_proj", "k_norm.weight", config_.n_kv_heads).transpose(0, 1);
    const Tensor v = heads("v_proj", config_.n_kv_heads).transpose(0, 1);
    const Tensor scores = at::bmm(q, k.repeat_interleave(group, 0).transpose(1, 2)) *
                          static_cast<double>(config_.attention_scale);
    const Tensor future = at::ones({n_rows, n_rows}, at::kBool).triu(1);
    const Tensor weights = at::softmax(scores.masked_fill(future, -1e30), -1);
    const Tensor mixed = at::bmm(weights, v.repeat_interleave(group, 0)).transpose(0, 1);
    return project(mixed.reshape({n_rows, -1}), "o_proj");
  }

  Tensor mlp(const Tensor& x) const {
    const Tensor y = rms_norm(x, param(prefix_ + "post_attention_layernorm.weight"), config_.norm_eps);
    const auto product = [&](const Tensor& rows, const char* name) {
      return linear(rows, param(prefix_ + name), {}, Precision::kFloat32);
    };
    const Tensor gate = product(y, "mlp.gate_proj.weight");
    const Tensor active =
        config_.activation == GateActivation::kSilu ? at::silu(gate) : at::gelu(gate, "tanh");
    return product(active * product(y, "mlp.up_proj.weight"), "mlp.down_proj.weight");
  }

  /// The factor that comes closest to 1 / rms of the rows: it minimises the sum of (1 - factor rms)^2.
  static double inverse_size(const Tensor& rows) {
    const Tensor size = rows.square().mean(-1).sqrt();
    return (size.sum() / size.square().sum().clamp_min(1e-12)).item<double>();
  }

  /// Norms behind attention and MLP, which the drafter lacks, become factors of the products before them: a
  /// row's own size is replaced by the usual one. What the MLP sees is measured with the real norm.
  Status fold_post_norms(const std::vector<Tensor>& samples) {
    DSPARK_ASSIGN_OR_RETURN(const Tensor attn_norm,
                            from_.get_norm("post_attention_norm.weight", "post_attention_layernorm.weight"));
    DSPARK_ASSIGN_OR_RETURN(const Tensor mlp_norm,
                            from_.get_norm("post_ffw_norm.weight", "post_feedforward_layernorm.weight"));
    std::vector<Tensor> attended, produced;
    for (const Tensor& x : samples) {
      attended.push_back(attention(x));
      produced.push_back(mlp(x + rms_norm(attended.back(), attn_norm, config_.norm_eps)));
    }
    const auto fold = [&](const std::string& name, const Tensor& norm, const std::vector<Tensor>& rows) {
      to_[name] = to_[name] * (norm * inverse_size(at::cat(rows, 0))).unsqueeze(1);
    };
    fold(attn_ + "o_proj.weight", attn_norm, attended);
    fold(prefix_ + "mlp.down_proj.weight", mlp_norm, produced);
    return ok_status();
  }

  const DraftConfig& config_;
  const ModelConfig& target_;
  TargetLayer from_;
  TensorMap& to_;
  std::string prefix_;
  std::string attn_;
};

/// The projections of Eagle3 read the embedding first: that half keeps its random numbers.
void prepend_embedding(DraftModel& model, const TensorMap& random) {
  for (const char* name : {"q_proj", "k_proj", "v_proj"}) {
    const std::string full = fmt::format("layers.0.self_attn.{}.weight", name);
    const Tensor own = random.find(full)->second.slice(1, 0, model.config.dim);
    model.trainable[full] = at::cat({own, model.trainable[full]}, 1);
  }
}

/// The last columns of a drafter's first matrix let the row that they read pass; the others start small.
void pass_last_row(Tensor& first, int64_t dim) {
  first.mul_(0.1);
  first.slice(1, first.size(1) - dim, first.size(1)).add_(at::eye(dim));
}

/// The drafter's layers from those of the target, and the last tap through `fc`.
Status start_from_taps(DraftModel& model, const TrainTarget& target, SampleSource& source) {
  const DraftConfig& config = model.config;
  const TensorMap random = model.trainable;
  const std::vector<int32_t> layers = warm_layers(target.config, config.n_layers);
  // The last layers of the drafter, when the target has fewer that can be copied.
  const auto n_random = config.n_layers - static_cast<int32_t>(layers.size());
  for (size_t i = 0; i < layers.size(); ++i) {
    DSPARK_ASSIGN_OR_RETURN(const std::vector<Tensor> samples, tapped_rows(source, layers[i]));
    LayerCopy copy(model, target, n_random + static_cast<int32_t>(i), layers[i]);
    DSPARK_RETURN_IF_ERROR(copy.run(samples));
  }
  if (config.kind == DraftKind::kEagle3) prepend_embedding(model, random);
  pass_last_row(model.trainable["fc.weight"], config.dim);
  return ok_status();
}

/// The one layer of MTP: the hidden row arrives normed, and the layer wants the size of a stream.
Status start_from_last_hidden(DraftModel& model, const TrainTarget& target, SampleSource& source) {
  const DraftConfig& config = model.config;
  DSPARK_ASSIGN_OR_RETURN(MeasuredRows rows,
                          measured_rows(source, std::ssize(source.info().target_layer_ids) - 1));
  const double size = stream_size(rows.taps);
  for (Tensor& sample : rows.last_hidden) sample = rms_norm(sample, {}, config.norm_eps) * size;
  LayerCopy copy(model, target, 0, warm_layers(target.config, 1).front());
  DSPARK_RETURN_IF_ERROR(copy.run(rows.last_hidden));
  Tensor& first = model.trainable["eh_proj.weight"];
  pass_last_row(first, config.dim);
  first.mul_(size);
  return ok_status();
}

}  // namespace

std::vector<int32_t> warm_layers(const ModelConfig& target, int32_t n_layers) {
  const auto full = [](const LayerConfig& layer) { return layer.window == 0; };
  const bool some_full = std::any_of(target.layers.begin(), target.layers.end(), full);
  std::vector<int32_t> found;
  for (int32_t i = target.n_layers - 1; i >= 0 && static_cast<int32_t>(found.size()) < n_layers; --i) {
    if (some_full && !full(target.layer(i))) continue;
    if (!found.empty() && target.layer(i).rope_idx != target.layer(found.front()).rope_idx) continue;
    found.push_back(i);
  }
  std::reverse(found.begin(), found.end());
  return found;
}

const RopeTable& draft_rope(const ModelConfig& target) {
  const std::vector<int32_t> layers = warm_layers(target, 1);
  const auto first = static_cast<size_t>(layers.empty() ? 0 : target.layer(layers.front()).rope_idx);
  const auto fits = [&](const RopeTable& rope) {
    return rope.inv_freq.size() == static_cast<size_t>(target.head_dim / 2);
  };
  if (fits(target.ropes[first])) return target.ropes[first];
  const auto other = std::find_if(target.ropes.begin(), target.ropes.end(), fits);
  return other != target.ropes.end() ? *other : target.ropes[first];
}

Status warm_start(DraftModel& model, const TrainTarget& target, const SampleSources& sources) {
  const ModelConfig& from = target.config;
  if (from.v_norm || from.layer_scalar || from.moe.n_experts > 0 || from.mla.kv_rank > 0) {
    return unsupported("--warm-start: layers of " + from.arch +
                       " targets do not fit the drafter's; use --no-warm-start");
  }
  const bool mtp = model.config.kind == DraftKind::kMtp;
  DSPARK_RETURN_IF_ERROR(mtp ? start_from_last_hidden(model, target, *sources.front())
                             : start_from_taps(model, target, *sources.front()));
  model.trainable["norm.weight"] = target.final_norm.clone();
  return ok_status();
}

}  // namespace dspark
