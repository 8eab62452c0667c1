#include "draft/draft_checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "draft/draft_readers.h"
#include "draft/draft_tensors.h"
#include "formats/error_text.h"
#include "tensor/quantize.h"

namespace dspark {
namespace {

using nlohmann::json;

constexpr size_t kShownProblems = 8;

Status problems_to_status(const std::string& path, const std::vector<std::string>& problems) {
  if (problems.empty()) return ok_status();
  const size_t n_shown = std::min(kShownProblems, problems.size());
  std::string text =
      fmt::format("{}: {}", path, fmt::join(problems.begin(), problems.begin() + n_shown, "; "));
  if (n_shown < problems.size()) text += fmt::format("; and {} more", problems.size() - n_shown);
  return corrupt_data(std::move(text));
}

/// Floats, or blocks of quantised ones.
bool is_weight_type(DType dtype) {
  const bool integer =
      dtype == DType::kI8 || dtype == DType::kI16 || dtype == DType::kI32 || dtype == DType::kI64;
  return can_decode(dtype) && !integer;
}

/// Fills `out.tensors`; every tensor of the file must be explained, every required one there.
Status bind_tensors(const DraftDescription& draft, DraftCheckpoint& out) {
  const Checkpoint& file = *out.file;
  std::vector<std::string> problems;
  std::set<std::string> explained(draft.consumed.begin(), draft.consumed.end());
  for (const DraftTensor& tensor : draft_tensors(draft.config)) {
    const std::string name = draft_tensor_name(tensor, draft.naming);
    const TensorView* view = file.find(name);
    explained.insert(name);
    if (view == nullptr) {
      if (tensor.required) problems.push_back(fmt::format("tensor '{}' is missing", name));
      continue;
    }
    if (view->shape != tensor.shape) {
      problems.push_back(fmt::format("tensor '{}' has shape [{}], expected [{}]", name,
                                     fmt::join(view->shape, ", "), fmt::join(tensor.shape, ", ")));
    } else if (!is_weight_type(view->dtype)) {
      problems.push_back(fmt::format("tensor '{}' has type {}, expected floats or blocks of them", name,
                                     dtype_name(view->dtype)));
    } else {
      out.tensors.emplace(tensor.name, *view);
    }
  }
  for (const TensorView& tensor : file.tensors()) {
    if (explained.count(tensor.name) != 0) continue;
    problems.push_back(fmt::format("unknown tensor {} of shape [{}]", in_quotes(tensor.name),
                                   fmt::join(tensor.shape, ", ")));
  }
  return problems_to_status(file.path(), problems);
}

bool is_all_zero(const TensorView& tensor) {
  std::vector<float> row(static_cast<size_t>(tensor.row_elements()));
  for (int64_t r = 0; r < tensor.n_rows(); ++r) {
    decode_row(tensor.dtype, tensor.data + static_cast<size_t>(r) * tensor.row_bytes(), row.data(),
               tensor.row_elements());
    if (std::any_of(row.begin(), row.end(), [](float value) { return value != 0.0f; })) return false;
  }
  return true;
}

/// A DFlash drafter may carry an all-zero Markov head: beside one llama.cpp takes the drafts from the right
/// slots. It adds nothing, so it is dropped.
void drop_zero_head(DraftCheckpoint& draft) {
  DraftConfig& config = draft.config;
  const TensorView* w2 = draft.find("markov_head.markov_w2.weight");
  if (config.head != SequentialHead::kVanilla || config.confidence_with_markov || w2 == nullptr) return;
  if (!is_all_zero(*w2)) return;
  draft.tensors.erase("markov_head.markov_w1.weight");
  draft.tensors.erase("markov_head.markov_w2.weight");
  config.kind = DraftKind::kDFlash;
  config.head = SequentialHead::kNone;
  config.markov_rank = 0;
}

/// A speculators folder nests the config of the draft layers.
bool is_speculators(const json& config) {
  return config.contains("speculators_model_type") || config.contains("transformer_layer_config");
}

/// Empty when `file` is no GGUF file or names no architecture.
std::string gguf_architecture(const Checkpoint& file) {
  return file.meta_string("general.architecture").value_or("");
}

}  // namespace

std::string config_place(const Checkpoint& file) {
  return file.path() + ": config.json";
}

std::string first_architecture(const json& config) {
  if (!config.is_object() || !config.contains("architectures")) return "";
  const json& list = config.at("architectures");
  return list.is_array() && !list.empty() && list.front().is_string() ? list.front().get<std::string>() : "";
}

Status check_draft_sizes(const DraftConfig& config, const std::string& place) {
  if (config.head_dim % 2 != 0) {
    return invalid_argument(fmt::format("{}: heads have {} elements (head_dim), expected an even number",
                                        place, config.head_dim));
  }
  if (config.n_kv_heads > config.n_heads || config.n_heads % config.n_kv_heads != 0) {
    return invalid_argument(fmt::format("{}: {} attention heads are no multiple of {} key/value heads", place,
                                        config.n_heads, config.n_kv_heads));
  }
  return ok_status();
}

Status check_draft_taps(const DraftConfig& config, int32_t shown_shift, const std::string& place) {
  for (size_t i = 1; i < config.taps.size(); ++i) {
    if (config.taps[i] > config.taps[i - 1]) continue;
    return invalid_argument(fmt::format("{}: layer {} after {}, expected ascending, distinct layers", place,
                                        config.taps[i] + shown_shift, config.taps[i - 1] + shown_shift));
  }
  // After its last layer a target shows only what its final norm makes of it.
  if (config.target_layers > 0 && !config.taps.empty() && config.taps.back() >= config.target_layers) {
    return invalid_argument(fmt::format(
        "{}: layer {}, but the target has {} layers and the output of the last one cannot be tapped", place,
        config.taps.back() + shown_shift, config.target_layers));
  }
  return ok_status();
}

const TensorView* DraftCheckpoint::find(std::string_view name) const {
  const auto it = tensors.find(name);
  return it == tensors.end() ? nullptr : &it->second;
}

bool is_draft_checkpoint(const Checkpoint& file) {
  if (file.format() == Checkpoint::Format::kGguf) {
    const std::string name = gguf_architecture(file);
    return name == "dflash" || name == "dflash-draft" || name == "eagle3" || name == "dspark-eagle3" ||
           name == "dspark-mtp";
  }
  const json& config = file.config();
  if (!config.is_object()) return false;
  const std::string name = first_architecture(config);
  return is_speculators(config) || name.ends_with("DSparkModel") || name == "DSparkDraftModel" ||
         name == "DFlashDraftModel" || name == "Qwen3MTPModel" || name.find("Eagle3") != std::string::npos;
}

Result<DraftCheckpoint> open_draft_checkpoint(const std::string& path) {
  DSPARK_ASSIGN_OR_RETURN(Checkpoint opened, Checkpoint::open(path));
  return read_draft_checkpoint(std::make_shared<const Checkpoint>(std::move(opened)));
}

namespace {

Result<DraftDescription> describe(const Checkpoint& in) {
  if (!is_draft_checkpoint(in)) {
    const bool gguf = in.format() == Checkpoint::Format::kGguf;
    const std::string name = gguf ? gguf_architecture(in) : first_architecture(in.config());
    if (!gguf && in.config().is_null()) {
      return not_found(in.path() + ": no config.json beside the weights; pass the drafter's folder");
    }
    return unsupported(fmt::format("{}: not a drafter: {} is {}", in.path(),
                                   gguf ? "general.architecture" : "config.json: 'architectures'",
                                   in_quotes(name)));
  }
  const auto read = in.format() == Checkpoint::Format::kGguf ? read_gguf_draft
                    : is_speculators(in.config())            ? read_speculators_draft
                                                             : read_deepspec_draft;
  return read(in);
}

}  // namespace

Result<DraftConfig> read_draft_config(const Checkpoint& file) {
  DSPARK_ASSIGN_OR_RETURN(DraftDescription draft, describe(file));
  return std::move(draft.config);
}

Result<DraftCheckpoint> read_draft_checkpoint(std::shared_ptr<const Checkpoint> file) {
  DraftCheckpoint out;
  out.file = std::move(file);
  const Checkpoint& in = *out.file;
  DSPARK_ASSIGN_OR_RETURN(DraftDescription draft, describe(in));
  DSPARK_RETURN_IF_ERROR(bind_tensors(draft, out));
  out.config = std::move(draft.config);
  if (in.format() == Checkpoint::Format::kGguf) drop_zero_head(out);
  return out;
}

Status check_draft_fits(const DraftConfig& draft, const ModelConfig& target) {
  std::vector<std::string> problems;
  const auto compare = [&](const char* what, int32_t wanted, int32_t found) {
    if (wanted != found)
      problems.push_back(fmt::format("it wants {} {}, the target has {}", wanted, what, found));
  };
  compare("columns (width)", draft.dim, target.dim);
  compare("tokens (vocabulary)", draft.vocab_size, target.vocab_size);
  if (draft.target_layers > 0) compare("layers", draft.target_layers, target.n_layers);
  const bool after_last = draft.kind == DraftKind::kMtp;
  if (!draft.taps.empty() && draft.taps.back() > target.n_layers - (after_last ? 0 : 1)) {
    problems.push_back(
        fmt::format("it reads the output of layer {}, of the target's {} layers (from 0) that is {}",
                    draft.taps.back() - 1, target.n_layers,
                    draft.taps.back() == target.n_layers ? "the last, which cannot be tapped" : "none"));
  }
  if (problems.empty()) return ok_status();
  return invalid_argument(
      fmt::format("the drafter was not made for this target: {}", fmt::join(problems, "; ")));
}

}  // namespace dspark
