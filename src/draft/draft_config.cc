#include "draft/draft_config.h"

#include <fmt/format.h>

namespace dspark {

Status check_short_block(const DraftConfig& config, const std::string& place) {
  if (config.short_block == 0) return ok_status();
  if (!config.has_blocks()) {
    return invalid_argument(
        fmt::format("{}: drafters of kind {} have no blocks", place, draft_kind_name(config.kind)));
  }
  const int32_t least = config.anchor_predicts ? 1 : 2;
  if (config.short_block >= least && config.short_block <= config.block_size) return ok_status();
  return invalid_argument(fmt::format("{}: found {} slots, expected 0 (no short blocks) or {} to {}", place,
                                      config.short_block, least, config.block_size));
}

const char* draft_kind_name(DraftKind kind) {
  switch (kind) {
    case DraftKind::kDSpark:
      return "dspark";
    case DraftKind::kDFlash:
      return "dflash";
    case DraftKind::kEagle3:
      return "eagle3";
    case DraftKind::kMtp:
      return "mtp";
  }
  return "";
}

const char* sequential_head_name(SequentialHead head) {
  switch (head) {
    case SequentialHead::kNone:
      return "none";
    case SequentialHead::kVanilla:
      return "vanilla";
    case SequentialHead::kGated:
      return "gated";
    case SequentialHead::kRnn:
      return "rnn";
  }
  return "";
}

const char* draft_source_name(DraftSource source) {
  switch (source) {
    case DraftSource::kDeepSpec:
      return "DeepSpec";
    case DraftSource::kSpeculators:
      return "speculators";
    case DraftSource::kLlamaCppGguf:
      return "GGUF (dflash)";
    case DraftSource::kIkLlamaGguf:
      return "GGUF (dflash-draft)";
  }
  return "";
}

}  // namespace dspark
