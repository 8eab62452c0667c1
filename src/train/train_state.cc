#include "train/train_state.h"

#include <fmt/format.h>

#include "draft/draft_writer.h"
#include "formats/safetensors_writer.h"

namespace dspark {
namespace {

using at::Tensor;

std::span<const uint8_t> bytes_of(const Tensor& tensor) {
  return {static_cast<const uint8_t*>(tensor.const_data_ptr()), tensor.nbytes()};
}

/// Everything under the names of the file, on the CPU.
TensorMap flat(const TensorMap& masters, AdamW& adam, const TensorMap& average) {
  TensorMap all;
  const auto add = [&](const char* group, const TensorMap& map) {
    for (const auto& [name, tensor] : map) {
      all[fmt::format("{}.{}", group, name)] = tensor.detach().cpu().contiguous();
    }
  };
  add("master", masters);
  add("first", adam.first());
  add("second", adam.second());
  add("average", average);
  add("scale", adam.scales());
  return all;
}

Status fill(const Checkpoint& file, const char* group, TensorMap& map) {
  const at::NoGradGuard no_grad;
  for (auto& [name, tensor] : map) {
    const std::string stored = fmt::format("{}.{}", group, name);
    const TensorView* view = file.find(stored);
    if (view == nullptr) return invalid_argument(file.path() + ": no tensor '" + stored + "'");
    if (tensor.sizes() != at::IntArrayRef(view->shape)) {
      return invalid_argument(file.path() + ": tensor '" + stored + "' has another shape than the drafter's");
    }
    DSPARK_ASSIGN_OR_RETURN(const Tensor values, decode_tensor(*view));
    tensor.copy_(values);
  }
  return ok_status();
}

/// Those that the run began with. States from before there were any have none.
Status load_scales(const Checkpoint& file, const TensorMap& masters, AdamW& adam) {
  TensorMap scales;
  for (const auto& [name, tensor] : masters) {
    const TensorView* view = file.find("scale." + name);
    if (view == nullptr) continue;
    DSPARK_ASSIGN_OR_RETURN(scales[name], decode_tensor(*view));
    const int64_t n = scales[name].numel();
    if (scales[name].dim() != 1 || (n != 1 && n != tensor.size(-1))) {
      return invalid_argument(file.path() + ": tensor 'scale." + name + "' does not have 1 or " +
                              std::to_string(tensor.size(-1)) + " numbers");
    }
    if (!((scales[name] > 0) & at::isfinite(scales[name])).all().item<bool>()) {
      return corrupt_data(file.path() + ": tensor 'scale." + name + "' has numbers that are no step scales");
    }
  }
  if (!masters.empty()) adam.scale(std::move(scales), masters.begin()->second.device());
  return ok_status();
}

Result<double> number(const Checkpoint& file, const char* key) {
  const auto text = file.meta_string(key);
  if (!text) return corrupt_data(file.path() + ": metadata lacks '" + key + "'");
  char* end = nullptr;
  const double value = std::strtod(text->c_str(), &end);
  if (text->empty() || *end != '\0' || !(value >= 0)) {
    return corrupt_data(fmt::format("{}: {}: expected a number, found '{}'", file.path(), key, *text));
  }
  return value;
}

}  // namespace

Status save_state(const std::string& path, const TensorMap& masters, AdamW& adam, const TensorMap& average,
                  const TrainCounters& counters) {
  const TensorMap all = flat(masters, adam, average);
  DSPARK_ASSIGN_OR_RETURN(SafetensorsWriter writer, SafetensorsWriter::create(path));
  writer.set_metadata("step", std::to_string(counters.step));
  writer.set_metadata("anchors", std::to_string(counters.anchors));
  writer.set_metadata("elapsed_s", fmt::format("{}", counters.elapsed_s));
  writer.set_metadata("average", average.empty() ? "0" : "1");
  for (const auto& [name, tensor] : all) {
    DSPARK_RETURN_IF_ERROR(writer.declare(name, DType::kF32, tensor.sizes().vec()));
  }
  DSPARK_RETURN_IF_ERROR(writer.write_header());
  for (const auto& [name, tensor] : all) DSPARK_RETURN_IF_ERROR(writer.append(name, bytes_of(tensor)));
  return writer.finish();
}

Status load_state(const std::string& path, TensorMap& masters, AdamW& adam, TensorMap& average,
                  TrainCounters& counters) {
  DSPARK_ASSIGN_OR_RETURN(const Checkpoint file, Checkpoint::open(path));
  DSPARK_ASSIGN_OR_RETURN(const double step, number(file, "step"));
  DSPARK_ASSIGN_OR_RETURN(const double anchors, number(file, "anchors"));
  DSPARK_ASSIGN_OR_RETURN(counters.elapsed_s, number(file, "elapsed_s"));
  DSPARK_ASSIGN_OR_RETURN(const double averaged, number(file, "average"));
  counters.step = static_cast<int64_t>(step);
  counters.anchors = static_cast<int64_t>(anchors);
  adam.set_steps(counters.step);
  DSPARK_RETURN_IF_ERROR(fill(file, "master", masters));
  DSPARK_RETURN_IF_ERROR(fill(file, "first", adam.first()));
  DSPARK_RETURN_IF_ERROR(fill(file, "second", adam.second()));
  DSPARK_RETURN_IF_ERROR(load_scales(file, masters, adam));
  if (averaged == 0) return ok_status();
  for (const auto& [name, tensor] : masters) average[name] = at::zeros_like(tensor.detach());
  return fill(file, "average", average);
}

Status export_draft(const std::string& folder, const DraftConfig& config, const TensorMap& trainable,
                    const TensorMap& buffers) {
  std::vector<Tensor> kept;
  std::vector<NamedFloats> tensors;
  for (const TensorMap* map : {&trainable, &buffers}) {
    for (const auto& [name, tensor] : *map) {
      kept.push_back(tensor.detach().cpu().contiguous());
      tensors.push_back({name,
                         kept.back().sizes().vec(),
                         {kept.back().const_data_ptr<float>(), static_cast<size_t>(kept.back().numel())}});
    }
  }
  return write_deepspec_draft(folder, config, tensors, DType::kBF16);
}

}  // namespace dspark
