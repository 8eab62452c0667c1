#include "formats/hf_to_gguf.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "formats/error_text.h"
#include "formats/hf_model.h"
#include "formats/hf_tokenizer.h"
#include "tensor/quantize.h"

namespace dspark {
namespace {

/// Row of the stored tensor that becomes row `row`: inside a head of hd rows, row 2j+s comes from s*hd/2 + j.
int64_t interleaved_source(int64_t row, int64_t head_dim) {
  const int64_t in_head = row % head_dim;
  return row - in_head + (in_head % 2) * (head_dim / 2) + in_head / 2;
}

/// Collects plans; remembers which stored tensors were used, which are missing and which do not fit.
class Mapper {
 public:
  Mapper(const Checkpoint& checkpoint, const HfModel& model) : checkpoint_(checkpoint), model_(model) {
    for (const char* candidate : {"model.", "language_model.model.", "model.language_model."}) {
      if (checkpoint.find(std::string(candidate) + "embed_tokens.weight") != nullptr) prefix_ = candidate;
    }
  }

  const std::string& prefix() const { return prefix_; }
  bool has(const std::string& hf_name) const { return checkpoint_.find(hf_name) != nullptr; }

  GgufTensorPlan* add(const std::string& gguf_name, const std::string& hf_name, std::vector<int64_t> shape) {
    const TensorView* source = take(hf_name, shape);
    if (source == nullptr) return nullptr;
    GgufTensorPlan plan;
    plan.name = gguf_name;
    plan.shape = std::move(shape);
    plan.sources = {source};
    plans_.push_back(std::move(plan));
    return &plans_.back();
  }
  void add_norm(const std::string& gguf_name, const std::string& hf_name, int64_t n) {
    GgufTensorPlan* plan = add(gguf_name, hf_name, {n});
    if (plan != nullptr && model_.is_gemma()) plan->add = 1.0f;
  }
  /// Weight and, where stored, bias of a linear layer. permuted_heads: see GgufTensorPlan.
  void add_linear(const std::string& gguf_name, const std::string& hf_name, int64_t out, int64_t in,
                  int64_t permuted_heads = 0) {
    GgufTensorPlan* weight = add(gguf_name + ".weight", hf_name + ".weight", {out, in});
    if (weight != nullptr) weight->permuted_heads = permuted_heads;
    if (!has(hf_name + ".bias")) return;
    GgufTensorPlan* bias = add(gguf_name + ".bias", hf_name + ".bias", {out});
    if (bias != nullptr) bias->permuted_heads = permuted_heads;
  }
  void add_experts(const std::string& gguf_name, const std::string& hf_layer, const char* which, int64_t out,
                   int64_t in) {
    GgufTensorPlan plan;
    plan.name = gguf_name;
    plan.shape = {model_.n_experts, out, in};
    for (int64_t e = 0; e < model_.n_experts; ++e) {
      plan.sources.push_back(
          take(fmt::format("{}mlp.experts.{}.{}_proj.weight", hf_layer, e, which), {out, in}));
      if (plan.sources.back() == nullptr) return;
      if (plan.sources.back()->dtype != plan.sources.front()->dtype) {
        problems_.push_back(plan.name + ": experts of different types");
        return;
      }
    }
    plans_.push_back(std::move(plan));
  }
  void add_values(const std::string& gguf_name, std::vector<float> values) {
    GgufTensorPlan plan;
    plan.name = gguf_name;
    plan.shape = {static_cast<int64_t>(values.size())};
    plan.values = std::move(values);
    plans_.push_back(std::move(plan));
  }
  void ignore(const std::string& hf_name) { used_.insert(hf_name); }
  bool is_used(const std::string& hf_name) const { return used_.count(hf_name) != 0; }
  void report(std::string problem) { problems_.push_back(std::move(problem)); }

  Result<std::vector<GgufTensorPlan>> finish() {
    if (problems_.empty()) return std::move(plans_);
    std::string list;
    for (size_t i = 0; i < std::min<size_t>(problems_.size(), 8); ++i)
      list += (i == 0 ? "" : "; ") + problems_[i];
    if (problems_.size() > 8) list += fmt::format("; and {} more", problems_.size() - 8);
    return corrupt_data(checkpoint_.path() + ": " + list);
  }

 private:
  const TensorView* take(const std::string& hf_name, const std::vector<int64_t>& shape) {
    const TensorView* tensor = checkpoint_.find(hf_name);
    used_.insert(hf_name);
    if (tensor == nullptr) {
      problems_.push_back(fmt::format("tensor '{}' is missing", hf_name));
    } else if (tensor->shape != shape) {
      problems_.push_back(fmt::format("tensor '{}' has shape [{}], config.json says [{}]", hf_name,
                                      fmt::join(tensor->shape, ", "), fmt::join(shape, ", ")));
      return nullptr;
    } else if (!is_float(tensor->dtype)) {
      problems_.push_back(fmt::format("tensor '{}' is {}, expected F32, F16, BF16 or F64", hf_name,
                                      dtype_name(tensor->dtype)));
      return nullptr;
    }
    return tensor;
  }
  static bool is_float(DType dtype) {
    return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16 || dtype == DType::kF64;
  }

  const Checkpoint& checkpoint_;
  const HfModel& model_;
  std::string prefix_ = "model.";
  std::vector<GgufTensorPlan> plans_;
  std::set<std::string> used_;
  std::vector<std::string> problems_;
};

void map_attention(Mapper& map, const HfModel& m, const std::string& blk, const std::string& layer) {
  const int64_t q_rows = m.n_heads * m.head_dim;
  const int64_t kv_rows = m.n_kv_heads * m.head_dim;
  const bool interleave = m.arch == "llama";
  const std::string attn = layer + "self_attn.";
  map.add_linear(blk + "attn_q", attn + "q_proj", q_rows, m.dim, interleave ? m.n_heads : 0);
  map.add_linear(blk + "attn_k", attn + "k_proj", kv_rows, m.dim, interleave ? m.n_kv_heads : 0);
  map.add_linear(blk + "attn_v", attn + "v_proj", kv_rows, m.dim);
  map.add_linear(blk + "attn_output", attn + "o_proj", m.dim, q_rows);
  if (m.arch == "qwen3" || m.arch == "qwen3moe" || m.is_gemma()) {
    map.add_norm(blk + "attn_q_norm.weight", attn + "q_norm.weight", m.head_dim);
    map.add_norm(blk + "attn_k_norm.weight", attn + "k_norm.weight", m.head_dim);
  }
}

void map_mlp(Mapper& map, const HfModel& m, const std::string& blk, const std::string& layer) {
  if (m.arch == "qwen3moe") {
    map.add(blk + "ffn_gate_inp.weight", layer + "mlp.gate.weight", {m.n_experts, m.dim});
    map.add_experts(blk + "ffn_gate_exps.weight", layer, "gate", m.expert_ffn_dim, m.dim);
    map.add_experts(blk + "ffn_up_exps.weight", layer, "up", m.expert_ffn_dim, m.dim);
    map.add_experts(blk + "ffn_down_exps.weight", layer, "down", m.dim, m.expert_ffn_dim);
    return;
  }
  map.add_linear(blk + "ffn_gate", layer + "mlp.gate_proj", m.ffn_dim, m.dim);
  map.add_linear(blk + "ffn_up", layer + "mlp.up_proj", m.ffn_dim, m.dim);
  map.add_linear(blk + "ffn_down", layer + "mlp.down_proj", m.dim, m.ffn_dim);
}

void map_norms(Mapper& map, const HfModel& m, const std::string& blk, const std::string& layer) {
  map.add_norm(blk + "attn_norm.weight", layer + "input_layernorm.weight", m.dim);
  if (!m.is_gemma()) {
    map.add_norm(blk + "ffn_norm.weight", layer + "post_attention_layernorm.weight", m.dim);
    return;
  }
  // Gemma gives the same name to another norm: the one behind attention.
  map.add_norm(blk + "post_attention_norm.weight", layer + "post_attention_layernorm.weight", m.dim);
  map.add_norm(blk + "ffn_norm.weight", layer + "pre_feedforward_layernorm.weight", m.dim);
  map.add_norm(blk + "post_ffw_norm.weight", layer + "post_feedforward_layernorm.weight", m.dim);
}

/// Tensors that are left out on purpose get a note; all others that nobody asked for are errors.
void check_leftovers(const Checkpoint& checkpoint, const HfModel& m, Mapper& map,
                     std::vector<std::string>& notes) {
  int64_t n_vision = 0;
  for (const TensorView& tensor : checkpoint.tensors()) {
    if (map.is_used(tensor.name)) continue;
    const auto contains = [&](const char* part) { return tensor.name.find(part) != std::string::npos; };
    if (contains("rotary_emb.inv_freq")) continue;  // a buffer of old checkpoints, follows from config.json
    if (m.is_gemma() && (contains("vision_tower.") || contains("multi_modal_projector."))) {
      ++n_vision;
    } else {
      map.report(fmt::format("tensor {} has no place in arch {}", in_quotes(tensor.name), m.arch));
    }
  }
  if (n_vision > 0) notes.push_back(fmt::format("{} tensors of the image encoder are left out", n_vision));
}

void set_rope(const HfModel& m, GgufWriter& writer) {
  const auto key = [&](const char* name) { return m.arch + ".rope." + name; };
  writer.set_u32(key("dimension_count"), static_cast<uint32_t>(m.head_dim));
  writer.set_f32(key("freq_base"), static_cast<float>(m.rope.theta));
  if (m.is_gemma()) writer.set_f32(key("freq_base_swa"), static_cast<float>(m.local_theta));
  if (m.rope.type != "linear" && m.rope.type != "yarn") return;  // llama3: rope_freqs.weight says it
  writer.set_string(key("scaling.type"), m.rope.type);
  writer.set_f32(key("scaling.factor"), static_cast<float>(m.rope.factor));
  if (m.rope.type == "linear") return;
  writer.set_u32(key("scaling.original_context_length"), static_cast<uint32_t>(m.rope.original_context));
  if (m.rope.beta_fast != 32.0)
    writer.set_f32(key("scaling.yarn_beta_fast"), static_cast<float>(m.rope.beta_fast));
  if (m.rope.beta_slow != 1.0)
    writer.set_f32(key("scaling.yarn_beta_slow"), static_cast<float>(m.rope.beta_slow));
  if (m.rope.attention_factor > 0.0) {
    // In GGUF the number multiplies the default instead of replacing it.
    const double standard = m.rope.factor <= 1.0 ? 1.0 : 0.1 * std::log(m.rope.factor) + 1.0;
    writer.set_f32(key("scaling.attn_factor"), static_cast<float>(m.rope.attention_factor / standard));
  }
}

void set_gemma3(const HfModel& m, GgufWriter& writer) {
  writer.set_u32(m.arch + ".attention.sliding_window", static_cast<uint32_t>(m.window));
  bool usual = true;
  for (size_t i = 0; i < m.sliding.size(); ++i) usual = usual && m.sliding[i] == ((i + 1) % 6 != 0);
  if (!usual) writer.set_bools(m.arch + ".attention.sliding_window_pattern", m.sliding);
  if (m.attention_softcap > 0.0)
    writer.set_f32(m.arch + ".attn_logit_softcapping", static_cast<float>(m.attention_softcap));
  if (m.final_softcap > 0.0)
    writer.set_f32(m.arch + ".final_logit_softcapping", static_cast<float>(m.final_softcap));
}

}  // namespace

int64_t GgufTensorPlan::n_rows() const {
  int64_t n = 1;
  for (size_t i = 0; i + 1 < shape.size(); ++i) n *= shape[i];
  return n;
}

DType GgufTensorPlan::stored_dtype() const {
  return sources.empty() ? DType::kF32 : sources.front()->dtype;
}

size_t GgufTensorPlan::stored_bytes() const {
  size_t n = values.size() * sizeof(float);
  for (const TensorView* source : sources) n += source->n_bytes;
  return n;
}

bool GgufTensorPlan::is_verbatim() const {
  return !sources.empty() && permuted_heads == 0 && add == 0.0f;
}

void GgufTensorPlan::read_row(int64_t row, float* out) const {
  const int64_t n = row_elements();
  if (sources.empty()) {
    std::copy_n(values.begin() + row * n, n, out);
    return;
  }
  const int64_t rows_each = n_rows() / static_cast<int64_t>(sources.size());
  const TensorView& source = *sources[static_cast<size_t>(row / rows_each)];
  int64_t stored_row = row % rows_each;
  const bool is_vector = shape.size() == 1;
  if (permuted_heads > 0 && !is_vector)
    stored_row = interleaved_source(stored_row, rows_each / permuted_heads);
  const size_t row_bytes = dtype_row_bytes(source.dtype, n);
  decode_row(source.dtype, source.data + static_cast<size_t>(stored_row) * row_bytes, out, n);
  if (permuted_heads > 0 && is_vector) {
    const std::vector<float> stored(out, out + n);
    for (int64_t i = 0; i < n; ++i)
      out[i] = stored[static_cast<size_t>(interleaved_source(i, n / permuted_heads))];
  }
  if (add != 0.0f) {
    for (int64_t i = 0; i < n; ++i) out[i] += add;
  }
}

Result<std::vector<GgufTensorPlan>> plan_hf_tensors(const Checkpoint& checkpoint,
                                                    std::vector<std::string>& notes) {
  DSPARK_ASSIGN_OR_RETURN(const HfModel m, read_hf_model(checkpoint));
  Mapper map(checkpoint, m);
  if (m.rope.type == "llama3") map.add_values("rope_freqs.weight", llama3_rope_divisors(m.rope, m.head_dim));
  map.add("token_embd.weight", map.prefix() + "embed_tokens.weight", {m.vocab_size, m.dim});
  const std::string head =
      map.prefix() == "language_model.model." ? "language_model.lm_head.weight" : "lm_head.weight";
  if (!m.tied_head) {
    map.add("output.weight", head, {m.vocab_size, m.dim});
  } else if (map.has(head)) {
    map.ignore(head);
    notes.push_back(head + " is left out: config.json ties the head to the embedding");
  }
  map.add_norm("output_norm.weight", map.prefix() + "norm.weight", m.dim);
  for (int64_t i = 0; i < m.n_layers; ++i) {
    const std::string blk = fmt::format("blk.{}.", i);
    const std::string layer = fmt::format("{}layers.{}.", map.prefix(), i);
    map_norms(map, m, blk, layer);
    map_attention(map, m, blk, layer);
    map_mlp(map, m, blk, layer);
  }
  check_leftovers(checkpoint, m, map, notes);
  return map.finish();
}

Status set_hf_metadata(const Checkpoint& checkpoint, GgufWriter& writer, std::vector<std::string>& notes) {
  DSPARK_ASSIGN_OR_RETURN(const HfModel m, read_hf_model(checkpoint));
  writer.set_string("general.architecture", m.arch);
  writer.set_string("general.type", "model");
  writer.set_string("general.name", m.name);
  const auto set = [&](const char* key, int64_t value) {
    writer.set_u32(m.arch + "." + key, static_cast<uint32_t>(value));
  };
  set("block_count", m.n_layers);
  set("context_length", m.context_length);
  set("embedding_length", m.dim);
  set("feed_forward_length", m.ffn_dim);
  set("vocab_size", m.vocab_size);
  set("attention.head_count", m.n_heads);
  set("attention.head_count_kv", m.n_kv_heads);
  set("attention.key_length", m.head_dim);
  set("attention.value_length", m.head_dim);
  writer.set_f32(m.arch + ".attention.layer_norm_rms_epsilon", static_cast<float>(m.norm_eps));
  set_rope(m, writer);
  if (m.is_gemma()) set_gemma3(m, writer);
  if (m.n_experts > 0) {
    set("expert_count", m.n_experts);
    set("expert_used_count", m.n_experts_used);
    set("expert_feed_forward_length", m.expert_ffn_dim);
  }
  return set_hf_tokenizer(checkpoint, m.vocab_size, writer, notes);
}

}  // namespace dspark
