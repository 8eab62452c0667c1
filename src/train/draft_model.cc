#include "train/draft_model.h"

#include "tensor/quantize.h"

namespace dspark {
namespace {

using at::Tensor;

constexpr const char* kEmbedding = "embed_tokens.weight";
constexpr const char* kHead = "lm_head.weight";

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

using ShapeList = std::vector<std::pair<std::string, std::vector<int64_t>>>;

void add_layer_shapes(const DraftConfig& config, const std::string& prefix, ShapeList& shapes) {
  const int64_t dim = config.dim;
  const int64_t queries = int64_t{config.n_heads} * config.head_dim;
  const int64_t keys = int64_t{config.n_kv_heads} * config.head_dim;
  const std::string attn = prefix + "self_attn.";
  shapes.push_back({prefix + "input_layernorm.weight", {dim}});
  shapes.push_back({prefix + "post_attention_layernorm.weight", {dim}});
  if (config.sandwich_norms) {
    shapes.push_back({prefix + "pre_feedforward_layernorm.weight", {dim}});
    shapes.push_back({prefix + "post_feedforward_layernorm.weight", {dim}});
  }
  shapes.push_back({attn + "q_proj.weight", {queries, dim}});
  shapes.push_back({attn + "k_proj.weight", {keys, dim}});
  if (!config.k_eq_v) shapes.push_back({attn + "v_proj.weight", {keys, dim}});
  shapes.push_back({attn + "o_proj.weight", {dim, queries}});
  if (config.qk_norm) {
    shapes.push_back({attn + "q_norm.weight", {config.head_dim}});
    shapes.push_back({attn + "k_norm.weight", {config.head_dim}});
  }
  shapes.push_back({prefix + "mlp.gate_proj.weight", {config.ffn_dim, dim}});
  shapes.push_back({prefix + "mlp.up_proj.weight", {config.ffn_dim, dim}});
  shapes.push_back({prefix + "mlp.down_proj.weight", {dim, config.ffn_dim}});
}

}  // namespace

TensorMap DraftModel::all() const {
  TensorMap map = trainable;
  map.insert(buffers.begin(), buffers.end());
  return map;
}

Result<Tensor> decode_tensor(const TensorView& view) {
  if (!can_decode(view.dtype)) {
    return unsupported("tensor '" + view.name + "': elements of type " + dtype_name(view.dtype) +
                       " cannot be trained");
  }
  Tensor out = at::empty(view.shape, at::kFloat);
  const int64_t n_rows = view.n_rows();
  const int64_t width = view.row_elements();
  const size_t row_bytes = view.row_bytes();
  float* to = out.mutable_data_ptr<float>();
  for (int64_t row = 0; row < n_rows; ++row) {
    decode_row(view.dtype, view.data + static_cast<size_t>(row) * row_bytes, to + row * width, width);
  }
  return out;
}

Result<DraftModel> draft_model_from(const DraftCheckpoint& checkpoint) {
  DraftModel model;
  model.config = checkpoint.config;
  for (const auto& [name, view] : checkpoint.tensors) {
    if (name == kEmbedding || name == kHead) continue;
    DSPARK_ASSIGN_OR_RETURN(Tensor tensor, decode_tensor(view));
    if (ends_with(name, "layer_scalar")) {
      model.buffers[name] = tensor;
    } else {
      model.trainable[name] = tensor.set_requires_grad(true);
    }
  }
  return model;
}

ShapeList trainable_shapes(const DraftConfig& config) {
  const int64_t dim = config.dim;
  const int64_t rank = config.markov_rank;
  ShapeList shapes;
  shapes.push_back({"fc.weight", {dim, static_cast<int64_t>(config.taps.size()) * dim}});
  shapes.push_back({"hidden_norm.weight", {dim}});
  shapes.push_back({"norm.weight", {dim}});
  for (int32_t layer = 0; layer < config.n_layers; ++layer) {
    add_layer_shapes(config, "layers." + std::to_string(layer) + ".", shapes);
  }
  if (config.head != SequentialHead::kNone) {
    shapes.push_back({"markov_head.markov_w1.weight", {config.vocab_size, rank}});
    shapes.push_back({"markov_head.markov_w2.weight", {config.draft_vocab_size, rank}});
  }
  if (config.head == SequentialHead::kGated) {
    shapes.push_back({"markov_head.gate_proj.weight", {rank, dim + rank}});
    shapes.push_back({"markov_head.gate_proj.bias", {rank}});
  }
  if (config.head == SequentialHead::kRnn) {
    shapes.push_back({"markov_head.joint_proj.weight", {3 * rank, 2 * rank + dim}});
    shapes.push_back({"markov_head.joint_proj.bias", {3 * rank}});
  }
  if (config.confidence) {
    shapes.push_back({"confidence_head.proj.weight", {1, config.confidence_with_markov ? dim + rank : dim}});
    shapes.push_back({"confidence_head.proj.bias", {1}});
  }
  return shapes;
}

FrozenTarget frozen_target(const DraftConfig& config, const Tensor& embedding, const Tensor& head,
                           Precision precision, const at::Device& device) {
  FrozenTarget target;
  target.embedding = embedding.to(device);
  target.head.softcap = config.final_softcap;
  target.head.reduced = config.reduced_vocab();
  Tensor draft_head = head;
  if (!config.d2t.empty()) {
    const Tensor ids = at::tensor(std::vector<int64_t>(config.d2t.begin(), config.d2t.end()), at::kLong);
    draft_head = head.index_select(0, ids);
    target.target_to_draft = at::full({config.vocab_size}, -1, at::kLong);
    target.target_to_draft.index_copy_(0, ids, at::arange(ids.size(0), at::kLong));
    target.target_to_draft = target.target_to_draft.to(device);
  }
  target.head.draft = HeadProduct(draft_head.to(device), precision, true);
  if (target.head.reduced) target.head.full = HeadProduct(head.to(device), precision, false);
  return target;
}

void move_to(DraftModel& model, const at::Device& device) {
  for (auto& [name, tensor] : model.trainable) {
    tensor = tensor.detach().to(device).contiguous().set_requires_grad(true);
  }
  for (auto& [name, tensor] : model.buffers) tensor = tensor.to(device);
}

}  // namespace dspark
