#include "models/stored_form.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "models/block_scales.h"

namespace dspark {
namespace {

using nlohmann::json;

constexpr double kFp4Bytes = 17.0 / 32.0;  // of an element: half a byte, and a byte of scale per 32

double bytes_of(DType dtype, int64_t n) {
  const DTypeInfo* info = dtype_info(dtype);
  const double each = info == nullptr ? 2.0 : static_cast<double>(info->block_bytes) / info->block_elements;
  return static_cast<double>(n) * each;
}

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

std::string text_of(const json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_string() ? it->get<std::string>() : "";
}

// The tensors that a release of DeepSeek V4 keeps in F32.
bool is_v4_float(std::string_view name) {
  return contains(name, "hc_") || name.ends_with(".ape") || name.ends_with(".attn_sink") ||
         name.ends_with(".gate.bias");
}

// The linear layers of DeepSeek V4 that its release quantises: attention without its compressors, the queries
// of the indexer, shared experts, and what joins the target's streams for the drafter inside.
bool is_v4_linear(std::string_view name) {
  if (contains(name, ".compressor.") || name.ends_with(".weights_proj.weight")) return false;
  return contains(name, ".attn.w") || name.ends_with(".indexer.wq_b.weight") ||
         contains(name, ".shared_experts.") || name.ends_with(".main_proj.weight");
}

bool is_linear(std::string_view name) {
  return name.ends_with("_proj.weight") || name.ends_with("_proj_with_mqa.weight");
}

}  // namespace

bool is_routed_expert(std::string_view name) {
  return (contains(name, "experts.") && !contains(name, "shared_experts.")) || contains(name, "_exps.");
}

StoredForms::StoredForms(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {
  const json& config = checkpoint.config();
  if (!config.is_object()) return;
  v4_ = text_of(config, "model_type") == "deepseek_v4";
  const auto quantised = config.find("quantization_config");
  if (quantised == config.end() || !quantised->is_object()) return;
  fp8_ = text_of(*quantised, "quant_method") == "fp8";
  fp4_experts_ = v4_ && fp8_ && text_of(config, "expert_dtype") == "fp4";
  if (text_of(*quantised, "scale_fmt") == "ue8m0") fp8_scale_ = DType::kF8_E8M0;
  const auto unconverted = quantised->find("modules_to_not_convert");
  if (unconverted == quantised->end() || !unconverted->is_array()) return;
  for (const json& name : *unconverted) {
    if (name.is_string() && !name.get_ref<const std::string&>().empty()) unconverted_.push_back(name);
  }
}

DType StoredForms::dtype(const ExpectedTensor& tensor) const {
  if (const TensorView* found = checkpoint_.find(tensor.name)) return found->dtype;
  const std::string_view name = tensor.name;
  if (name.ends_with("tid2eid")) return DType::kI64;
  if (v4_ && is_v4_float(name)) return DType::kF32;
  if (!fp8_ || tensor.shape.size() != 2) return DType::kBF16;
  if (is_routed_expert(name)) return fp4_experts_ ? DType::kI8 : DType::kF8_E4M3;
  const bool kept = std::any_of(unconverted_.begin(), unconverted_.end(),
                                [&](const std::string& part) { return contains(name, part); });
  return !kept && (v4_ ? is_v4_linear(name) : is_linear(name)) ? DType::kF8_E4M3 : DType::kBF16;
}

DType StoredForms::scale_dtype(const std::string& name) const {
  const TensorView* scale = find_scale(checkpoint_, name);
  return scale == nullptr ? fp8_scale_ : scale->dtype;
}

double StoredForms::disk_bytes(const ExpectedTensor& tensor) const {
  const int64_t n = tensor.n_elements();
  switch (const DType stored = dtype(tensor)) {
    case DType::kF8_E4M3: {
      int64_t blocks = 1;
      for (const int64_t extent : tensor.shape) blocks *= (extent + kFp8Block - 1) / kFp8Block;
      return bytes_of(stored, n) + bytes_of(scale_dtype(tensor.name), blocks);
    }
    case DType::kI8:
    case DType::kU8:
      return static_cast<double>(n) * kFp4Bytes;
    default:
      return bytes_of(stored, n);
  }
}

double StoredForms::memory_bytes(const ExpectedTensor& tensor) const {
  const int64_t n = tensor.n_elements();
  if (tensor.shape.size() < 2) return bytes_of(DType::kF32, n);
  switch (const DType stored = dtype(tensor)) {
    case DType::kF8_E4M3:
      return bytes_of(scale_dtype(tensor.name) == DType::kF8_E8M0 ? DType::kBF16 : DType::kF32, n);
    case DType::kI8:
    case DType::kU8:
      return static_cast<double>(n) * kFp4Bytes;  // MXFP4
    case DType::kI64:
      return bytes_of(DType::kI32, n);
    default:
      return bytes_of(stored, n);
  }
}

}  // namespace dspark
