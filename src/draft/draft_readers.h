#pragma once
// Private to the room: one reader per source format, and what they share.

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "draft/draft_config.h"
#include "draft/draft_tensors.h"
#include "formats/checkpoint.h"
#include "models/config_readers.h"

namespace dspark {

/// What a reader found out before any weight is looked at: sizes within ConfigLimits, ids within the
/// vocabulary.
struct DraftDescription {
  DraftConfig config;
  DraftNaming naming = DraftNaming::kDeepSpec;
  std::vector<std::string> consumed;  // file names of tensors that went into the configuration (d2t, ...)
};

Result<DraftDescription> read_deepspec_draft(const Checkpoint& file);
Result<DraftDescription> read_speculators_draft(const Checkpoint& file);
Result<DraftDescription> read_gguf_draft(const Checkpoint& file);

/// "PATH: config.json", the start of every message about a key.
std::string config_place(const Checkpoint& file);

/// Architecture names of a config.json this room reads or knows to refuse; empty without any.
std::string first_architecture(const nlohmann::json& config);

// ---- config.json (draft_json.cc) ----

/// The key's whole number in [low, high]; a missing key takes the fallback or is an error.
int32_t whole_number(JsonReader& in, const char* key, int32_t low, int32_t high,
                     std::optional<int32_t> fallback = std::nullopt);

/// Layers, widths, heads, activation, rotary embedding and window of the draft layers, for the Qwen3 class or
/// (config.backbone) the Gemma 4 class. `sliding_rope`: which entry of a nested rope_parameters counts.
void read_json_backbone(JsonReader& in, bool sliding_rope, DraftConfig& config);

/// The sequential head and the confidence head. `required`: keys have no defaults.
void read_json_heads(JsonReader& in, bool required, DraftConfig& config);

/// The list under `key` plus `shift` as taps: ascending, distinct, from 0 up. `lowest`: smallest tap allowed.
void read_json_taps(JsonReader& in, const char* key, int32_t shift, int32_t lowest, DraftConfig& config);

/// Slots of short blocks ("short_block_size", an extension of ours), behind block_size and anchor_predicts.
void read_json_short_block(JsonReader& in, DraftConfig& config);

// ---- vocabulary (draft_vocab.cc) ----

/// Reads draft_vocab_size rows of `d2t` (and `t2d`, if the file has it) into config.d2t. d2t may hold offsets
/// (target id = row + value) or target ids; `offsets_expected` says which of them the format means. The
/// other form is taken when only that one makes sense; when both do and t2d does not decide, it is an error.
/// errors: corrupt_data, invalid_argument.
Status read_d2t(const Checkpoint& file, const TensorView& d2t, const TensorView* t2d, bool offsets_expected,
                DraftConfig& config);

/// Finds d2t and t2d in a safetensors folder, or checks that a full vocabulary has neither.
Status read_folder_vocab(const Checkpoint& file, DraftDescription& draft);

// ---- checks that all formats need ----

/// Head counts, even heads, mask id, window. `place` starts the message.
Status check_draft_sizes(const DraftConfig& config, const std::string& place);
/// Taps ascending and distinct, within the target's layers where they are known. `shown_shift`: what to add
/// to a tap to get the file's own number.
Status check_draft_taps(const DraftConfig& config, int32_t shown_shift, const std::string& place);

}  // namespace dspark
