#include "train/draft_init.h"

#include <ATen/CPUGeneratorImpl.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <numeric>

#include "formats/json_reader.h"
#include "models/tensor_table.h"
#include "train/backbone.h"

namespace dspark {
namespace {

using at::Tensor;

constexpr double kInitDeviation = 0.02;  // of random weights
constexpr int64_t kMeasuredSamples = 8;  // from which the size of queries and keys is measured

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

  /// The same for q and k: GGUF files of arch llama interleave the rotary pairs.
  Result<Tensor> get_rotary(const char* gguf, const char* hf, int64_t n_heads) const {
    DSPARK_ASSIGN_OR_RETURN(const Tensor stored, get(gguf, hf));
    if (!target_.config.qk_interleaved) return stored;
    const int64_t head_dim = target_.config.head_dim;
    return stored.view({n_heads, head_dim / 2, 2, -1}).transpose(1, 2).reshape({n_heads * head_dim, -1});
  }

 private:
  const TrainTarget& target_;
  int32_t layer_;
};

Result<Tensor> named(const Checkpoint& checkpoint, const std::string& name) {
  const TensorView* view = checkpoint.find(name);
  if (view == nullptr) return not_found(checkpoint.path() + ": no tensor '" + name + "'");
  return decode_tensor(*view);
}

/// The ids of the draft head: the most frequent supervised ones, then other ids of the caches, then the
/// lowest.
std::vector<int32_t> choose_vocabulary(const TokenCounts& counts, int32_t size) {
  std::vector<int32_t> ids(counts.all.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::stable_sort(ids.begin(), ids.end(), [&](int32_t a, int32_t b) {
    const auto i = static_cast<size_t>(a);
    const auto j = static_cast<size_t>(b);
    if (counts.supervised[i] != counts.supervised[j]) return counts.supervised[i] > counts.supervised[j];
    return counts.all[i] > counts.all[j];
  });
  ids.resize(static_cast<size_t>(size));
  std::sort(ids.begin(), ids.end());
  return ids;
}

/// The ids of a file that `dspark data vocab` wrote.
Result<std::vector<int32_t>> read_vocabulary(const std::string& path, int32_t vocab_size) {
  DSPARK_ASSIGN_OR_RETURN(const nlohmann::json root, read_json_file(path));
  const auto wrong = [&](const std::string& what) { return corrupt_data(path + ": " + what); };
  if (!root.is_object() || !root.contains("ids") || !root["ids"].is_array() || root["ids"].empty()) {
    return wrong("ids: expected a list of token ids");
  }
  std::vector<int32_t> ids;
  for (const nlohmann::json& id : root["ids"]) {
    const bool good = id.is_number_integer() && id.get<int64_t>() < vocab_size &&
                      id.get<int64_t>() > (ids.empty() ? -1 : ids.back());
    if (!good) {
      return wrong(fmt::format("ids[{}]: expected ascending ids below {}, found {}", ids.size(), vocab_size,
                               id.dump()));
    }
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

int32_t unused_token(const TokenCounts& counts) {
  const auto found = std::find(counts.all.begin(), counts.all.end(), 0);
  return static_cast<int32_t>(found == counts.all.end() ? 0 : found - counts.all.begin());
}

Result<DraftKind> kind_of(const TrainOptions& options) {
  for (const DraftKind kind : {DraftKind::kDSpark, DraftKind::kDFlash, DraftKind::kEagle3, DraftKind::kMtp}) {
    if (options.kind == draft_kind_name(kind)) return kind;
  }
  return invalid_argument("--kind: expected dspark, dflash, eagle3 or mtp, found '" + options.kind + "'");
}

Result<SequentialHead> head_of(const TrainOptions& options) {
  if (options.kind != "dspark" || options.markov_rank == 0) return SequentialHead::kNone;
  for (const SequentialHead head : {SequentialHead::kVanilla, SequentialHead::kGated, SequentialHead::kRnn}) {
    if (options.head == sequential_head_name(head)) return head;
  }
  return invalid_argument("--head: expected vanilla, gated or rnn, found '" + options.head + "'");
}

/// The base behind a plain rotary table, whose second frequency is base^(-2 / head_dim).
double rope_base(const RopeTable& rope, int32_t head_dim) {
  if (rope.inv_freq.size() < 2 || rope.inv_freq[1] <= 0) return 10000.0;
  return std::round(std::pow(static_cast<double>(rope.inv_freq[1]), -0.5 * head_dim));
}

Result<DraftConfig> new_config(const TrainOptions& options, const TrainTarget& target,
                               const TargetCacheInfo& info, const TokenCounts& counts) {
  const ModelConfig& model = target.config;
  DraftConfig config;
  DSPARK_ASSIGN_OR_RETURN(config.kind, kind_of(options));
  config.target_name = model.name;
  config.n_layers = is_paired(config.kind) ? 1 : options.layers;
  config.dim = model.dim;
  config.n_heads = model.n_heads;
  config.n_kv_heads = model.n_kv_heads;
  config.head_dim = model.head_dim;
  config.ffn_dim = model.ffn_dim;
  config.norm_eps = model.norm_eps;
  config.attention_scale = 1.0f / std::sqrt(static_cast<float>(model.head_dim));
  config.rope = model.ropes.front();
  config.rope.angles = {};
  config.rope_theta = rope_base(model.ropes.front(), model.head_dim);
  config.context_length = model.context_length;
  config.vocab_size = model.vocab_size;
  config.draft_vocab_size = options.draft_vocab == 0 ? model.vocab_size : options.draft_vocab;
  if (config.draft_vocab_size > model.vocab_size) {
    return invalid_argument(
        fmt::format("--draft-vocab: the target has {} ids, found {}", model.vocab_size, options.draft_vocab));
  }
  if (!options.draft_vocab_file.empty()) {
    DSPARK_ASSIGN_OR_RETURN(config.d2t, read_vocabulary(options.draft_vocab_file, model.vocab_size));
    config.draft_vocab_size = static_cast<int32_t>(config.d2t.size());
    if (!config.reduced_vocab()) config.d2t.clear();
  } else if (config.reduced_vocab()) {
    config.d2t = choose_vocabulary(counts, config.draft_vocab_size);
  }
  config.block_size = options.block_size;
  config.mask_token_id = options.mask_token >= 0 ? options.mask_token : unused_token(counts);
  if (config.mask_token_id >= model.vocab_size) {
    return invalid_argument(
        fmt::format("--mask-token: the target has {} ids, found {}", model.vocab_size, config.mask_token_id));
  }
  for (int32_t id : info.target_layer_ids) config.taps.push_back(id + 1);
  config.target_layers = model.n_layers;
  if (config.kind == DraftKind::kMtp) {
    config.block_size = 1;
    config.taps = {model.n_layers};
  }
  DSPARK_ASSIGN_OR_RETURN(config.head, head_of(options));
  config.markov_rank = config.head == SequentialHead::kNone ? 0 : options.markov_rank;
  config.confidence = config.kind == DraftKind::kDSpark;
  config.confidence_with_markov = config.confidence && config.markov_rank > 0;
  return config;
}

/// Rows of `matrix` on its first `rank` principal directions, every column scaled to unit deviation.
Tensor principal_rows(const Tensor& matrix, int64_t rank) {
  const Tensor centred = matrix - matrix.mean(0, true);
  const auto [values, vectors] = at::linalg_eigh(at::matmul(centred.t(), centred));
  const int64_t width = matrix.size(1);
  const int64_t kept = std::min(rank, width);
  const Tensor rows = at::matmul(centred, vectors.slice(1, width - kept, width).flip({1}));
  Tensor out = at::zeros({matrix.size(0), rank});
  out.slice(1, 0, kept).copy_(rows / rows.std(0, true).clamp_min(1e-6));
  return out;
}

void init_random(DraftModel& model, const TrainTarget& target, uint64_t seed) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  const auto ends = [](const std::string& name, const char* end) {
    return name.size() >= std::strlen(end) &&
           name.compare(name.size() - std::strlen(end), std::string::npos, end) == 0;
  };
  for (const auto& [name, shape] : trainable_shapes(model.config)) {
    Tensor tensor;
    if (ends(name, "norm.weight")) {
      tensor = at::ones(shape);
    } else if (ends(name, ".bias") || name == "confidence_head.proj.weight" ||
               ends(name, "markov_w2.weight")) {
      tensor = at::zeros(shape);
    } else if (ends(name, "markov_w1.weight")) {
      // With w2 at zero a small random w1 would keep both gradients tiny.
      tensor = principal_rows(target.embedding, shape[1]);
    } else {
      tensor = at::randn(shape, generator) * kInitDeviation;
    }
    model.trainable[name] = tensor.contiguous();
  }
}

/// What keys are computed from at the start: normed outputs of the last tapped layer, of MTP the normed last
/// hidden rows. fp32 [rows, dim].
Result<Tensor> sample_rows(const DraftConfig& config, const SampleSources& sources) {
  std::vector<Tensor> parts;
  TargetCacheSample sample;
  SampleSource& source = *sources.front();
  for (int64_t i = 0; i < std::min(kMeasuredSamples, source.n_samples()); ++i) {
    DSPARK_RETURN_IF_ERROR(source.read(i, sample));
    const bool mtp = config.kind == DraftKind::kMtp;
    std::vector<uint16_t>& hidden = mtp ? sample.target_last_hidden : sample.target_hidden_states;
    const auto n_taps = static_cast<int64_t>(config.taps.size());
    const Tensor rows = at::from_blob(
        hidden.data(), {static_cast<int64_t>(sample.n_tokens()), n_taps, config.dim}, at::kBFloat16);
    parts.push_back(rows.select(1, n_taps - 1).to(at::kFloat));
  }
  return rms_norm(at::cat(parts, 0), {}, config.norm_eps);
}

/// One layer from the target's: the weight of its first norm goes into q, k and v, because context rows do
/// not pass the drafter's own; the norms of heads get the size that queries and keys have without them.
Status warm_layer(DraftModel& model, const TrainTarget& target, int32_t layer, int32_t source,
                  const Tensor& rows) {
  const TargetLayer from(target, source);
  const ModelConfig& config = target.config;
  const std::string prefix = fmt::format("layers.{}.", layer);
  const std::string attn = prefix + "self_attn.";
  TensorMap& to = model.trainable;
  DSPARK_ASSIGN_OR_RETURN(const Tensor norm, from.get("attn_norm.weight", "input_layernorm.weight"));
  DSPARK_ASSIGN_OR_RETURN(const Tensor q,
                          from.get_rotary("attn_q.weight", "self_attn.q_proj.weight", config.n_heads));
  DSPARK_ASSIGN_OR_RETURN(const Tensor k,
                          from.get_rotary("attn_k.weight", "self_attn.k_proj.weight", config.n_kv_heads));
  DSPARK_ASSIGN_OR_RETURN(const Tensor v, from.get("attn_v.weight", "self_attn.v_proj.weight"));
  to[attn + "q_proj.weight"] = q * norm;
  to[attn + "k_proj.weight"] = k * norm;
  to[attn + "v_proj.weight"] = v * norm;
  const auto size_of = [&](const Tensor& weight) {
    return at::matmul(rows, weight.t()).square().mean().sqrt().item<double>();
  };
  if (config.qk_norm) {
    DSPARK_ASSIGN_OR_RETURN(to[attn + "q_norm.weight"],
                            from.get("attn_q_norm.weight", "self_attn.q_norm.weight"));
    DSPARK_ASSIGN_OR_RETURN(to[attn + "k_norm.weight"],
                            from.get("attn_k_norm.weight", "self_attn.k_norm.weight"));
  } else {
    to[attn + "q_norm.weight"] = at::full({config.head_dim}, size_of(to[attn + "q_proj.weight"]));
    to[attn + "k_norm.weight"] = at::full({config.head_dim}, size_of(to[attn + "k_proj.weight"]));
  }
  const struct {
    const char* gguf;
    const char* hf;
  } copied[] = {{"attn_output.weight", "self_attn.o_proj.weight"},
                {"ffn_norm.weight", "post_attention_layernorm.weight"},
                {"ffn_gate.weight", "mlp.gate_proj.weight"},
                {"ffn_up.weight", "mlp.up_proj.weight"},
                {"ffn_down.weight", "mlp.down_proj.weight"}};
  for (const auto& tensor : copied) {
    DSPARK_ASSIGN_OR_RETURN(to[prefix + tensor.hf], from.get(tensor.gguf, tensor.hf));
  }
  return ok_status();
}

/// The projections of Eagle3 read the embedding first: that half keeps its random numbers.
void prepend_embedding(DraftModel& model, const TensorMap& random) {
  for (const char* name : {"q_proj", "k_proj", "v_proj"}) {
    const std::string full = fmt::format("layers.0.self_attn.{}.weight", name);
    const Tensor own = random.find(full)->second.slice(1, 0, model.config.dim);
    model.trainable[full] = at::cat({own, model.trainable[full]}, 1);
  }
}

/// How large the numbers of the target's stream are at the last tapped layer of the samples.
Result<double> stream_size(const DraftConfig& config, SampleSource& source) {
  const auto n_taps = static_cast<int64_t>(source.info().target_layer_ids.size());
  TargetCacheSample sample;
  double size = 0;
  const int64_t n = std::min(kMeasuredSamples, source.n_samples());
  for (int64_t i = 0; i < n; ++i) {
    DSPARK_RETURN_IF_ERROR(source.read(i, sample));
    const Tensor rows =
        at::from_blob(sample.target_hidden_states.data(),
                      {static_cast<int64_t>(sample.n_tokens()), n_taps, config.dim}, at::kBFloat16);
    const Tensor last = rows.select(1, n_taps - 1).to(at::kFloat);
    // The median row: the first token's stream is often many times larger.
    size += last.square().mean(-1).sqrt().median().item<double>() / static_cast<double>(n);
  }
  return size;
}

/// The last tap, of MTP the hidden row, passes through the first matrix; what else it reads starts small. The
/// hidden row of MTP arrives normed; the layer wants the size of a stream.
Status pass_hidden_rows(DraftModel& model, const SampleSources& sources) {
  const DraftConfig& config = model.config;
  const bool mtp = config.kind == DraftKind::kMtp;
  Tensor& first = model.trainable[mtp ? "eh_proj.weight" : "fc.weight"];
  first.mul_(0.1);
  first.slice(1, first.size(1) - config.dim, first.size(1)).add_(at::eye(config.dim));
  if (!mtp) return ok_status();
  DSPARK_ASSIGN_OR_RETURN(const double size, stream_size(config, *sources.front()));
  first.mul_(size);
  return ok_status();
}

Status warm_start(DraftModel& model, const TrainTarget& target, const SampleSources& sources) {
  if (target.config.sandwich_norms) {
    return unsupported("--warm-start: layers of " + target.config.arch +
                       " targets do not fit the drafter's; use --no-warm-start");
  }
  const DraftConfig& config = model.config;
  DSPARK_ASSIGN_OR_RETURN(const Tensor rows, sample_rows(config, sources));
  const TensorMap random = model.trainable;
  for (int32_t layer = 0; layer < config.n_layers; ++layer) {
    const int32_t source = target.config.n_layers - config.n_layers + layer;
    if (source < 0) break;
    DSPARK_RETURN_IF_ERROR(warm_layer(model, target, layer, source, rows));
  }
  if (config.kind == DraftKind::kEagle3) prepend_embedding(model, random);
  DSPARK_RETURN_IF_ERROR(pass_hidden_rows(model, sources));
  model.trainable["norm.weight"] = target.final_norm.clone();
  return ok_status();
}

}  // namespace

Result<TrainTarget> open_train_target(const std::string& path) {
  TrainTarget target;
  DSPARK_ASSIGN_OR_RETURN(Checkpoint checkpoint, Checkpoint::open(path));
  target.checkpoint = std::make_shared<const Checkpoint>(std::move(checkpoint));
  DSPARK_ASSIGN_OR_RETURN(target.config, read_model_config(*target.checkpoint));
  const TensorNames names(*target.checkpoint);
  DSPARK_ASSIGN_OR_RETURN(target.embedding, named(*target.checkpoint, names.embedding()));
  target.head = target.embedding;
  if (!target.config.tied_head) {
    DSPARK_ASSIGN_OR_RETURN(target.head, named(*target.checkpoint, names.head()));
  }
  const std::vector<int64_t> expected = {target.config.vocab_size, target.config.dim};
  if (target.embedding.sizes() != expected || target.head.sizes() != expected) {
    return corrupt_data(path + ": embedding or head does not have the shape that the configuration promises");
  }
  DSPARK_ASSIGN_OR_RETURN(target.final_norm, named(*target.checkpoint, names.final_norm()));
  if (target.config.norm_plus_one) target.final_norm.add_(1.0);
  return target;
}

Result<TokenCounts> count_tokens(const SampleSources& sources, int32_t vocab_size) {
  TokenCounts counts;
  counts.all.resize(static_cast<size_t>(vocab_size));
  counts.supervised.resize(static_cast<size_t>(vocab_size));
  TargetCacheSample sample;
  for (const auto& source : sources) {
    for (int64_t i = 0; i < source->n_samples(); ++i) {
      source->read_tokens(i, sample);
      for (size_t t = 0; t < sample.n_tokens(); ++t) {
        const int32_t id = sample.input_ids[t];
        if (id < 0 || id >= vocab_size) {
          return corrupt_data(fmt::format("{}: sample {}: token {} is {}, the target has {} ids",
                                          source->name(), i, t, id, vocab_size));
        }
        ++counts.all[static_cast<size_t>(id)];
        counts.supervised[static_cast<size_t>(id)] += sample.loss_mask[t] != 0 ? 1 : 0;
      }
    }
  }
  return counts;
}

Result<DraftModel> new_draft_model(const TrainOptions& options, const TrainTarget& target,
                                   const SampleSources& sources) {
  DSPARK_ASSIGN_OR_RETURN(const TokenCounts counts, count_tokens(sources, target.config.vocab_size));
  DraftModel model;
  DSPARK_ASSIGN_OR_RETURN(model.config, new_config(options, target, sources.front()->info(), counts));
  model.config.embedding_scale = target.config.embedding_scale;
  model.config.final_softcap = target.config.final_softcap;
  const at::NoGradGuard no_grad;
  init_random(model, target, options.seed);
  if (options.warm_start) DSPARK_RETURN_IF_ERROR(warm_start(model, target, sources));
  for (auto& [name, tensor] : model.trainable) tensor = tensor.contiguous().set_requires_grad(true);
  return model;
}

}  // namespace dspark
