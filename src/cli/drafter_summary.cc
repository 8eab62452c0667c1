#include "cli/drafter_summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

namespace dspark::cli {
namespace {

using nlohmann::ordered_json;

struct Part {
  const char* name;
  int64_t n_parameters = 0;
  size_t n_bytes = 0;
};

/// Parameters by what they are for. Embedding and head are mostly copies of the target's.
std::vector<Part> parts_of(const DraftCheckpoint& draft) {
  Part backbone{"backbone"}, sequential{"sequential head"}, confidence{"confidence head"},
      embedding{"embedding"}, head{"head"};
  for (const auto& [name, tensor] : draft.tensors) {
    Part& part = name.starts_with("markov_head.")       ? sequential
                 : name.starts_with("confidence_head.") ? confidence
                 : name == "embed_tokens.weight"        ? embedding
                 : name == "lm_head.weight"             ? head
                                                        : backbone;
    part.n_parameters += tensor.n_elements();
    part.n_bytes += tensor.n_bytes;
  }
  std::vector<Part> parts = {backbone, sequential, confidence, embedding, head};
  std::erase_if(parts, [](const Part& part) { return part.n_parameters == 0; });
  return parts;
}

/// Taps in the numbering of DeepSpec's target_layer_ids: -1 is the embedding.
std::vector<int32_t> layer_ids(const DraftConfig& config) {
  std::vector<int32_t> ids = config.taps;
  for (int32_t& id : ids) --id;
  return ids;
}

std::string taps_text(const DraftConfig& config) {
  std::vector<std::string> places;
  for (const int32_t id : layer_ids(config)) {
    places.push_back(id < 0 ? "the embedding" : fmt::format("layer {}", id));
  }
  return fmt::format("target_layer_ids {}: after {}, counted from 0", fmt::join(layer_ids(config), ", "),
                     fmt::join(places, ", "));
}

std::string block_text(const DraftConfig& c) {
  if (c.kind == DraftKind::kMtp) return "1 draft per round";
  if (c.kind == DraftKind::kEagle3)
    return fmt::format("trained for {} drafts per round, one pass each", c.n_drafts());
  std::string text =
      fmt::format("{} slots, {} drafts per round (slot 0 {}), mask token {}", c.block_size, c.n_drafts(),
                  c.anchor_predicts ? "predicts" : "is the anchor only", c.mask_token_id);
  if (c.short_block > 0) {
    text += fmt::format(", short blocks of {} slots for up to {} drafts", c.short_block, c.n_short_drafts());
  }
  if (c.causal) text += ", causal inside the block";
  if (c.window > 0) text += fmt::format(", window {}", c.window);
  return text;
}

std::string head_text(const DraftConfig& c) {
  if (c.head == SequentialHead::kNone) return "none";
  return fmt::format("{}, rank {}", sequential_head_name(c.head), c.markov_rank);
}

std::string confidence_text(const DraftConfig& c) {
  if (!c.confidence) return "no head";
  return c.confidence_with_markov ? "head over hidden and Markov row" : "head over the hidden row";
}

double vocab_share(const DraftConfig& c) {
  return static_cast<double>(c.draft_vocab_size) / static_cast<double>(std::max(1, c.vocab_size));
}

std::string vocab_text(const DraftConfig& c) {
  if (!c.reduced_vocab()) return fmt::format("{} (full)", c.vocab_size);
  return fmt::format("{} of {} ({:.1f} %)", c.draft_vocab_size, c.vocab_size, 100.0 * vocab_share(c));
}

std::string backbone_text(const DraftConfig& c) {
  std::string text =
      fmt::format("{} {} layer{}, width {}, MLP {}, {} heads and {} key/value heads of {}", c.n_layers,
                  c.backbone == DraftBackbone::kGemma4 ? "Gemma 4" : "Qwen3", c.n_layers == 1 ? "" : "s",
                  c.dim, c.ffn_dim, c.n_heads, c.n_kv_heads, c.head_dim);
  if (!c.qk_norm) text += ", no q and k norms";
  if (c.attention_bias) text += ", attention biases";
  return text;
}

std::string source_text(const DraftConfig& c) {
  std::string text = fmt::format("{}, read from {}", draft_kind_name(c.kind), draft_source_name(c.source));
  if (!c.target_name.empty()) text += fmt::format(", made for {}", c.target_name);
  if (c.target_layers > 0) text += fmt::format(", for a target of {} layers", c.target_layers);
  return text;
}

const char* owner(const DraftCheckpoint& draft, const char* tensor) {
  return draft.find(tensor) != nullptr ? "its own" : "the target's";
}

}  // namespace

std::string drafter_text(const DraftCheckpoint& draft) {
  const DraftConfig& c = draft.config;
  std::vector<std::pair<const char*, std::string>> lines = {
      {"kind", source_text(c)},
      {"block", block_text(c)},
      {"sequential head", head_text(c)},
      {"confidence", confidence_text(c)},
      {"layers tapped", taps_text(c)},
      {"vocabulary", vocab_text(c)},
      {"backbone", backbone_text(c)},
      {"embedding", owner(draft, "embed_tokens.weight")},
      {"head", owner(draft, "lm_head.weight")},
  };
  int64_t n_parameters = 0;
  size_t n_bytes = 0;
  std::vector<std::string> parts;
  for (const Part& part : parts_of(draft)) {
    n_parameters += part.n_parameters;
    n_bytes += part.n_bytes;
    parts.push_back(fmt::format("{} {}", part.name, part.n_parameters));
  }
  lines.emplace_back("parameters", fmt::format("{}: {}", n_parameters, fmt::join(parts, ", ")));
  lines.emplace_back("bytes", fmt::format("{}", n_bytes));
  std::string text = "drafter\n";
  for (const auto& [label, value] : lines) text += fmt::format("  {:<16} {}\n", label, value);
  return text;
}

ordered_json drafter_json(const DraftCheckpoint& draft) {
  const DraftConfig& c = draft.config;
  ordered_json out = {{"kind", draft_kind_name(c.kind)},
                      {"source", draft_source_name(c.source)},
                      {"target_name", c.target_name},
                      {"target_layers", c.target_layers},
                      {"block_size", c.block_size},
                      {"short_block_size", c.short_block},
                      {"drafts_per_round", c.n_drafts()},
                      {"anchor_predicts", c.anchor_predicts},
                      {"mask_token_id", c.mask_token_id},
                      {"sequential_head", sequential_head_name(c.head)},
                      {"markov_rank", c.markov_rank},
                      {"confidence", c.confidence},
                      {"confidence_with_markov", c.confidence_with_markov},
                      {"target_layer_ids", layer_ids(c)},
                      {"vocab_size", c.vocab_size},
                      {"draft_vocab_size", c.draft_vocab_size},
                      {"vocab_share", vocab_share(c)},
                      {"backbone", c.backbone == DraftBackbone::kGemma4 ? "gemma4" : "qwen3"},
                      {"layers", c.n_layers},
                      {"dim", c.dim},
                      {"ffn_dim", c.ffn_dim},
                      {"heads", c.n_heads},
                      {"kv_heads", c.n_kv_heads},
                      {"head_dim", c.head_dim},
                      {"qk_norm", c.qk_norm},
                      {"causal", c.causal},
                      {"window", c.window},
                      {"own_embedding", draft.find("embed_tokens.weight") != nullptr},
                      {"own_head", draft.find("lm_head.weight") != nullptr}};
  ordered_json& parts = out["parts"] = ordered_json::object();
  for (const Part& part : parts_of(draft)) {
    parts[part.name] = {{"parameters", part.n_parameters}, {"bytes", part.n_bytes}};
  }
  return out;
}

}  // namespace dspark::cli
