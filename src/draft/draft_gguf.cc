// GGUF drafters: llama.cpp's architecture "dflash" (and "dspark-eagle3", "dspark-mtp", ours, with the same
// keys), ik_llama.cpp's "dflash-draft". Keys, names and traps: docs/draft_formats.md.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string_view>

#include "draft/draft_readers.h"
#include "formats/error_text.h"
#include "tensor/quantize.h"

namespace dspark {
namespace {

constexpr int32_t kMaxBlock = 256;
constexpr int64_t kIkMaxTaps = 8;
constexpr size_t kEagle3Taps = 5;
constexpr double kStandsStill = 1e20;  // divisor of a pair that does not rotate; files say 1e30

// Behind "<arch>.". What is not here is an error: a drafter that needs it would be read wrong.
constexpr std::string_view kBackboneKeys[] = {"block_count",
                                              "context_length",
                                              "embedding_length",
                                              "feed_forward_length",
                                              "vocab_size",
                                              "attention.head_count",
                                              "attention.head_count_kv",
                                              "attention.key_length",
                                              "attention.value_length",
                                              "attention.layer_norm_rms_epsilon",
                                              "attention.causal",
                                              "attention.sliding_window",
                                              "attention.sliding_window_pattern",
                                              "attention.scale",
                                              "attention.value_scale",
                                              "logit_scale",
                                              "embedding_scale",
                                              "final_logit_softcapping",
                                              "hidden_activation",
                                              "rope.freq_base",
                                              "rope.dimension_count",
                                              "rope.dimension_sections",
                                              "rope.scaling.type",
                                              "rope.scaling.attn_factor"};
constexpr std::string_view kLlamaKeys[] = {"block_size", "target_layers", "sample_from_anchor",
                                           "has_confidence_head"};
constexpr std::string_view kIkKeys[] = {"dflash.block_size",           "dflash.mask_token_id",
                                        "dflash.target_layer_ids",     "dflash.n_target_features",
                                        "dflash.backbone_rotary_base", "dflash.laguna"};

template <size_t n>
bool contains(const std::string_view (&keys)[n], std::string_view key) {
  return std::find(std::begin(keys), std::end(keys), key) != std::end(keys);
}

/// A GGUF drafter while it is read: metadata under its architecture, questions about tensors.
class GgufDraft {
 public:
  GgufDraft(const Checkpoint& file, const std::string& arch)
      : file_(file), arch_(arch), ik_(arch == "dflash-draft"), meta_(file, arch) {}

  Result<DraftDescription> read() {
    draft_.naming = ik_ ? DraftNaming::kIkLlama : DraftNaming::kLlamaCpp;
    c_.source = ik_ ? DraftSource::kIkLlamaGguf : DraftSource::kLlamaCppGguf;
    c_.kind = arch_ == "dspark-eagle3" ? DraftKind::kEagle3
              : arch_ == "dspark-mtp"  ? DraftKind::kMtp
                                       : DraftKind::kDSpark;
    DSPARK_RETURN_IF_ERROR(check_keys());
    read_sizes();
    read_options();
    if (!meta_.status().ok()) return meta_.status();
    DSPARK_RETURN_IF_ERROR(check_draft_sizes(c_, file_.path()));
    read_rope();
    read_window();
    read_head();
    read_vocab();
    if (meta_.status().ok()) read_block();
    if (!meta_.status().ok()) return meta_.status();
    if (const TensorView* d2t = file_.find("d2t")) {
      DSPARK_RETURN_IF_ERROR(read_d2t(file_, *d2t, nullptr, false, c_));
      draft_.consumed.push_back("d2t");
    }
    return std::move(draft_);
  }

 private:
  bool has_tensor(const std::string& name) const { return file_.find(name) != nullptr; }
  std::string place(std::string_view key) const {
    return fmt::format("{}: {}", file_.path(), meta_.key_name(key));
  }

  Status check_keys() const {
    const std::string prefix = arch_ + ".";
    for (const auto& [key, value] : file_.metadata()) {
      if (!key.starts_with(prefix)) continue;
      const std::string_view name = std::string_view(key).substr(prefix.size());
      if (contains(kBackboneKeys, name)) continue;
      if (ik_ ? contains(kIkKeys, name) : contains(kLlamaKeys, name)) continue;
      const char* why = name.starts_with("hyper_connection.") ? " (DeepSeek-V4 drafter)"
                        : name.starts_with("selector_") || name.starts_with("conv_") ? " (DFlash2 drafter)"
                                                                                     : "";
      return unsupported(fmt::format("{}: key {} is not understood{}", file_.path(), in_quotes(key), why));
    }
    return ok_status();
  }

  /// Refuses an option that is there with another value than the one that changes nothing.
  void expect_number(std::string_view key, double neutral) {
    if (!meta_.has(key)) return;
    const double value = meta_.number(key);
    if (value != neutral) {
      meta_.fail(unsupported(fmt::format("{} is {}, only {} is supported", place(key), value, neutral)));
    }
  }

  bool flag(std::string_view key, bool fallback) {
    if (!meta_.has(key)) return fallback;
    const std::optional<bool> value = file_.meta_bool(meta_.key_name(key));
    if (!value) meta_.fail(invalid_argument(place(key) + " is not true or false"));
    return value.value_or(fallback);
  }

  void read_sizes() {
    c_.n_layers = meta_.size("block_count", ConfigLimits::kLayers);
    c_.dim = meta_.size("embedding_length", ConfigLimits::kDim);
    c_.ffn_dim = meta_.size("feed_forward_length", ConfigLimits::kDim);
    c_.context_length = meta_.size("context_length", ConfigLimits::kContext);
    c_.n_heads = meta_.size("attention.head_count", ConfigLimits::kHeads);
    c_.n_kv_heads = meta_.size("attention.head_count_kv", ConfigLimits::kHeads, c_.n_heads);
    c_.head_dim = meta_.size("attention.key_length", ConfigLimits::kHeadDim);
    c_.norm_eps = static_cast<float>(meta_.number("attention.layer_norm_rms_epsilon"));
    if (!(c_.norm_eps >= 0.0f)) {
      meta_.fail(invalid_argument(place("attention.layer_norm_rms_epsilon") + " is negative"));
    }
    expect_number("attention.value_length", c_.head_dim);
    expect_number("rope.dimension_count", c_.head_dim);
    const bool single = c_.kind == DraftKind::kEagle3 || c_.kind == DraftKind::kMtp;
    if (single) expect_number("block_count", 1);
  }

  /// What makes a Gemma 4 layer, and the numbers that a graph multiplies in.
  void read_options() {
    c_.sandwich_norms = !ik_ && has_tensor("blk.0.post_ffw_norm.weight");
    c_.backbone = c_.sandwich_norms ? DraftBackbone::kGemma4 : DraftBackbone::kQwen3;
    c_.k_eq_v = c_.sandwich_norms && !has_tensor("blk.0.attn_v.weight");
    c_.qk_norm = has_tensor("blk.0.attn_q_norm.weight") || has_tensor("blk.0.attn_k_norm.weight");
    c_.attention_bias = has_tensor("blk.0.attn_q.bias");
    for (const char* key : {"attention.scale", "embedding_scale", "hidden_activation"}) {
      if (c_.sandwich_norms && !meta_.has(key)) {
        meta_.fail(invalid_argument(
            fmt::format("{}: key '{}' is missing, and a drafter with norms behind its layers needs it",
                        file_.path(), meta_.key_name(key))));
      }
    }
    const float usual_scale = 1.0f / std::sqrt(static_cast<float>(c_.head_dim));
    c_.attention_scale = static_cast<float>(meta_.number("attention.scale", usual_scale));
    c_.embedding_scale = static_cast<float>(meta_.number("embedding_scale", 1.0));
    c_.final_softcap = static_cast<float>(meta_.number("final_logit_softcapping", 0.0));
    if (!(c_.final_softcap >= 0.0f)) {
      meta_.fail(invalid_argument(place("final_logit_softcapping") + " is negative"));
    }
    expect_number("attention.value_scale", 1.0);
    expect_number("logit_scale", 1.0);
    const std::string activation = meta_.text("hidden_activation", "silu");
    c_.activation = activation == "silu" ? GateActivation::kSilu : GateActivation::kGeluTanh;
    if (activation != "silu" && activation != "gelu_pytorch_tanh") {
      meta_.fail(unsupported(fmt::format("{} is {} (supported: silu, gelu_pytorch_tanh)",
                                         place("hidden_activation"), in_quotes(activation))));
    }
    c_.causal = flag("attention.causal", false);
  }

  void read_rope() {
    c_.rope_theta = meta_.number("rope.freq_base", 10000.0);
    if (!(c_.rope_theta > 0.0))
      return meta_.fail(invalid_argument(place("rope.freq_base") + " is not positive"));
    if (const std::string type = meta_.text("rope.scaling.type", "none"); type != "none") {
      meta_.fail(unsupported(
          fmt::format("{} is {} (supported: none)", place("rope.scaling.type"), in_quotes(type))));
    }
    c_.rope.attention_factor = static_cast<float>(meta_.number("rope.scaling.attn_factor", 1.0));
    if (meta_.has("rope.dimension_sections")) {
      const auto* sections =
          std::get_if<std::vector<int64_t>>(file_.meta(meta_.key_name("rope.dimension_sections")));
      if (sections == nullptr || *sections != std::vector<int64_t>{c_.head_dim / 2, 0, 0, 0}) {
        meta_.fail(unsupported(fmt::format("{}: only [{}, 0, 0, 0] (all of the head) is supported",
                                           place("rope.dimension_sections"), c_.head_dim / 2)));
      }
    }
    const auto n_pairs = static_cast<size_t>(c_.head_dim / 2);
    std::vector<float> divisors(n_pairs, 1.0f);
    if (const TensorView* tensor = file_.find("rope_freqs.weight")) {
      draft_.consumed.push_back("rope_freqs.weight");
      if (tensor->dtype != DType::kF32 || tensor->shape != std::vector<int64_t>{c_.head_dim / 2}) {
        return meta_.fail(corrupt_data(
            fmt::format("{}: tensor 'rope_freqs.weight': expected {} F32 numbers", file_.path(), n_pairs)));
      }
      decode_row(DType::kF32, tensor->data, divisors.data(), c_.head_dim / 2);
    }
    for (size_t j = 0; j < n_pairs; ++j) {
      if (!(divisors[j] > 0.0f)) {
        return meta_.fail(corrupt_data(
            fmt::format("{}: tensor 'rope_freqs.weight' holds {} at {}, expected a positive number",
                        file_.path(), divisors[j], j)));
      }
      const double base = std::pow(c_.rope_theta, -2.0 * static_cast<double>(j) / c_.head_dim);
      c_.rope.inv_freq.push_back(divisors[j] > kStandsStill ? 0.0f : static_cast<float>(base / divisors[j]));
    }
  }

  void read_window() {
    if (!meta_.has("attention.sliding_window")) return;
    const int32_t window = meta_.size("attention.sliding_window", ConfigLimits::kContext);
    const auto* flags =
        std::get_if<std::vector<bool>>(file_.meta(meta_.key_name("attention.sliding_window_pattern")));
    if (!meta_.has("attention.sliding_window_pattern") || flags == nullptr ||
        flags->size() != static_cast<size_t>(c_.n_layers)) {
      return meta_.fail(
          invalid_argument(fmt::format("{}: expected {} flags beside attention.sliding_window",
                                       place("attention.sliding_window_pattern"), c_.n_layers)));
    }
    const auto n_sliding = std::count(flags->begin(), flags->end(), true);
    if (n_sliding != 0 && n_sliding != c_.n_layers) {
      return meta_.fail(
          unsupported(place("attention.sliding_window_pattern") + " mixes sliding and full layers"));
    }
    if (n_sliding > 0) c_.window = window;
  }

  /// Rows and columns of a matrix; nothing when it is absent or misshapen (then its shape is reported later).
  std::optional<std::pair<int32_t, int32_t>> matrix_size(const char* name, int32_t max_columns) const {
    const TensorView* tensor = file_.find(name);
    if (tensor == nullptr || tensor->shape.size() != 2) return std::nullopt;
    if (tensor->shape[0] < 1 || tensor->shape[0] > ConfigLimits::kVocab) return std::nullopt;
    if (tensor->shape[1] < 1 || tensor->shape[1] > max_columns) return std::nullopt;
    return std::pair(static_cast<int32_t>(tensor->shape[0]), static_cast<int32_t>(tensor->shape[1]));
  }

  void read_head() {
    const bool block = c_.kind == DraftKind::kDSpark;
    if (has_tensor("markov_w1.weight") || has_tensor("markov_w2.weight")) {
      c_.head = SequentialHead::kVanilla;
      c_.markov_rank = 1;  // unless the matrix says more
      if (const auto size = matrix_size("markov_w1.weight", ConfigLimits::kDim))
        c_.markov_rank = size->second;
      if (has_tensor("markov_gate.weight")) c_.head = SequentialHead::kGated;
      if (has_tensor("markov_joint.weight")) c_.head = SequentialHead::kRnn;
    } else if (block) {
      c_.kind = DraftKind::kDFlash;
    }
    const bool there = has_tensor("conf_proj.weight");
    c_.confidence = ik_ ? there : flag("has_confidence_head", there);
    if (there && !c_.confidence) {
      meta_.fail(invalid_argument(place("has_confidence_head") +
                                  " is false, but tensor 'conf_proj.weight' is there"));
    }
    const auto size = matrix_size("conf_proj.weight", 2 * ConfigLimits::kDim);
    c_.confidence_with_markov =
        c_.confidence && c_.head != SequentialHead::kNone && !(size && size->second == c_.dim);
  }

  void read_vocab() {
    std::optional<int32_t> rows;
    if (const auto size = matrix_size("markov_w1.weight", ConfigLimits::kDim)) rows = size->first;
    if (const auto size = matrix_size("token_embd.weight", ConfigLimits::kDim); size && !rows)
      rows = size->first;
    const TensorView* d2t = file_.find("d2t");
    if (const auto size = matrix_size("output.weight", ConfigLimits::kDim); size && !rows && d2t == nullptr) {
      rows = size->first;
    }
    if (const MetaValue* tokens = file_.meta("tokenizer.ggml.tokens"); tokens != nullptr && !rows) {
      const auto* names = std::get_if<std::vector<std::string>>(tokens);
      if (names != nullptr && !names->empty() && names->size() <= size_t{ConfigLimits::kVocab}) {
        rows = static_cast<int32_t>(names->size());
      }
    }
    c_.vocab_size = c_.draft_vocab_size = meta_.size("vocab_size", ConfigLimits::kVocab, rows);
    if (!meta_.status().ok() || d2t == nullptr) return;
    if (d2t->shape.size() != 1 || d2t->shape[0] < 1 || d2t->shape[0] > c_.vocab_size) {
      return meta_.fail(corrupt_data(
          fmt::format("{}: tensor 'd2t' has shape [{}], expected one row per draft id, at most {}",
                      file_.path(), fmt::join(d2t->shape, ", "), c_.vocab_size)));
    }
    c_.draft_vocab_size = static_cast<int32_t>(d2t->shape[0]);
  }

  void read_mask() {
    const std::string key = ik_ ? meta_.key_name("dflash.mask_token_id") : "tokenizer.ggml.mask_token_id";
    const std::optional<int64_t> mask = file_.meta_int(key);
    if (!mask) return meta_.fail(invalid_argument(fmt::format("{}: key '{}' is missing", file_.path(), key)));
    if (*mask < 0 || *mask >= c_.vocab_size) {
      return meta_.fail(invalid_argument(
          fmt::format("{}: {} is {}, expected a token below {}", file_.path(), key, *mask, c_.vocab_size)));
    }
    c_.mask_token_id = static_cast<int32_t>(*mask);
  }

  /// `shift`: from the file's numbering to taps. `lowest`: the smallest tap allowed.
  void read_taps(std::string_view key, int32_t shift, int32_t lowest) {
    if (!meta_.has(key)) {
      return meta_.fail(
          invalid_argument(fmt::format("{}: key '{}' is missing", file_.path(), meta_.key_name(key))));
    }
    const auto* ids = std::get_if<std::vector<int64_t>>(file_.meta(meta_.key_name(key)));
    if (ids == nullptr || ids->empty() || ids->size() > size_t{ConfigLimits::kLayers}) {
      return meta_.fail(invalid_argument(place(key) + " is not a list of layers"));
    }
    for (int64_t id : *ids) {
      if (id < lowest - shift || id > ConfigLimits::kLayers) {
        return meta_.fail(invalid_argument(
            fmt::format("{} holds {}, expected layers from {} up", place(key), id, lowest - shift)));
      }
      c_.taps.push_back(static_cast<int32_t>(id) + shift);
    }
    const bool after_last = c_.kind == DraftKind::kMtp;
    if (after_last) {
      if (c_.taps != std::vector<int32_t>{c_.target_layers}) {
        meta_.fail(invalid_argument(
            place(key) + " must be the number of the target's layers (dspark.target_layer_count)"));
      }
    } else if (Status st = check_draft_taps(c_, -shift, place(key)); !st.ok()) {
      meta_.fail(st);
    }
  }

  /// Keys of ours, outside "<arch>." so that other readers pass them by.
  void read_own_keys() {
    c_.target_name = file_.meta_string("dspark.target_name").value_or("");
    const MetaValue* layers = file_.meta("dspark.target_layer_count");
    if (layers == nullptr) {
      if (c_.kind == DraftKind::kMtp) {
        meta_.fail(invalid_argument(file_.path() + ": key 'dspark.target_layer_count' is missing"));
      }
      return;
    }
    const int64_t count = file_.meta_int("dspark.target_layer_count").value_or(0);
    if (count < 1 || count > ConfigLimits::kLayers) {
      return meta_.fail(
          invalid_argument(fmt::format("{}: dspark.target_layer_count is not a whole number from 1 to {}",
                                       file_.path(), ConfigLimits::kLayers)));
    }
    c_.target_layers = static_cast<int32_t>(count);
  }

  void read_block() {
    read_own_keys();
    if (ik_) return read_ik_block();
    if (c_.kind == DraftKind::kMtp) {
      c_.block_size = 1;
      return read_taps("target_layers", 0, 1);
    }
    const bool eagle3 = c_.kind == DraftKind::kEagle3;
    read_taps("target_layers", 0, eagle3 ? 1 : 0);
    if (eagle3) {
      c_.block_size = meta_.size("block_size", kMaxBlock);
      if (c_.taps.size() != kEagle3Taps) {
        meta_.fail(invalid_argument(fmt::format("{} has {} layers, expected {}", place("target_layers"),
                                                c_.taps.size(), kEagle3Taps)));
      }
      return;
    }
    read_mask();
    c_.anchor_predicts = flag("sample_from_anchor", c_.head != SequentialHead::kNone);
    read_block_size("block_size");
  }

  void read_block_size(std::string_view key) {
    c_.block_size = meta_.size(key, kMaxBlock);
    if (meta_.status().ok() && c_.n_drafts() < 1) {
      meta_.fail(invalid_argument(place(key) + " is 1, and slot 0 does not predict: no drafts"));
    }
    if (meta_.status().ok()) read_short_block();
  }

  /// A key of ours too: whoever does not know it drafts in whole blocks.
  void read_short_block() {
    constexpr const char* kKey = "dspark.short_block_size";
    if (file_.meta(kKey) == nullptr) return;
    const int64_t n = file_.meta_int(kKey).value_or(-1);
    c_.short_block = static_cast<int32_t>(std::clamp<int64_t>(n, -1, INT32_MAX));
    if (Status st = check_short_block(c_, file_.path() + ": " + kKey); !st.ok()) meta_.fail(st);
  }

  void read_ik_block() {
    read_mask();
    read_taps("dflash.target_layer_ids", 1, 1);
    const auto n_taps = static_cast<int64_t>(c_.taps.size());
    if (n_taps > kIkMaxTaps) {
      meta_.fail(invalid_argument(fmt::format("{} has {} layers, at most {} are possible",
                                              place("dflash.target_layer_ids"), n_taps, kIkMaxTaps)));
    }
    c_.anchor_predicts = c_.head != SequentialHead::kNone;
    read_block_size("dflash.block_size");
    expect_number("dflash.n_target_features", static_cast<double>(n_taps * c_.dim));
    expect_number("dflash.backbone_rotary_base", c_.rope_theta);
    if (flag("dflash.laguna", false)) meta_.fail(unsupported(place("dflash.laguna") + " is true"));
  }

  const Checkpoint& file_;
  std::string arch_;
  bool ik_;
  MetaReader meta_;
  DraftDescription draft_;
  DraftConfig& c_ = draft_.config;
};

}  // namespace

Result<DraftDescription> read_gguf_draft(const Checkpoint& file) {
  const std::string arch = file.meta_string("general.architecture").value_or("");
  if (arch == "eagle3") {
    return unsupported(
        file.path() +
        ": general.architecture is 'eagle3', llama.cpp's Eagle3 with three tapped layers; this program "
        "reads DeepSpec's Eagle3 with five");
  }
  return GgufDraft(file, arch).read();
}

}  // namespace dspark
