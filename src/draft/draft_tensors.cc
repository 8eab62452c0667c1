#include "draft/draft_tensors.h"

#include <fmt/format.h>

#include <utility>

namespace dspark {
namespace {

using Role = DraftTensorRole;

class Table {
 public:
  explicit Table(const DraftConfig& config) : c_(config) {}

  std::vector<DraftTensor> build() {
    const int64_t dim = c_.dim;
    optional("embed_tokens.weight", "token_embd.weight", {c_.vocab_size, dim}, Role::kEmbedding);
    if (c_.kind == DraftKind::kMtp) {
      add("enorm.weight", "enorm.weight", {dim}, Role::kVector);
      add("hnorm.weight", "hnorm.weight", {dim}, Role::kVector);
      add("eh_proj.weight", "eh_proj.weight", {dim, 2 * dim});
    } else {
      add("fc.weight", "fc.weight", {dim, static_cast<int64_t>(c_.taps.size()) * dim});
    }
    const bool block = c_.kind == DraftKind::kDSpark || c_.kind == DraftKind::kDFlash;
    if (block) add("hidden_norm.weight", "enc.output_norm.weight", {dim}, Role::kVector);
    for (int32_t i = 0; i < c_.n_layers; ++i) {
      hf_ = fmt::format("layers.{}.", i);
      gguf_ = fmt::format("blk.{}.", i);
      add_attention();
      add_mlp();
    }
    hf_.clear();
    gguf_.clear();
    add("norm.weight", "output_norm.weight", {dim}, Role::kVector);
    optional("lm_head.weight", "output.weight", {c_.draft_vocab_size, dim}, Role::kHead);
    add_heads();
    return std::move(tensors_);
  }

 private:
  void add(const char* hf, const char* gguf, std::vector<int64_t> shape, Role role = Role::kMatrix) {
    tensors_.push_back({hf_ + hf, gguf_ + gguf, std::move(shape), true, role});
  }
  void optional(const char* hf, const char* gguf, std::vector<int64_t> shape, Role role) {
    add(hf, gguf, std::move(shape), role);
    tensors_.back().required = false;
  }

  void add_attention() {
    const int64_t dim = c_.dim;
    const int64_t queries = static_cast<int64_t>(c_.n_heads) * c_.head_dim;
    const int64_t keys = static_cast<int64_t>(c_.n_kv_heads) * c_.head_dim;
    // Eagle3 attends over [embedding ; hidden].
    const int64_t in = c_.kind == DraftKind::kEagle3 ? 2 * dim : dim;
    add("input_layernorm.weight", "attn_norm.weight", {dim}, Role::kVector);
    if (c_.kind == DraftKind::kEagle3) add("hidden_norm.weight", "hidden_norm.weight", {dim}, Role::kVector);
    add("self_attn.q_proj.weight", "attn_q.weight", {queries, in});
    add("self_attn.k_proj.weight", "attn_k.weight", {keys, in});
    if (!c_.k_eq_v) add("self_attn.v_proj.weight", "attn_v.weight", {keys, in});
    if (c_.attention_bias) {
      add("self_attn.q_proj.bias", "attn_q.bias", {queries}, Role::kVector);
      add("self_attn.k_proj.bias", "attn_k.bias", {keys}, Role::kVector);
      if (!c_.k_eq_v) add("self_attn.v_proj.bias", "attn_v.bias", {keys}, Role::kVector);
      optional("self_attn.o_proj.bias", "attn_output.bias", {dim}, Role::kVector);
    }
    if (c_.qk_norm) {
      add("self_attn.q_norm.weight", "attn_q_norm.weight", {c_.head_dim}, Role::kVector);
      add("self_attn.k_norm.weight", "attn_k_norm.weight", {c_.head_dim}, Role::kVector);
    }
    add("self_attn.o_proj.weight", "attn_output.weight", {dim, queries});
  }

  // "post_attention_layernorm" stands before the MLP in Qwen3 and behind attention in Gemma.
  void add_mlp() {
    const int64_t dim = c_.dim;
    if (c_.sandwich_norms) {
      add("post_attention_layernorm.weight", "post_attention_norm.weight", {dim}, Role::kVector);
      add("pre_feedforward_layernorm.weight", "ffn_norm.weight", {dim}, Role::kVector);
    } else {
      add("post_attention_layernorm.weight", "ffn_norm.weight", {dim}, Role::kVector);
    }
    add("mlp.gate_proj.weight", "ffn_gate.weight", {c_.ffn_dim, dim});
    add("mlp.up_proj.weight", "ffn_up.weight", {c_.ffn_dim, dim});
    add("mlp.down_proj.weight", "ffn_down.weight", {dim, c_.ffn_dim});
    if (!c_.sandwich_norms) return;
    add("post_feedforward_layernorm.weight", "post_ffw_norm.weight", {dim}, Role::kVector);
    add("layer_scalar", "layer_output_scale.weight", {1}, Role::kVector);
  }

  void add_heads() {
    const int64_t rank = c_.markov_rank;
    if (c_.head != SequentialHead::kNone) {
      add("markov_head.markov_w1.weight", "markov_w1.weight", {c_.vocab_size, rank});
      add("markov_head.markov_w2.weight", "markov_w2.weight", {c_.draft_vocab_size, rank});
    }
    if (c_.head == SequentialHead::kGated) {
      add("markov_head.gate_proj.weight", "markov_gate.weight", {rank, c_.dim + rank});
      add("markov_head.gate_proj.bias", "markov_gate.bias", {rank}, Role::kVector);
    }
    if (c_.head == SequentialHead::kRnn) {
      add("markov_head.joint_proj.weight", "markov_joint.weight", {3 * rank, 2 * rank + c_.dim});
      add("markov_head.joint_proj.bias", "markov_joint.bias", {3 * rank}, Role::kVector);
    }
    if (!c_.confidence) return;
    add("confidence_head.proj.weight", "conf_proj.weight", {1, confidence_width(c_)}, Role::kConfidence);
    add("confidence_head.proj.bias", "conf_proj.bias", {1}, Role::kVector);
  }

  const DraftConfig& c_;
  std::string hf_;
  std::string gguf_;
  std::vector<DraftTensor> tensors_;
};

/// What ik_llama.cpp calls differently from llama.cpp.
std::string ik_name(const std::string& gguf) {
  if (gguf == "fc.weight") return "dflash_fc.weight";
  if (gguf == "enc.output_norm.weight") return "dflash_hidden_norm.weight";
  constexpr std::string_view kMlpNorm = ".ffn_norm.weight";
  if (gguf.ends_with(kMlpNorm)) {
    return gguf.substr(0, gguf.size() - kMlpNorm.size()) + ".post_attention_norm.weight";
  }
  return gguf;
}

}  // namespace

int64_t confidence_width(const DraftConfig& config) {
  return config.dim + (config.confidence_with_markov ? config.markov_rank : 0);
}

std::vector<DraftTensor> draft_tensors(const DraftConfig& config) {
  return Table(config).build();
}

std::string draft_tensor_name(const DraftTensor& tensor, DraftNaming naming) {
  switch (naming) {
    case DraftNaming::kDeepSpec:
      return tensor.name;
    case DraftNaming::kLlamaCpp:
      return tensor.gguf;
    case DraftNaming::kIkLlama:
      return ik_name(tensor.gguf);
  }
  return tensor.name;
}

}  // namespace dspark
