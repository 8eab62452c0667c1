#include "draft/draft_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "draft/draft_tensors.h"
#include "formats/atomic_file.h"
#include "formats/error_text.h"
#include "formats/safetensors_writer.h"
#include "models/rope_scaling.h"
#include "tensor/quantize.h"

namespace dspark {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

constexpr size_t kShownProblems = 8;

const char* architecture(const DraftConfig& c) {
  const bool gemma = c.backbone == DraftBackbone::kGemma4;
  switch (c.kind) {
    case DraftKind::kDSpark:
    case DraftKind::kDFlash:
      return gemma ? "Gemma4DSparkModel" : "Qwen3DSparkModel";
    case DraftKind::kEagle3:
      return gemma ? "Gemma4Eagle3Model" : "Qwen3Eagle3Model";
    case DraftKind::kMtp:
      return "Qwen3MTPModel";
  }
  return "";
}

/// A float as the shortest decimal that reads back as the same float.
double shortest(float value) {
  return std::stod(fmt::format("{}", value));
}

/// The first pairs as the plain embedding has them, the others still: returns how many rotate, or -1.
int64_t rotating_prefix(const RopeTable& rope, const RopeTable& plain) {
  size_t n = 0;
  while (n < rope.inv_freq.size() && rope.inv_freq[n] == plain.inv_freq[n]) ++n;
  for (size_t j = n; j < rope.inv_freq.size(); ++j) {
    if (rope.inv_freq[j] != 0.0f) return -1;
  }
  return static_cast<int64_t>(n);
}

ordered_json rope_json(const DraftConfig& c) {
  RopeParams params;
  params.theta = c.rope_theta;
  const RopeTable plain = make_rope_table(params, c.head_dim);
  const auto n_pairs = static_cast<int64_t>(c.rope.inv_freq.size());
  const int64_t n_rotating = rotating_prefix(c.rope, plain);
  const double factor = static_cast<double>(n_rotating) / static_cast<double>(std::max<int64_t>(1, n_pairs));
  const bool factor_says_it =
      n_rotating > 0 && static_cast<int64_t>(factor * static_cast<double>(n_pairs)) == n_rotating;
  ordered_json rope = {{"rope_theta", c.rope_theta}};
  if (c.rope.attention_factor == 1.0f && n_rotating == n_pairs && c.backbone == DraftBackbone::kQwen3) {
    rope["rope_type"] = "default";
  } else if (c.rope.attention_factor == 1.0f && factor_says_it) {
    rope["rope_type"] = "proportional";
    rope["partial_rotary_factor"] = factor;
  } else {
    rope["rope_type"] = "table";
    ordered_json& values = rope["inv_freq"] = ordered_json::array();
    for (const float value : c.rope.inv_freq) values.push_back(shortest(value));
    rope["attention_factor"] = shortest(c.rope.attention_factor);
  }
  if (c.backbone == DraftBackbone::kGemma4) return {{"full_attention", rope}};
  return rope;
}

void set_backbone(const DraftConfig& c, ordered_json& out) {
  const bool gemma = c.backbone == DraftBackbone::kGemma4;
  out["model_type"] = gemma ? "gemma4_text" : "qwen3";
  out["num_hidden_layers"] = c.n_layers;
  out["hidden_size"] = c.dim;
  out["intermediate_size"] = c.ffn_dim;
  out["num_attention_heads"] = c.n_heads;
  out["vocab_size"] = c.vocab_size;
  out["max_position_embeddings"] = c.context_length;
  out["rms_norm_eps"] = shortest(c.norm_eps);
  out["attention_bias"] = c.attention_bias;
  out["layer_types"] = std::vector<std::string>(static_cast<size_t>(c.n_layers), "full_attention");
  out["rope_parameters"] = rope_json(c);
  if (c.final_softcap > 0.0f) out["final_logit_softcapping"] = shortest(c.final_softcap);
  const bool gelu = c.activation == GateActivation::kGeluTanh;
  out[gemma ? "hidden_activation" : "hidden_act"] = gelu ? "gelu_pytorch_tanh" : "silu";
  if (gemma) {
    out["global_head_dim"] = c.head_dim;
    out["attention_k_eq_v"] = c.k_eq_v;
    out[c.k_eq_v ? "num_global_key_value_heads" : "num_key_value_heads"] = c.n_kv_heads;
  } else {
    out["head_dim"] = c.head_dim;
    out["num_key_value_heads"] = c.n_kv_heads;
    if (!c.qk_norm) out["qk_norm"] = false;
  }
  out["attention_scale"] = shortest(c.attention_scale);
  out["embedding_scale"] = shortest(c.embedding_scale);
  out["tie_word_embeddings"] = false;
}

std::vector<int32_t> layer_ids(const DraftConfig& c) {
  std::vector<int32_t> ids = c.taps;
  for (int32_t& id : ids) id -= 1;
  return ids;
}

void set_block(const DraftConfig& c, ordered_json& out) {
  out["num_target_layers"] = c.target_layers;
  if (!c.target_name.empty()) out["target_model_name_or_path"] = c.target_name;
  if (c.reduced_vocab()) out["draft_vocab_size"] = c.draft_vocab_size;
  if (c.kind == DraftKind::kMtp) return;
  out["target_layer_ids"] = layer_ids(c);
  if (c.kind == DraftKind::kEagle3) {
    out["ttt_length"] = c.block_size;
    return;
  }
  out["block_size"] = c.block_size;
  if (c.short_block > 0) out["short_block_size"] = c.short_block;
  out["mask_token_id"] = c.mask_token_id;
  if (!c.anchor_predicts) out["sample_from_anchor"] = false;
  if (c.causal) out["causal"] = true;
  if (c.window > 0) out["draft_sliding_window"] = c.window;
  out["markov_rank"] = c.markov_rank;
  if (c.markov_rank > 0) out["markov_head_type"] = sequential_head_name(c.head);
  out["enable_confidence_head"] = c.confidence;
  if (c.confidence) out["confidence_head_with_markov"] = c.confidence_with_markov;
}

Status check_tensors(const std::vector<DraftTensor>& wanted, std::span<const NamedFloats> given) {
  std::vector<std::string> problems;
  std::set<std::string> names;
  for (const NamedFloats& tensor : given) {
    if (!names.insert(tensor.name).second) problems.push_back(in_quotes(tensor.name) + " is given twice");
    const auto it = std::find_if(wanted.begin(), wanted.end(),
                                 [&](const DraftTensor& want) { return want.name == tensor.name; });
    int64_t n_elements = 1;
    for (const int64_t n : tensor.shape) n_elements *= n;
    if (it == wanted.end()) {
      problems.push_back(in_quotes(tensor.name) + " is unknown");
    } else if (tensor.shape != it->shape || static_cast<size_t>(n_elements) != tensor.values.size()) {
      problems.push_back(fmt::format("'{}' has shape [{}] and {} values, expected [{}]", tensor.name,
                                     fmt::join(tensor.shape, ", "), tensor.values.size(),
                                     fmt::join(it->shape, ", ")));
    }
  }
  for (const DraftTensor& want : wanted) {
    if (want.required && names.count(want.name) == 0) problems.push_back("'" + want.name + "' is missing");
  }
  if (problems.empty()) return ok_status();
  const size_t n_shown = std::min(kShownProblems, problems.size());
  std::string text = fmt::format("tensors of the drafter: {}",
                                 fmt::join(problems.begin(), problems.begin() + n_shown, "; "));
  if (n_shown < problems.size()) text += fmt::format("; and {} more", problems.size() - n_shown);
  return invalid_argument(std::move(text));
}

Status check_config(const DraftConfig& c) {
  if (c.target_layers < 1)
    return invalid_argument("the drafter's configuration lacks the target's layer count");
  const bool single = c.kind == DraftKind::kEagle3 || c.kind == DraftKind::kMtp;
  if (single && c.n_layers != 1) {
    return invalid_argument(
        fmt::format("{} layers, but {} drafters have one", c.n_layers, draft_kind_name(c.kind)));
  }
  DSPARK_RETURN_IF_ERROR(check_short_block(c, "the drafter's short blocks"));
  if (c.rope.inv_freq.size() != static_cast<size_t>(c.head_dim / 2)) {
    return invalid_argument(
        fmt::format("the rotary table has {} pairs, expected {}", c.rope.inv_freq.size(), c.head_dim / 2));
  }
  if (c.reduced_vocab() != !c.d2t.empty() ||
      (c.reduced_vocab() && c.d2t.size() != static_cast<size_t>(c.draft_vocab_size))) {
    return invalid_argument(fmt::format("d2t has {} rows for a draft vocabulary of {} of {}", c.d2t.size(),
                                        c.draft_vocab_size, c.vocab_size));
  }
  for (size_t i = 0; i < c.d2t.size(); ++i) {
    const int32_t before = i == 0 ? -1 : c.d2t[i - 1];
    if (c.d2t[i] > before && c.d2t[i] < c.vocab_size) continue;
    return invalid_argument(
        fmt::format("d2t row {} is {} after {}: not ascending below {}", i, c.d2t[i], before, c.vocab_size));
  }
  return ok_status();
}

Status append_floats(SafetensorsWriter& writer, const NamedFloats& tensor, DType dtype) {
  constexpr size_t kChunk = 1 << 20;
  std::vector<uint8_t> bytes;
  for (size_t first = 0; first < tensor.values.size(); first += kChunk) {
    const auto part = tensor.values.subspan(first, std::min(kChunk, tensor.values.size() - first));
    if (!std::all_of(part.begin(), part.end(), [](float value) { return std::isfinite(value); })) {
      return invalid_argument(fmt::format("tensor '{}' holds a number that is not finite", tensor.name));
    }
    const auto n = static_cast<int64_t>(part.size());
    bytes.resize(dtype_row_bytes(dtype, n));
    encode_row(dtype, part.data(), bytes.data(), n);
    DSPARK_RETURN_IF_ERROR(writer.append(tensor.name, bytes));
  }
  return ok_status();
}

Status write_weights(const std::string& path, const DraftConfig& c, std::span<const NamedFloats> tensors,
                     DType dtype) {
  DSPARK_ASSIGN_OR_RETURN(SafetensorsWriter writer, SafetensorsWriter::create(path));
  writer.set_metadata("format", "pt");
  std::vector<int64_t> offsets;
  std::vector<uint8_t> kept(c.reduced_vocab() ? static_cast<size_t>(c.vocab_size) : 0);
  for (size_t i = 0; i < c.d2t.size(); ++i) {
    offsets.push_back(c.d2t[i] - static_cast<int64_t>(i));
    kept[static_cast<size_t>(c.d2t[i])] = 1;
  }
  // Wide types first keep all tensors aligned.
  if (c.reduced_vocab()) DSPARK_RETURN_IF_ERROR(writer.declare("d2t", DType::kI64, {c.draft_vocab_size}));
  for (const NamedFloats& tensor : tensors) {
    DSPARK_RETURN_IF_ERROR(writer.declare(tensor.name, dtype, tensor.shape));
  }
  if (c.reduced_vocab()) DSPARK_RETURN_IF_ERROR(writer.declare("t2d", DType::kBool, {c.vocab_size}));
  DSPARK_RETURN_IF_ERROR(writer.write_header());
  if (c.reduced_vocab()) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(offsets.data());
    DSPARK_RETURN_IF_ERROR(writer.append("d2t", {bytes, offsets.size() * sizeof(int64_t)}));
  }
  for (const NamedFloats& tensor : tensors) DSPARK_RETURN_IF_ERROR(append_floats(writer, tensor, dtype));
  if (c.reduced_vocab()) DSPARK_RETURN_IF_ERROR(writer.append("t2d", kept));
  return writer.finish();
}

}  // namespace

Status write_deepspec_draft(const std::string& folder, const DraftConfig& config,
                            std::span<const NamedFloats> tensors, DType dtype) {
  if (dtype != DType::kBF16 && dtype != DType::kF32) {
    return invalid_argument(fmt::format("drafters are written as BF16 or F32, not {}", dtype_name(dtype)));
  }
  DSPARK_RETURN_IF_ERROR(check_config(config));
  DSPARK_RETURN_IF_ERROR(check_tensors(draft_tensors(config), tensors));
  ordered_json out = {{"architectures", {architecture(config)}}};
  out["dtype"] = dtype == DType::kBF16 ? "bfloat16" : "float32";
  set_backbone(config, out);
  set_block(config, out);
  std::error_code ec;
  fs::create_directories(folder, ec);
  if (ec) return invalid_argument(fmt::format("{}: cannot make the folder: {}", folder, ec.message()));
  DSPARK_RETURN_IF_ERROR(
      write_weights((fs::path(folder) / "model.safetensors").string(), config, tensors, dtype));
  const std::string text = out.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
  DSPARK_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::create((fs::path(folder) / "config.json").string()));
  DSPARK_RETURN_IF_ERROR(file.write({reinterpret_cast<const uint8_t*>(text.data()), text.size()}));
  return file.commit();
}

}  // namespace dspark
