#include "models/weights.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <string>
#include <unordered_set>
#include <utility>

#include "models/tensor_table.h"
#include "tensor/quantize.h"

namespace dspark {
namespace {

constexpr size_t kNamesInMessage = 8;  // enough to recognise the mistake

bool is_integer(DType dtype) {
  switch (dtype) {
    case DType::kI8:
    case DType::kI16:
    case DType::kI32:
    case DType::kI64:
    case DType::kBool:
    case DType::kU8:
    case DType::kU16:
    case DType::kU32:
    case DType::kU64:
      return true;
    default:
      return false;
  }
}

std::string list_names(const std::vector<std::string>& names) {
  const size_t shown = std::min(names.size(), kNamesInMessage);
  std::string text =
      fmt::format("{}", fmt::join(names.begin(), names.begin() + static_cast<ptrdiff_t>(shown), ", "));
  if (names.size() > shown) text += fmt::format(" and {} more", names.size() - shown);
  return text;
}

/// Looks tensors up by name and shape, and remembers what was wrong and what was never asked for.
class TensorFinder {
 public:
  explicit TensorFinder(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}

  void expect(const std::string& name, const std::vector<int64_t>& shape) {
    known_.insert(name);
    const TensorView* tensor = checkpoint_.find(name);
    if (tensor == nullptr) {
      missing_.push_back(name);
    } else if (tensor->shape != shape) {
      misshapen_.push_back(fmt::format("{} is [{}], expected [{}]", name, fmt::join(tensor->shape, ", "),
                                       fmt::join(shape, ", ")));
    } else if (!can_decode(tensor->dtype) || is_integer(tensor->dtype)) {
      undecodable_.push_back(fmt::format("{} ({})", name, dtype_name(tensor->dtype)));
    }
  }

  /// The tensor may be there; nobody reads it.
  void allow(const std::string& name) { known_.insert(name); }

  Status finish(const TensorNames& names, const ModelConfig& config) const {
    std::vector<std::string> unknown;
    for (const TensorView& tensor : checkpoint_.tensors()) {
      if (known_.contains(tensor.name) || names.is_ignorable(tensor.name, config)) continue;
      unknown.push_back(tensor.name);
    }
    const auto error = [&](const char* what, const std::vector<std::string>& list) {
      return fmt::format("{}: {} {}: {}", checkpoint_.path(), list.size(), what, list_names(list));
    };
    if (!missing_.empty()) return invalid_argument(error("missing tensor(s)", missing_));
    if (!misshapen_.empty()) return invalid_argument(error("tensor(s) of the wrong shape", misshapen_));
    if (!unknown.empty()) {
      return unsupported(
          error(("tensor(s) that a " + config.arch + " model does not have").c_str(), unknown));
    }
    if (!undecodable_.empty())
      return unsupported(error("tensor(s) of a type that weights cannot have", undecodable_));
    return ok_status();
  }

 private:
  const Checkpoint& checkpoint_;
  std::unordered_set<std::string> known_;
  std::vector<std::string> missing_;
  std::vector<std::string> misshapen_;
  std::vector<std::string> undecodable_;
};

/// order[i] = stored row of our row i: undoes the interleaving of rotary pairs head by head.
/// Ours: row s * hd/2 + j of a head; stored: row 2j + s.
std::vector<int32_t> deinterleave(int32_t n_heads, int32_t head_dim) {
  std::vector<int32_t> order;
  order.reserve(static_cast<size_t>(n_heads) * static_cast<size_t>(head_dim));
  for (int32_t head = 0; head < n_heads; ++head) {
    for (int32_t half = 0; half < 2; ++half) {
      for (int32_t pair = 0; pair < head_dim / 2; ++pair) order.push_back(head * head_dim + 2 * pair + half);
    }
  }
  return order;
}

class WeightLoader {
 public:
  WeightLoader(const Checkpoint& checkpoint, const ModelConfig& config, ThreadPool& pool,
               bool float_activations)
      : checkpoint_(checkpoint),
        config_(config),
        pool_(pool),
        float_activations_(float_activations),
        names_(checkpoint) {
    if (config.qk_interleaved) {
      query_rows_ = deinterleave(config.n_heads, config.head_dim);
      key_rows_ = deinterleave(config.n_kv_heads, config.head_dim);
    }
  }

  Result<ModelWeights> load() {
    DSPARK_RETURN_IF_ERROR(check_all());
    ModelWeights weights;
    weights.embedding = *checkpoint_.find(names_.embedding());
    weights.layers.resize(static_cast<size_t>(config_.n_layers));
    for (int32_t layer = 0; layer < config_.n_layers; ++layer) {
      for (const LayerTensor& tensor : layer_tensors(config_, layer)) {
        DSPARK_RETURN_IF_ERROR(load_layer_tensor(tensor, layer, weights));
      }
    }
    if (config_.per_layer_dim > 0) {
      weights.per_layer_embedding = *checkpoint_.find(names_.per_layer_embedding());
      weights.per_layer_norm = load_vector(names_.per_layer_norm(), true, {});
      DSPARK_ASSIGN_OR_RETURN(weights.per_layer_projection, load_matrix(names_.per_layer_projection(), {}));
      weights.packed_bytes += weights.per_layer_projection.data.size();
    }
    weights.final_norm = load_vector(names_.final_norm(), true, {});
    const std::string head = config_.tied_head ? names_.embedding() : names_.head();
    if (const TensorView* stored = checkpoint_.find(head)) weights.head_tensor = *stored;
    DSPARK_ASSIGN_OR_RETURN(weights.head, load_matrix(head, {}));
    weights.packed_bytes += weights.head.data.size();
    return weights;
  }

 private:
  Status check_all() const {
    TensorFinder finder(checkpoint_);
    finder.expect(names_.embedding(), {config_.vocab_size, config_.dim});
    finder.expect(names_.final_norm(), {config_.dim});
    if (!config_.tied_head) finder.expect(names_.head(), {config_.vocab_size, config_.dim});
    if (config_.per_layer_dim > 0) {
      const int64_t all_layers = static_cast<int64_t>(config_.n_layers) * config_.per_layer_dim;
      finder.expect(names_.per_layer_embedding(), {config_.vocab_size, all_layers});
      finder.expect(names_.per_layer_projection(), {all_layers, config_.dim});
      finder.expect(names_.per_layer_norm(), {config_.per_layer_dim});
    }
    for (int32_t layer = 0; layer < config_.n_layers; ++layer) {
      for (const LayerTensor& tensor : layer_tensors(config_, layer)) {
        std::vector<int64_t> shape = {extent_of(config_, config_.layer(layer), tensor.out)};
        if (tensor.matrix != nullptr) shape.push_back(extent_of(config_, config_.layer(layer), tensor.in));
        finder.expect(names_.layer(tensor, layer), shape);
      }
      for (const LayerTensor& tensor : unread_layer_tensors(config_, layer)) {
        finder.allow(names_.layer(tensor, layer));
      }
    }
    return finder.finish(names_, config_);
  }

  std::span<const int32_t> row_order(RowOrder rows) const {
    if (rows == RowOrder::kQueryHeads) return query_rows_;
    if (rows == RowOrder::kKeyHeads) return key_rows_;
    return {};
  }

  Status load_layer_tensor(const LayerTensor& tensor, int32_t layer, ModelWeights& weights) {
    LayerWeights& slot = weights.layers[static_cast<size_t>(layer)];
    const std::string name = names_.layer(tensor, layer);
    if (tensor.vector != nullptr) {
      slot.*tensor.vector = load_vector(name, tensor.is_norm, row_order(tensor.rows));
      return ok_status();
    }
    DSPARK_ASSIGN_OR_RETURN(slot.*tensor.matrix, load_matrix(name, row_order(tensor.rows)));
    weights.packed_bytes += (slot.*tensor.matrix).data.size();
    return ok_status();
  }

  Result<PackedMatrix> load_matrix(const std::string& name, std::span<const int32_t> rows) {
    const TensorView& tensor = *checkpoint_.find(name);
    // The file's pages are read once; without this the process would hold the weights twice.
    const auto drop = [&](std::span<const uint8_t> bytes) { checkpoint_.drop_resident(bytes); };
    Result<PackedMatrix> packed = pack_matrix(pool_, tensor, float_activations_, rows, &arena_, drop);
    if (!packed.ok()) {
      return Status(packed.status().code(), checkpoint_.path() + ": " + packed.status().message());
    }
    return packed;
  }

  std::vector<float> load_vector(const std::string& name, bool is_norm, std::span<const int32_t> rows) const {
    const TensorView& tensor = *checkpoint_.find(name);
    std::vector<float> stored(static_cast<size_t>(tensor.n_elements()));
    decode_row(tensor.dtype, tensor.data, stored.data(), tensor.n_elements());
    if (is_norm && config_.norm_plus_one) {
      for (float& w : stored) w += 1.0f;
    }
    if (rows.empty()) return stored;
    std::vector<float> ordered(stored.size());
    for (size_t i = 0; i < ordered.size(); ++i) ordered[i] = stored[static_cast<size_t>(rows[i])];
    return ordered;
  }

  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
  ThreadPool& pool_;
  bool float_activations_;
  Arena arena_;  // one pass reads the matrices in the order in which they are packed
  TensorNames names_;
  std::vector<int32_t> query_rows_;
  std::vector<int32_t> key_rows_;
};

}  // namespace

Result<ModelWeights> load_weights(const Checkpoint& checkpoint, const ModelConfig& config, ThreadPool& pool,
                                  bool float_activations) {
  return WeightLoader(checkpoint, config, pool, float_activations).load();
}

}  // namespace dspark
