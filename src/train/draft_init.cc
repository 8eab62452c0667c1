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
#include "train/step_scale.h"
#include "train/warm_start.h"

namespace dspark {
namespace {

using at::Tensor;

constexpr double kInitDeviation = 0.02;  // of random weights

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

/// The base behind a rotary table, whose frequency j is base^(-2 j / head_dim). The last frequency gives it
/// to the rounding of one float, the second one with an error that many times larger; but scaled tables
/// stretch the last ones.
double rope_base(const RopeTable& rope, int32_t head_dim) {
  if (rope.inv_freq.size() < 2 || rope.inv_freq[1] <= 0) return 10000.0;
  const auto base_of = [&](size_t j) {
    const double exponent = -0.5 * head_dim / static_cast<double>(j);
    return std::round(std::pow(static_cast<double>(rope.inv_freq[j]), exponent));
  };
  const size_t last = rope.inv_freq.size() - 1;
  if (rope.inv_freq[last] <= 0) return base_of(1);
  const double base = base_of(last);
  const double second = std::pow(base, -2.0 / head_dim);
  return std::abs(second / rope.inv_freq[1] - 1.0) < 1e-6 ? base : base_of(1);
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
  config.attention_bias = model.qkv_bias;
  config.activation = model.activation;
  // Layers of the target's bring the scale that their queries were made for.
  config.attention_scale =
      options.warm_start ? model.attention_scale : 1.0f / std::sqrt(static_cast<float>(model.head_dim));
  config.rope = draft_rope(model);
  config.rope.angles = {};
  config.rope_theta = rope_base(config.rope, model.head_dim);
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

/// Rows of `matrix` on the first `rank` principal directions of the tokens that the data has, every column
/// scaled to their unit deviation. Of all tokens the first directions would tell scripts and rare ids apart
/// (Qwen2.5 has 150,000, of which a corpus of code and mathematics uses a tenth).
Tensor principal_rows(const Tensor& matrix, const TokenCounts& counts, int64_t rank) {
  const Tensor seen = at::tensor(counts.all, at::kLong).to(at::kFloat).sqrt().unsqueeze(1);
  const Tensor weight = seen / seen.sum().clamp_min(1.0);
  const Tensor centred = matrix - (matrix * weight).sum(0, true);
  const auto [values, vectors] = at::linalg_eigh(at::matmul(centred.t(), centred * weight));
  const int64_t width = matrix.size(1);
  const int64_t kept = std::min(rank, width);
  const Tensor rows = at::matmul(centred, vectors.slice(1, width - kept, width).flip({1}));
  Tensor out = at::zeros({matrix.size(0), rank});
  out.slice(1, 0, kept).copy_(rows / (rows.square() * weight).sum(0, true).sqrt().clamp_min(1e-6));
  return out;
}

void init_random(DraftModel& model, const TrainTarget& target, const TokenCounts& counts, uint64_t seed) {
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
      tensor = principal_rows(target.embedding, counts, shape[1]);
    } else {
      tensor = at::randn(shape, generator) * kInitDeviation;
    }
    model.trainable[name] = tensor.contiguous();
  }
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
  init_random(model, target, counts, options.seed);
  if (options.step_scale && model.trainable.contains("fc.weight")) {
    // All columns say equally much: large ones are nearly the same in every row.
    DSPARK_ASSIGN_OR_RETURN(const Tensor scale, feature_scale(*sources.front()));
    model.trainable["fc.weight"].div_(scale);
  }
  if (options.warm_start) DSPARK_RETURN_IF_ERROR(warm_start(model, target, sources));
  for (auto& [name, tensor] : model.trainable) tensor = tensor.contiguous().set_requires_grad(true);
  return model;
}

}  // namespace dspark
