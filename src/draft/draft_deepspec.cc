// DeepSpec folders: config.json with everything on top level, tensors without a prefix. Keys and extensions:
// docs/draft_formats.md.

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "draft/draft_readers.h"
#include "formats/error_text.h"

namespace dspark {
namespace {

using nlohmann::json;

constexpr int32_t kMaxBlock = 256;
constexpr size_t kEagle3Taps = 5;

struct Architecture {
  const char* name;
  DraftKind kind;  // kDSpark stands for DFlash too: the Markov rank tells
  DraftBackbone backbone;
};

constexpr Architecture kArchitectures[] = {
    {"Qwen3DSparkModel", DraftKind::kDSpark, DraftBackbone::kQwen3},
    {"Gemma4DSparkModel", DraftKind::kDSpark, DraftBackbone::kGemma4},
    {"Qwen3Eagle3Model", DraftKind::kEagle3, DraftBackbone::kQwen3},
    {"Gemma4Eagle3Model", DraftKind::kEagle3, DraftBackbone::kGemma4},
    {"Qwen3MTPModel", DraftKind::kMtp, DraftBackbone::kQwen3},
    {"DFlashDraftModel", DraftKind::kDFlash, DraftBackbone::kQwen3},
};

void check_model_type(JsonReader& in, DraftBackbone backbone) {
  const std::string type = in.text("model_type", "");
  const bool gemma = backbone == DraftBackbone::kGemma4;
  if (type.empty() || (gemma ? type == "gemma4_text" || type == "gemma4_unified_text" : type == "qwen3"))
    return;
  in.fail(unsupported(fmt::format("{}: 'model_type' is {}, expected {} for this architecture", in.where(),
                                  in_quotes(type), gemma ? "gemma4_text" : "qwen3")));
}

/// Everything about a pass over a block: its length, the mask, the layers tapped.
void read_block(JsonReader& in, DraftConfig& config) {
  config.block_size = whole_number(in, "block_size", 1, kMaxBlock);
  config.mask_token_id = whole_number(in, "mask_token_id", 0, config.vocab_size - 1);
  config.anchor_predicts = in.flag("sample_from_anchor", true);
  read_json_short_block(in, config);
  config.causal = in.flag("causal", false);
  if (in.has("draft_sliding_window")) config.window = in.size("draft_sliding_window", ConfigLimits::kContext);
  read_json_taps(in, "target_layer_ids", 1, 0, config);
}

void read_eagle3(JsonReader& in, DraftConfig& config) {
  config.block_size = whole_number(in, "ttt_length", 1, kMaxBlock);
  read_json_taps(in, "target_layer_ids", 1, 1, config);
  if (in.status().ok() && config.taps.size() != kEagle3Taps) {
    in.fail(invalid_argument(fmt::format("{}: 'target_layer_ids' has {} layers, expected {}", in.where(),
                                         config.taps.size(), kEagle3Taps)));
  }
}

/// Drafters of the original DFlash: mask and layers nested, drafts from slot 1 on.
void read_nested_dflash(JsonReader& in, DraftConfig& config) {
  config.anchor_predicts = false;
  if (!in.has("dflash_config") || !in.object().at("dflash_config").is_object()) {
    return in.fail(invalid_argument(in.where() + ": the object 'dflash_config' is missing"));
  }
  const json& object = in.object().at("dflash_config");
  JsonReader nested(object, in.where() + ": dflash_config");
  for (const auto& [key, value] : object.items()) {
    constexpr std::string_view kKnown[] = {"mask_token_id", "target_layer_ids", "block_size", "num_anchors",
                                           "loss_decay_gamma"};
    if (std::find(std::begin(kKnown), std::end(kKnown), key) == std::end(kKnown)) {
      nested.fail(unsupported(fmt::format("{}: unknown key {}", nested.where(), in_quotes(key))));
    }
  }
  config.block_size = whole_number(object.contains("block_size") ? nested : in, "block_size", 2, kMaxBlock);
  config.mask_token_id = whole_number(nested, "mask_token_id", 0, config.vocab_size - 1);
  read_json_taps(nested, "target_layer_ids", 1, 0, config);
  if (!nested.status().ok()) in.fail(nested.status());
  read_json_short_block(in, config);
}

void read_parts(JsonReader& in, const Architecture& architecture, DraftConfig& config) {
  switch (architecture.kind) {
    case DraftKind::kDSpark:
      read_block(in, config);
      read_json_heads(in, true, config);
      if (config.markov_rank == 0) config.kind = DraftKind::kDFlash;
      if (!config.anchor_predicts && config.block_size < 2) {
        in.fail(
            invalid_argument(in.where() + ": 'block_size' is 1 and 'sample_from_anchor' false: no drafts"));
      }
      return;
    case DraftKind::kDFlash:
      return read_nested_dflash(in, config);
    case DraftKind::kEagle3:
      return read_eagle3(in, config);
    case DraftKind::kMtp:
      config.block_size = 1;
      config.taps = {config.target_layers};
      return;
  }
}

}  // namespace

Result<DraftDescription> read_deepspec_draft(const Checkpoint& file) {
  const json& root = file.config();
  const std::string name = first_architecture(root);
  const auto* architecture = std::find_if(std::begin(kArchitectures), std::end(kArchitectures),
                                          [&](const Architecture& a) { return name == a.name; });
  if (architecture == std::end(kArchitectures)) {
    return unsupported(fmt::format("{}: 'architectures' is {}, no drafter this program knows",
                                   config_place(file), in_quotes(name)));
  }
  DraftDescription draft;
  DraftConfig& config = draft.config;
  config.source = DraftSource::kDeepSpec;
  config.kind = architecture->kind;
  config.backbone = architecture->backbone;
  JsonReader in(root, config_place(file));
  config.target_name = in.text("target_model_name_or_path", "");
  check_model_type(in, config.backbone);
  config.target_layers = in.size("num_target_layers", ConfigLimits::kLayers);
  read_json_backbone(in, false, config);
  if (!in.status().ok()) return in.status();
  if (config.window > 0 && architecture->kind != DraftKind::kDFlash) {
    return unsupported(config_place(file) +
                       ": 'layer_types' holds sliding_attention, expected full_attention");
  }
  if (config.n_layers != 1 && (config.kind == DraftKind::kEagle3 || config.kind == DraftKind::kMtp)) {
    return unsupported(fmt::format("{}: 'num_hidden_layers' is {}, expected 1 for {}", config_place(file),
                                   config.n_layers, name));
  }
  config.draft_vocab_size = whole_number(in, "draft_vocab_size", 1, config.vocab_size, config.vocab_size);
  read_parts(in, *architecture, config);
  if (!in.status().ok()) return in.status();
  DSPARK_RETURN_IF_ERROR(read_folder_vocab(file, draft));
  return draft;
}

}  // namespace dspark
