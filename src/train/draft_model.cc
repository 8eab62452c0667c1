#include "train/draft_model.h"

#include "draft/draft_tensors.h"
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
  ShapeList shapes;
  for (const DraftTensor& tensor : draft_tensors(config)) {
    if (tensor.name == kEmbedding || tensor.name == kHead || !tensor.required) continue;
    if (!ends_with(tensor.name, "layer_scalar")) shapes.push_back({tensor.name, tensor.shape});
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
