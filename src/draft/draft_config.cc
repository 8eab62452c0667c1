#include "draft/draft_config.h"

namespace dspark {

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
