// Settings and weights of the drafter inside a DeepSeek V4 checkpoint.

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "draft/v4_drafter.h"

namespace dspark {
namespace {

using nlohmann::json;

constexpr int32_t kMaxBlock = 64;
constexpr int32_t kMaxStages = 16;

// A whole number of config.json in [0, max].
Result<int32_t> read_number(const json& config, const std::string& where, const char* key, int64_t max) {
  const auto it = config.find(key);
  if (it == config.end() || it->is_null())
    return invalid_argument(fmt::format("{}: '{}' is missing", where, key));
  if (!it->is_number_integer() || *it < 0 || *it > max) {
    return invalid_argument(fmt::format("{}: '{}' is {}, expected a whole number from 0 to {}", where, key,
                                        it->dump().substr(0, 60), max));
  }
  return it->get<int32_t>();
}

Result<std::vector<int32_t>> read_taps(const json& config, const std::string& where, int32_t n_layers) {
  const auto it = config.find("dspark_target_layer_ids");
  if (it == config.end() || !it->is_array() || it->empty()) {
    return invalid_argument(where + ": 'dspark_target_layer_ids' is not a list of layers");
  }
  std::vector<int32_t> taps;
  for (const json& id : *it) {
    if (!id.is_number_integer() || id < 0 || id >= n_layers || (!taps.empty() && id < taps.back())) {
      return invalid_argument(
          fmt::format("{}: 'dspark_target_layer_ids' holds {}, expected ascending layers of {}", where,
                      id.dump().substr(0, 60), n_layers));
    }
    taps.push_back(id.get<int32_t>() + 1);  // the stream behind the layer
  }
  return taps;
}

// Stages by their tensors; without tensors by what compress_ratios lists behind the target's layers.
// num_nextn_predict_layers counts something else (1 in a release with three stages).
int32_t count_stages(const ModelConfig& model, const Checkpoint& file) {
  int32_t n = 0;
  while (n < kMaxStages && file.find(fmt::format("mtp.{}.attn_norm.weight", n)) != nullptr) ++n;
  if (n > 0 || !file.tensors().empty()) return n;
  const auto ratios = file.config().find("compress_ratios");
  if (ratios == file.config().end() || !ratios->is_array()) return 0;
  const auto behind = static_cast<int64_t>(ratios->size()) - model.n_layers;
  return static_cast<int32_t>(std::clamp<int64_t>(behind, 0, kMaxStages));
}

std::string head_prefix(const DraftConfig& draft) {
  return fmt::format("mtp.{}.", draft.n_layers - 1);
}

void expect_draft(TensorFinder& finder, const ModelConfig& model, const DraftConfig& draft) {
  const std::string last = head_prefix(draft);
  finder.expect("mtp.0.main_proj.weight", {model.dim, static_cast<int64_t>(draft.taps.size()) * model.dim});
  finder.expect("mtp.0.main_norm.weight", {model.dim});
  for (int32_t i = 0; i < draft.n_layers; ++i)
    expect_v4_block(finder, model, {}, false, fmt::format("mtp.{}.", i));
  expect_hyper(finder, model, false, last + "hc_head", model.v4.n_streams, 1);
  finder.expect(last + "norm.weight", {model.dim});
  finder.expect(last + "markov_head.markov_w1.weight", {model.vocab_size, draft.markov_rank});
  finder.expect(last + "markov_head.markov_w2.weight", {model.vocab_size, draft.markov_rank});
  finder.expect(last + "confidence_head.proj.weight", {1, model.dim + draft.markov_rank});
}

Status load_weights(WeightReader& reader, const ModelConfig& model, const DraftConfig& draft,
                    V4DraftWeights& weights, BlockWeights& head) {
  const std::string last = head_prefix(draft);
  DSPARK_ASSIGN_OR_RETURN(weights.main_proj, reader.matrix("mtp.0.main_proj.weight"));
  weights.main_norm = reader.floats("mtp.0.main_norm.weight");
  weights.stages.resize(static_cast<size_t>(draft.n_layers));
  for (size_t i = 0; i < weights.stages.size(); ++i) {
    DSPARK_RETURN_IF_ERROR(
        load_v4_block(reader, model, {}, false, fmt::format("mtp.{}.", i), weights.stages[i]));
  }
  DSPARK_RETURN_IF_ERROR(load_hyper(reader, false, last + "hc_head", weights.head_hc));
  weights.final_norm = reader.floats(last + "norm.weight");
  head.markov_in = *reader.checkpoint().find(last + "markov_head.markov_w1.weight");
  head.markov_out_rows = *reader.checkpoint().find(last + "markov_head.markov_w2.weight");
  DSPARK_ASSIGN_OR_RETURN(head.markov_out, reader.matrix(last + "markov_head.markov_w2.weight"));
  head.confidence = reader.floats(last + "confidence_head.proj.weight");
  weights.packed_bytes = reader.packed_bytes();
  return ok_status();
}

int64_t cache_pages(const V4DrafterOptions& options) {
  const int64_t all_full = int64_t{options.max_sequences} * PageAllocator::pages_for(options.context_length);
  if (options.cache_tokens == 0) return all_full;
  return std::min(all_full, PageAllocator::pages_for(options.cache_tokens) + int64_t{options.max_sequences});
}

}  // namespace

Result<DraftConfig> read_v4_draft_config(const ModelConfig& model, const Checkpoint& file) {
  const json& config = file.config();
  const std::string where = file.path() + ": config.json";
  if (!config.is_object() || !config.contains("dspark_block_size")) {
    return not_found(where + ": 'dspark_block_size' is missing (no drafter inside)");
  }
  DraftConfig draft;
  draft.kind = DraftKind::kDSpark;
  draft.target_name = model.name;
  draft.dim = model.dim;
  draft.n_heads = model.n_heads;
  draft.n_kv_heads = 1;
  draft.head_dim = model.head_dim;
  draft.norm_eps = model.norm_eps;
  draft.window = model.v4.window;
  draft.vocab_size = draft.draft_vocab_size = model.vocab_size;
  draft.target_layers = model.n_layers;
  draft.context_length = model.context_length;
  draft.head = SequentialHead::kVanilla;
  draft.confidence = draft.confidence_with_markov = true;
  DSPARK_ASSIGN_OR_RETURN(draft.block_size, read_number(config, where, "dspark_block_size", kMaxBlock));
  DSPARK_ASSIGN_OR_RETURN(draft.markov_rank, read_number(config, where, "dspark_markov_rank", 1 << 16));
  DSPARK_ASSIGN_OR_RETURN(draft.mask_token_id,
                          read_number(config, where, "dspark_noise_token_id", model.vocab_size - 1));
  DSPARK_ASSIGN_OR_RETURN(draft.taps, read_taps(config, where, model.n_layers));
  if (draft.block_size < 1 || draft.markov_rank < 1) {
    return invalid_argument(where + ": 'dspark_block_size' and 'dspark_markov_rank' must be positive");
  }
  draft.n_layers = count_stages(model, file);
  if (draft.n_layers < 1) return not_found(where + ": no stage of a drafter (mtp.0) behind the layers");
  return draft;
}

std::vector<ExpectedTensor> v4_draft_tensors(const Checkpoint& file, const ModelConfig& model,
                                             const DraftConfig& draft) {
  TensorFinder finder(file);
  expect_draft(finder, model, draft);
  std::vector<ExpectedTensor> tensors;
  for (const auto& [name, shape] : finder.expected()) tensors.push_back({name, shape});
  return tensors;
}

Status check_v4_draft_tensors(const Checkpoint& file, const ModelConfig& model, const DraftConfig& draft) {
  TensorFinder finder(file);
  expect_draft(finder, model, draft);
  // Copies of the target's embedding and head; everything outside of mtp.* is the target's.
  const auto ignorable = [](std::string_view name) {
    return !name.starts_with("mtp.") || name.ends_with(".embed.weight") || name.ends_with(".head.weight");
  };
  return finder.finish("DeepSeek V4 drafter", ignorable);
}

bool has_bundled_drafter(const TargetModel& target) {
  return target.config().v4.n_streams > 0 &&
         target.checkpoint().format() == Checkpoint::Format::kSafetensors &&
         target.checkpoint().find("mtp.0.main_proj.weight") != nullptr;
}

Result<std::unique_ptr<V4Drafter>> V4Drafter::create(const TargetModel& target, ThreadPool& pool,
                                                     const V4DrafterOptions& options) {
  if (!has_bundled_drafter(target)) {
    return not_found(target.checkpoint().path() + ": no drafter inside (tensors mtp.*)");
  }
  if (options.max_sequences < 1 || options.context_length < 1 || options.cache_tokens < 0 ||
      options.shortlist < 0) {
    return invalid_argument(fmt::format("drafter: want sequences and tokens, found {} of {} with {} in all",
                                        options.max_sequences, options.context_length, options.cache_tokens));
  }
  const ModelConfig& model = target.config();
  DSPARK_ASSIGN_OR_RETURN(DraftConfig draft, read_v4_draft_config(model, target.checkpoint()));
  DSPARK_RETURN_IF_ERROR(check_v4_draft_tensors(target.checkpoint(), model, draft));
  V4DraftWeights weights;
  BlockWeights head;
  WeightReader reader(target.checkpoint(), pool, options.float_activations);
  DSPARK_RETURN_IF_ERROR(load_weights(reader, model, draft, weights, head));
  const SharedWeights shared = target.shared_weights();
  head.vocabulary.embedding = shared.embedding;
  head.vocabulary.shared_head = shared.head;
  const int64_t n_pages = cache_pages(options);
  if (n_pages > INT32_MAX)
    return invalid_argument("drafter: a cache for that many tokens has too many pages");
  std::vector<KvLayerShape> shapes(weights.stages.size(), v4_kv_shape(model, V4Attention::kSliding));
  DSPARK_ASSIGN_OR_RETURN(KvPool cache,
                          KvPool::create(options.kv_dtype, std::move(shapes), static_cast<int32_t>(n_pages)));
  return std::unique_ptr<V4Drafter>(new V4Drafter(target, std::move(draft), std::move(weights),
                                                  std::move(head), std::move(cache), pool, options));
}

}  // namespace dspark
