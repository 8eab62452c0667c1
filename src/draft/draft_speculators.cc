// speculators folders: the draft layers' config nested in transformer_layer_config, layers numbered as
// indices of the hidden-state tuple (0 = embeddings), which is the numbering of taps. Keys:
// docs/draft_formats.md.

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "draft/draft_readers.h"
#include "formats/error_text.h"

namespace dspark {
namespace {

using nlohmann::json;

constexpr int32_t kMaxBlock = 256;

/// "dspark" or "dflash"; older files name only an architecture.
std::string algorithm(JsonReader& in) {
  if (in.has("speculators_model_type")) return in.text("speculators_model_type", "");
  const std::string name = first_architecture(in.object());
  if (name == "DSparkSpeculator" || name == "DSparkDraftModel") return "dspark";
  if (name == "DFlashSpeculator" || name == "DFlashDraftModel") return "dflash";
  return name;
}

std::string verifier_name(const json& root) {
  const json::json_pointer place("/speculators_config/verifier/name_or_path");
  const bool there = root.contains(place) && root.at(place).is_string();
  return there ? root.at(place).get<std::string>() : "";
}

/// Draft layers: always of the Qwen3 class.
Status read_layers(const json& object, const std::string& place, DraftConfig& config) {
  JsonReader in(object, place);
  const std::string type = in.text("model_type", "qwen3");
  if (type != "qwen3") {
    in.fail(unsupported(fmt::format("{}: 'model_type' is {} (supported: qwen3)", place, in_quotes(type))));
  }
  read_json_backbone(in, true, config);
  return in.status();
}

void read_block(JsonReader& in, DraftConfig& config) {
  if (!in.has("sample_from_anchor")) {
    in.fail(
        invalid_argument(in.where() +
                         ": 'sample_from_anchor' is missing; engines disagree about what that means, and the "
                         "wrong guess shifts every draft by one: write true (slot 0 predicts) or false into "
                         "config.json"));
  }
  config.anchor_predicts = in.flag("sample_from_anchor", true);
  config.block_size = whole_number(in, "block_size", config.anchor_predicts ? 1 : 2, kMaxBlock);
  config.mask_token_id = whole_number(in, "mask_token_id", 0, config.vocab_size - 1);
  config.draft_vocab_size = whole_number(in, "draft_vocab_size", 1, config.vocab_size);
  read_json_taps(in, "aux_hidden_state_layer_ids", 0, 0, config);
  if (whole_number(in, "target_hidden_size", 1, ConfigLimits::kDim, config.dim) != config.dim) {
    in.fail(unsupported(fmt::format("{}: 'target_hidden_size' differs from the draft's hidden_size {}",
                                    in.where(), config.dim)));
  }
  const bool free_inside = in.flag("sliding_window_non_causal", false);
  config.causal = config.window > 0 && !free_inside;
}

}  // namespace

Result<DraftDescription> read_speculators_draft(const Checkpoint& file) {
  const json& root = file.config();
  JsonReader in(root, config_place(file));
  DraftDescription draft;
  DraftConfig& config = draft.config;
  config.source = DraftSource::kSpeculators;
  config.target_name = verifier_name(root);
  const std::string name = algorithm(in);
  if (!in.status().ok()) return in.status();
  if (name != "dspark" && name != "dflash") {
    return unsupported(fmt::format("{}: 'speculators_model_type' is {} (supported: dspark, dflash)",
                                   config_place(file), in_quotes(name)));
  }
  const auto layers = root.find("transformer_layer_config");
  if (layers == root.end() || !layers->is_object()) {
    return invalid_argument(config_place(file) + ": the object 'transformer_layer_config' is missing");
  }
  DSPARK_RETURN_IF_ERROR(read_layers(*layers, config_place(file) + ": transformer_layer_config", config));
  read_block(in, config);
  if (name == "dspark") read_json_heads(in, false, config);
  config.kind = config.markov_rank > 0 ? DraftKind::kDSpark : DraftKind::kDFlash;
  if (!in.status().ok()) return in.status();
  DSPARK_RETURN_IF_ERROR(read_folder_vocab(file, draft));
  return draft;
}

}  // namespace dspark
