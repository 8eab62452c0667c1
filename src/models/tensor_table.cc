#include "models/tensor_table.h"

#include <fmt/format.h>

#include <array>
#include <charconv>

namespace dspark {
namespace {

using M = ModelConfig;
using L = LayerConfig;
using Present = bool (*)(const M&, const L&);
constexpr Present kAlways = [](const M&, const L&) { return true; };
constexpr Present kPlainOnly = [](const M& m, const L&) { return !m.sandwich_norms; };
constexpr Present kSandwich = [](const M& m, const L&) { return m.sandwich_norms; };
constexpr Present kQkNorm = [](const M& m, const L&) { return m.qk_norm; };
constexpr Present kHeads = [](const M& m, const L&) { return m.mla.kv_rank == 0; };
constexpr Present kValue = [](const M& m, const L& l) { return kHeads(m, l) && !l.k_eq_v; };
constexpr Present kQkvBias = [](const M& m, const L&) { return m.qkv_bias; };
constexpr Present kValueBias = [](const M& m, const L& l) { return m.qkv_bias && !l.k_eq_v; };
constexpr Present kOBias = [](const M& m, const L&) { return m.o_bias; };
constexpr Present kMlp = [](const M& m, const L& l) { return !l.moe || m.moe.beside_mlp; };
constexpr Present kMlpBias = [](const M& m, const L& l) { return m.mlp_bias && kMlp(m, l); };
constexpr Present kPerLayer = [](const M& m, const L&) { return m.per_layer_dim > 0; };
constexpr Present kScalar = [](const M& m, const L&) { return m.layer_scalar; };

using W = LayerWeights;

LayerTensor matrix(PackedMatrix W::*slot, Extent out, Extent in, const char* gguf, const char* hf,
                   RowOrder rows = RowOrder::kPlain, Present present = kAlways) {
  return {slot, nullptr, out, in, gguf, hf, false, rows, present};
}

LayerTensor norm(std::vector<float> W::*slot, Extent size, const char* gguf, const char* hf,
                 Present present) {
  return {nullptr, slot, size, size, gguf, hf, true, RowOrder::kPlain, present};
}

LayerTensor bias(std::vector<float> W::*slot, Extent size, const char* gguf, const char* hf, Present present,
                 RowOrder rows = RowOrder::kPlain) {
  return {nullptr, slot, size, size, gguf, hf, false, rows, present};
}

LayerTensor of_keys(LayerTensor tensor) {
  tensor.of_keys = true;
  return tensor;
}

// "post_attention_layernorm" is the norm before the MLP in llama and qwen, and the norm after attention in
// Gemma. GGUF calls the first ffn_norm and the second post_attention_norm.
const std::array kLayerTensors = {
    norm(&W::attn_norm, Extent::kModel, "attn_norm.weight", "input_layernorm.weight", kAlways),
    matrix(&W::q, Extent::kQuery, Extent::kModel, "attn_q.weight", "self_attn.q_proj.weight",
           RowOrder::kQueryHeads, kHeads),
    of_keys(matrix(&W::k, Extent::kKeyValue, Extent::kModel, "attn_k.weight", "self_attn.k_proj.weight",
                   RowOrder::kKeyHeads, kHeads)),
    of_keys(matrix(&W::v, Extent::kKeyValue, Extent::kModel, "attn_v.weight", "self_attn.v_proj.weight",
                   RowOrder::kPlain, kValue)),
    bias(&W::q_bias, Extent::kQuery, "attn_q.bias", "self_attn.q_proj.bias", kQkvBias, RowOrder::kQueryHeads),
    of_keys(bias(&W::k_bias, Extent::kKeyValue, "attn_k.bias", "self_attn.k_proj.bias", kQkvBias,
                 RowOrder::kKeyHeads)),
    of_keys(bias(&W::v_bias, Extent::kKeyValue, "attn_v.bias", "self_attn.v_proj.bias", kValueBias)),
    norm(&W::q_norm, Extent::kHead, "attn_q_norm.weight", "self_attn.q_norm.weight", kQkNorm),
    of_keys(norm(&W::k_norm, Extent::kHead, "attn_k_norm.weight", "self_attn.k_norm.weight", kQkNorm)),
    matrix(&W::o, Extent::kModel, Extent::kAttended, "attn_output.weight", "self_attn.o_proj.weight"),
    bias(&W::o_bias, Extent::kModel, "attn_output.bias", "self_attn.o_proj.bias", kOBias),
    norm(&W::attn_post_norm, Extent::kModel, "post_attention_norm.weight", "post_attention_layernorm.weight",
         kSandwich),
    norm(&W::ffn_norm, Extent::kModel, "ffn_norm.weight", "post_attention_layernorm.weight", kPlainOnly),
    norm(&W::ffn_norm, Extent::kModel, "ffn_norm.weight", "pre_feedforward_layernorm.weight", kSandwich),
    matrix(&W::gate, Extent::kFeedForward, Extent::kModel, "ffn_gate.weight", "mlp.gate_proj.weight",
           RowOrder::kPlain, kMlp),
    matrix(&W::up, Extent::kFeedForward, Extent::kModel, "ffn_up.weight", "mlp.up_proj.weight",
           RowOrder::kPlain, kMlp),
    bias(&W::gate_bias, Extent::kFeedForward, "ffn_gate.bias", "mlp.gate_proj.bias", kMlpBias),
    bias(&W::up_bias, Extent::kFeedForward, "ffn_up.bias", "mlp.up_proj.bias", kMlpBias),
    matrix(&W::down, Extent::kModel, Extent::kFeedForward, "ffn_down.weight", "mlp.down_proj.weight",
           RowOrder::kPlain, kMlp),
    bias(&W::down_bias, Extent::kModel, "ffn_down.bias", "mlp.down_proj.bias", kMlpBias),
    norm(&W::ffn_post_norm, Extent::kModel, "post_ffw_norm.weight", "post_feedforward_layernorm.weight",
         kSandwich),
    matrix(&W::per_layer_gate, Extent::kPerLayer, Extent::kModel, "inp_gate.weight",
           "per_layer_input_gate.weight", RowOrder::kPlain, kPerLayer),
    matrix(&W::per_layer_out, Extent::kModel, Extent::kPerLayer, "proj.weight", "per_layer_projection.weight",
           RowOrder::kPlain, kPerLayer),
    norm(&W::per_layer_post_norm, Extent::kModel, "post_norm.weight", "post_per_layer_input_norm.weight",
         kPerLayer),
    bias(&W::scalar, Extent::kOne, "layer_output_scale.weight", "layer_scalar", kScalar),
};

// Where a safetensors file keeps the language model: alone, or inside a multimodal Gemma (released files,
// files of transformers 5). The head stands outside of "model.".
struct Prefix {
  const char* body;
  const char* head;
};
constexpr Prefix kPrefixes[] = {
    {"model.", ""}, {"language_model.model.", "language_model."}, {"model.language_model.", ""}};

constexpr std::string_view kOtherModalities[] = {
    "vision_tower.",      "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector.",
    "model.audio_tower.", "model.embed_vision.",    "model.embed_audio.",  "model.vision_embedder."};

// "model.layers.61.mlp.gate.weight" with 61 layers: a layer for multi-token prediction.
bool is_behind_layers(std::string_view name, int32_t n_layers) {
  constexpr std::string_view kStart = "model.layers.";
  if (!name.starts_with(kStart)) return false;
  int32_t layer_idx = -1;
  const char* begin = name.data() + kStart.size();
  const auto [end, error] = std::from_chars(begin, name.data() + name.size(), layer_idx);
  return error == std::errc() && end != name.data() + name.size() && *end == '.' && layer_idx >= n_layers;
}

}  // namespace

std::vector<LayerTensor> layer_tensors(const ModelConfig& config, int32_t layer_idx) {
  const bool shares = config.shares_kv(layer_idx);
  std::vector<LayerTensor> tensors;
  for (const LayerTensor& tensor : kLayerTensors) {
    if (shares && tensor.of_keys) continue;
    if (tensor.present(config, config.layer(layer_idx))) tensors.push_back(tensor);
  }
  return tensors;
}

std::vector<LayerTensor> unread_layer_tensors(const ModelConfig& config, int32_t layer_idx) {
  std::vector<LayerTensor> tensors;
  if (!config.shares_kv(layer_idx)) return tensors;
  for (const LayerTensor& tensor : kLayerTensors) {
    if (tensor.of_keys) tensors.push_back(tensor);
  }
  return tensors;
}

int64_t extent_of(const ModelConfig& config, const LayerConfig& layer, Extent extent) {
  switch (extent) {
    case Extent::kModel:
      return config.dim;
    case Extent::kQuery:
      return static_cast<int64_t>(config.n_heads) * layer.head_dim;
    case Extent::kKeyValue:
      return static_cast<int64_t>(layer.n_kv_heads) * layer.head_dim;
    case Extent::kFeedForward:
      return layer.ffn_dim;
    case Extent::kHead:
      return layer.head_dim;
    case Extent::kPerLayer:
      return config.per_layer_dim;
    case Extent::kOne:
      return 1;
    case Extent::kAttended:
      return static_cast<int64_t>(config.n_heads) *
             (config.mla.kv_rank > 0 ? config.mla.v_dim : layer.head_dim);
  }
  return 0;
}

TensorNames::TensorNames(const Checkpoint& checkpoint)
    : gguf_(checkpoint.format() == Checkpoint::Format::kGguf),
      prefix_(kPrefixes[0].body),
      head_prefix_(kPrefixes[0].head) {
  for (const Prefix& prefix : kPrefixes) {
    if (gguf_ || checkpoint.find(std::string(prefix.body) + "embed_tokens.weight") == nullptr) continue;
    prefix_ = prefix.body;
    head_prefix_ = prefix.head;
    break;
  }
}

std::string TensorNames::layer(const LayerTensor& tensor, int32_t layer_idx) const {
  return layer_prefix(layer_idx) + (gguf_ ? tensor.gguf : tensor.hf);
}

std::string TensorNames::layer_prefix(int32_t layer_idx) const {
  return gguf_ ? fmt::format("blk.{}.", layer_idx) : fmt::format("{}layers.{}.", prefix_, layer_idx);
}

std::string TensorNames::embedding() const {
  return gguf_ ? "token_embd.weight" : prefix_ + "embed_tokens.weight";
}

std::string TensorNames::final_norm() const {
  return gguf_ ? "output_norm.weight" : prefix_ + "norm.weight";
}

std::string TensorNames::head() const {
  return gguf_ ? "output.weight" : head_prefix_ + "lm_head.weight";
}

std::string TensorNames::per_layer_embedding() const {
  return gguf_ ? "per_layer_token_embd.weight" : prefix_ + "embed_tokens_per_layer.weight";
}

std::string TensorNames::per_layer_projection() const {
  return gguf_ ? "per_layer_model_proj.weight" : prefix_ + "per_layer_model_projection.weight";
}

std::string TensorNames::per_layer_norm() const {
  return gguf_ ? "per_layer_proj_norm.weight" : prefix_ + "per_layer_projection_norm.weight";
}

bool TensorNames::is_ignorable(std::string_view name, const ModelConfig& config) const {
  if (gguf_) {
    // Divisors of the rotary frequencies: read with the config.
    return (config.arch == "llama" || config.arch == "gemma4") && name == "rope_freqs.weight";
  }
  if (config.arch == "deepseek2" && is_behind_layers(name, config.n_layers)) return true;  // MTP layers
  // Old exports keep the rotary buffer of every layer; it follows from the config.
  if (name.ends_with(".rotary_emb.inv_freq")) return true;
  if (config.tied_head && name == head()) return true;  // a copy of the embedding
  for (std::string_view prefix : kOtherModalities) {
    if (config.arch.starts_with("gemma") && name.starts_with(prefix)) return true;
  }
  return false;
}

}  // namespace dspark
