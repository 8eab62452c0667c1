#include "draft/capacity_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "draft/draft_checkpoint.h"
#include "draft/draft_readers.h"
#include "draft/draft_tensors.h"
#include "draft/v4_drafter.h"
#include "kernels/kv_cache.h"
#include "models/model_shapes.h"
#include "models/stored_form.h"

namespace dspark {
namespace {

constexpr double kBitsPerByte = 8.0;
constexpr double kBf16Bits = 16.0;

/// Weights of a model by how a pass reads them.
struct WeightSum {
  int64_t parameters = 0;
  double dense_bytes = 0.0;   // read by every pass
  double expert_bytes = 0.0;  // all routed experts
  double disk_bytes = 0.0;    // all, as the files keep them
  double table_bytes = 0.0;   // an embedding of which a pass reads single rows
  int64_t expert_parameters = 0;
  int64_t table_parameters = 0;
  double bytes() const { return dense_bytes + expert_bytes + table_bytes; }
};

double element_bytes(KvDType dtype) {
  switch (dtype) {
    case KvDType::kF32:
      return 4.0;
    case KvDType::kBF16:
      return 2.0;
    case KvDType::kQ8_0:
      return 1.0 + 2.0 / kKvScaleBlock;
  }
  return 0.0;
}

void add_tensor(const ExpectedTensor& tensor, const StoredForms& forms, double weight_bits, bool is_table,
                WeightSum& sum) {
  const int64_t n = tensor.n_elements();
  double bytes = forms.memory_bytes(tensor), disk_bytes = forms.disk_bytes(tensor);
  if (weight_bits > 0.0 && tensor.shape.size() >= 2) {
    bytes = disk_bytes = static_cast<double>(n) * weight_bits / kBitsPerByte;
  }
  sum.parameters += n;
  sum.disk_bytes += disk_bytes;
  if (is_routed_expert(tensor.name)) {
    sum.expert_bytes += bytes;
    sum.expert_parameters += n;
  } else if (is_table) {
    sum.table_bytes += bytes;
    sum.table_parameters += n;
  } else {
    sum.dense_bytes += bytes;
  }
}

// The share of the experts that `n_rows` rows reach, when every row chooses by itself.
double touched_share(const MoeConfig& moe, double n_rows) {
  if (moe.n_experts == 0) return 0.0;
  return 1.0 - std::pow(1.0 - static_cast<double>(moe.n_used) / moe.n_experts, n_rows);
}

double pass_bytes(const WeightSum& sum, const MoeConfig& moe, double n_rows) {
  return sum.dense_bytes + sum.expert_bytes * touched_share(moe, n_rows);
}

// Elements of the cache that one row reads of a sequence of `context` tokens.
double cache_reads(const ModelConfig& model, double context) {
  double elements = 0.0;
  for (int32_t i = 0; i < model.n_layers; ++i) {
    const LayerConfig& layer = model.layer(i);
    const double seen = layer.window > 0 ? std::min<double>(context, layer.window) : context;
    if (model.v4.n_streams == 0) {
      elements += seen * 2.0 * layer.n_kv_heads * layer.head_dim;
      continue;
    }
    const double entries = model.v4.rate(i) > 0 ? context / model.v4.rate(i) : 0.0;
    const bool sparse = model.v4.attention[static_cast<size_t>(i)] == V4Attention::kSparse;
    const double attended = sparse ? std::min<double>(entries, model.v4.index_topk) : entries;
    elements += (seen + attended) * model.head_dim + (sparse ? entries * model.v4.index_dim : 0.0);
  }
  return elements;
}

void fill_cache(const std::vector<KvLayerShape>& shapes, const PlanOptions& options, PlanPart& part) {
  double elements = 0.0;
  for (const KvLayerShape& shape : shapes) elements += 2.0 * shape.n_kv_heads * shape.head_dim;
  part.cache_bytes_per_token = elements * element_bytes(options.kv_dtype);
  const double pages = std::ceil(static_cast<double>(options.context) / kKvPageSize);
  part.cache_bytes = part.cache_bytes_per_token * pages * kKvPageSize * options.batch;
}

/// A drafter and what its passes read.
struct DraftSum {
  WeightSum weights;
  PlanPart part;
  double head_bytes = 0.0;  // of a head borrowed from the target
};

DraftSum sum_draft(const Checkpoint& file, const ModelConfig& model, const DraftConfig& draft, bool bundled,
                   const PlanOptions& options) {
  DraftSum sum;
  const StoredForms forms(file);
  std::vector<KvLayerShape> shapes;
  if (bundled) {
    for (const ExpectedTensor& tensor : v4_draft_tensors(file, model, draft)) {
      add_tensor(tensor, forms, options.weight_bits, tensor.name.ends_with("markov_w1.weight"), sum.weights);
    }
    shapes.assign(static_cast<size_t>(draft.n_layers), v4_kv_shape(model, V4Attention::kSliding));
    sum.head_bytes = static_cast<double>(model.vocab_size) * model.dim *
                     (options.weight_bits > 0.0 ? options.weight_bits : kBf16Bits) / kBitsPerByte;
  } else {
    for (const DraftTensor& tensor : draft_tensors(draft)) {
      const bool is_table =
          tensor.role == DraftTensorRole::kEmbedding || tensor.name == "markov_head.markov_w1.weight";
      add_tensor({tensor.name, tensor.shape}, forms, options.weight_bits, is_table, sum.weights);
    }
    shapes.assign(static_cast<size_t>(draft.n_layers), KvLayerShape{draft.n_kv_heads, draft.head_dim});
  }
  sum.part.parameters = sum.weights.parameters;
  sum.part.active_parameters = sum.weights.parameters - sum.weights.table_parameters;
  if (model.moe.n_experts > 0 && bundled) {
    sum.part.active_parameters -=
        sum.weights.expert_parameters / model.moe.n_experts * (model.moe.n_experts - model.moe.n_used);
  }
  sum.part.weight_bytes = sum.weights.bytes();
  sum.part.disk_bytes = sum.weights.disk_bytes;
  fill_cache(shapes, options, sum.part);
  return sum;
}

Status check_options(const PlanOptions& options) {
  if (options.context >= 1 && options.batch >= 1 && options.accept_length >= 1.0 &&
      options.weight_bits >= 0.0 && options.weight_bits <= 64.0) {
    return ok_status();
  }
  return invalid_argument(fmt::format(
      "plan: want a context and a batch of at least 1, an accepted length of at least 1 and 0 to 64 "
      "bits, found {}, {}, {} and {}",
      options.context, options.batch, options.accept_length, options.weight_bits));
}

}  // namespace

double CapacityPlan::plain_roof(double bandwidth, const PlanOptions& options) const {
  return options.batch * bandwidth / step_bytes;
}

double CapacityPlan::draft_roof(double bandwidth, const PlanOptions& options) const {
  return round_bytes > 0.0 ? options.batch * options.accept_length * bandwidth / round_bytes : 0.0;
}

Result<DraftConfig> plan_draft_config(const Checkpoint& file, const ModelConfig* target) {
  if (target != nullptr && target->v4.n_streams > 0 && !is_draft_checkpoint(file)) {
    return read_v4_draft_config(*target, file);
  }
  return read_draft_config(file);
}

Result<CapacityPlan> plan_capacity(const Checkpoint& target_file, const Checkpoint* draft_file,
                                   const PlanOptions& options) {
  DSPARK_RETURN_IF_ERROR(check_options(options));
  DSPARK_ASSIGN_OR_RETURN(const ModelConfig model, read_model_config(target_file));
  WeightSum sum;
  const StoredForms forms(target_file);
  for (const ExpectedTensor& tensor : expected_tensors(target_file, model)) {
    const bool is_embedding = tensor.name.ends_with("embed_tokens.weight") || tensor.name == "embed.weight" ||
                              tensor.name == "token_embd.weight";
    const bool is_table = (is_embedding && !model.tied_head) ||
                          tensor.name.ends_with("embed_tokens_per_layer.weight") ||
                          tensor.name == "per_layer_token_embd.weight";
    add_tensor(tensor, forms, options.weight_bits, is_table, sum);
  }
  CapacityPlan plan;
  plan.target.parameters = sum.parameters;
  plan.target.active_parameters = sum.parameters - sum.table_parameters;
  if (model.moe.n_experts > 0) {
    plan.target.active_parameters -=
        sum.expert_parameters / model.moe.n_experts * (model.moe.n_experts - model.moe.n_used);
  }
  plan.target.weight_bytes = sum.bytes();
  plan.target.disk_bytes = sum.disk_bytes;
  fill_cache(cache_shapes(model), options, plan.target);
  const double cache_read =
      cache_reads(model, options.context) * element_bytes(options.kv_dtype) * options.batch;
  plan.step_bytes = pass_bytes(sum, model.moe, options.batch) + cache_read;
  plan.total_bytes = plan.target.weight_bytes + plan.target.cache_bytes;
  if (draft_file == nullptr) return plan;

  DSPARK_ASSIGN_OR_RETURN(const DraftConfig draft, plan_draft_config(*draft_file, &model));
  const bool bundled = !is_draft_checkpoint(*draft_file);
  // The one inside a DeepSeek V4 may tap the last layer and was read against this target already.
  if (!bundled) {
    DSPARK_RETURN_IF_ERROR(check_draft_fits(draft, model));
  }
  const DraftSum drafter = sum_draft(*draft_file, model, draft, bundled, options);
  plan.draft = drafter.part;
  plan.block = draft.n_drafts();
  plan.total_bytes += drafter.part.weight_bytes + drafter.part.cache_bytes;
  const double rows = static_cast<double>(options.batch) * (plan.block + 1);
  plan.round_bytes = pass_bytes(sum, model.moe, rows) + cache_read +
                     pass_bytes(drafter.weights, bundled ? model.moe : MoeConfig(),
                                static_cast<double>(options.batch) * draft.block_size) +
                     drafter.head_bytes;
  return plan;
}

}  // namespace dspark
