// Parts of config.json that families share: rotary embeddings, end-of-text ids, the form of the weights.

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "models/config_readers.h"
#include "models/rope_scaling.h"

namespace dspark {

using nlohmann::json;

RopeParams read_hf_rope_object(JsonReader& in, double theta, int32_t context_length) {
  RopeParams rope;
  rope.theta = in.number("rope_theta", theta);
  const std::string type = in.text(in.has("rope_type") ? "rope_type" : "type", "default");
  const std::optional<RopeScaling> scaling = rope_scaling_from_name(type);
  if (!scaling) {
    in.fail(unsupported(fmt::format(
        "{}: rope type '{}' (supported: default, linear, llama3, yarn, proportional)", in.where(), type)));
    return rope;
  }
  rope.scaling = *scaling;
  if (rope.scaling == RopeScaling::kProportional) {
    rope.rotated_share = in.number("partial_rotary_factor", 1.0);
    rope.factor = in.number("factor", 1.0);
    return rope;
  }
  if (in.number("partial_rotary_factor", 1.0) != 1.0) {
    in.fail(unsupported(in.where() + ": 'partial_rotary_factor' other than 1"));
  }
  if (rope.scaling == RopeScaling::kNone) return rope;
  rope.factor = in.number("factor");
  if (rope.scaling == RopeScaling::kLinear) return rope;
  rope.original_context = in.size("original_max_position_embeddings", ConfigLimits::kContext, context_length);
  if (rope.scaling == RopeScaling::kLlama3) {
    rope.low_freq_factor = in.number("low_freq_factor");
    rope.high_freq_factor = in.number("high_freq_factor");
    return rope;
  }
  rope.beta_fast = in.number("beta_fast", 32.0);
  rope.beta_slow = in.number("beta_slow", 1.0);
  rope.truncate = in.flag("truncate", true);
  if (in.has("mscale")) rope.mscale = in.number("mscale");
  if (in.has("mscale_all_dim")) rope.mscale_all_dim = in.number("mscale_all_dim");
  if (in.has("attention_factor")) rope.attention_factor = in.number("attention_factor");
  return rope;
}

RopeParams read_hf_rope(JsonReader& in, double default_theta, int32_t context_length) {
  RopeParams rope;
  rope.theta = in.number("rope_theta", default_theta);
  for (const char* key : {"rope_parameters", "rope_scaling"}) {
    if (!in.has(key)) continue;
    const json& object = in.object().at(key);
    const std::string where = in.where() + ": " + key;
    if (!object.is_object()) {
      in.fail(invalid_argument(where + " is not an object"));
      return rope;
    }
    JsonReader nested(object, where);
    rope = read_hf_rope_object(nested, rope.theta, context_length);
    if (!nested.status().ok()) in.fail(nested.status());
    break;
  }
  if (Status st = check_rope_params(rope, in.where()); !st.ok()) in.fail(st);
  return rope;
}

std::vector<int32_t> read_hf_eos(const Checkpoint& checkpoint, int32_t vocab_size) {
  std::vector<int32_t> ids;
  for (const json* source : {&checkpoint.generation_config(), &checkpoint.config()}) {
    if (!source->is_object() || !source->contains("eos_token_id")) continue;
    const json& eos = source->at("eos_token_id");
    const json list = eos.is_array() ? eos : json::array({eos});
    for (const json& id : list) {
      if (!id.is_number_integer()) continue;
      const int64_t value = id.get<int64_t>();
      if (value >= 0 && value < vocab_size) ids.push_back(static_cast<int32_t>(value));
    }
    if (!ids.empty()) break;  // generation_config.json wins
  }
  return ids;
}

Status check_hf_quantisation(JsonReader& in) {
  if (!in.has("quantization_config")) return ok_status();
  const std::string where = in.where() + ": 'quantization_config'";
  const json& object = in.object().at("quantization_config");
  const json blocks = json::array({128, 128});
  if (object.is_object() && object.value("quant_method", json()) == "fp8" &&
      object.value("weight_block_size", blocks) == blocks) {
    return ok_status();
  }
  return unsupported(
      where + " (supported: fp8 in blocks of 128 x 128; else give the unquantised weights or a GGUF file)");
}

}  // namespace dspark
