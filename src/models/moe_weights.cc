#include "models/moe_weights.h"

#include <fmt/format.h>

#include <cmath>

namespace dspark {
namespace {

MoeNames gguf_names(const std::string& arch, const MoeConfig& config, const std::string& prefix) {
  MoeNames names;
  names.stacked = true;
  names.router = prefix + "ffn_gate_inp.weight";
  names.down = prefix + "ffn_down_exps.weight";
  if (arch == "gemma4") {
    names.gate_up = prefix + "ffn_gate_up_exps.weight";
    names.router_scale = prefix + "ffn_gate_inp.scale";
    names.expert_scale = prefix + "ffn_down_exps.scale";
    names.in_norm = prefix + "pre_ffw_norm_2.weight";
    names.out_norm = prefix + "post_ffw_norm_2.weight";
    names.dense_norm = prefix + "post_ffw_norm_1.weight";
    return names;
  }
  names.gate = prefix + "ffn_gate_exps.weight";
  names.up = prefix + "ffn_up_exps.weight";
  if (config.choice_bias) names.choice_bias = prefix + "exp_probs_b.bias";
  if (config.shared_dim > 0) {
    names.shared_gate = prefix + "ffn_gate_shexp.weight";
    names.shared_up = prefix + "ffn_up_shexp.weight";
    names.shared_down = prefix + "ffn_down_shexp.weight";
  }
  return names;
}

MoeNames gemma4_names(const std::string& prefix) {
  MoeNames names;
  names.stacked = true;
  names.router = prefix + "router.proj.weight";
  names.router_scale = prefix + "router.scale";
  names.expert_scale = prefix + "router.per_expert_scale";
  names.gate_up = prefix + "experts.gate_up_proj";
  names.down = prefix + "experts.down_proj";
  names.in_norm = prefix + "pre_feedforward_layernorm_2.weight";
  names.out_norm = prefix + "post_feedforward_layernorm_2.weight";
  names.dense_norm = prefix + "post_feedforward_layernorm_1.weight";
  return names;
}

MoeNames deepseek4_names(const MoeConfig& config, const std::string& prefix) {
  MoeNames names;
  names.router = prefix + "ffn.gate.weight";
  if (config.choice_bias) names.choice_bias = prefix + "ffn.gate.bias";
  names.expert_prefix = prefix + "ffn.experts.";
  names.gate = "w1.weight";
  names.up = "w3.weight";
  names.down = "w2.weight";
  if (config.shared_dim > 0) {
    names.shared_gate = prefix + "ffn.shared_experts.w1.weight";
    names.shared_up = prefix + "ffn.shared_experts.w3.weight";
    names.shared_down = prefix + "ffn.shared_experts.w2.weight";
  }
  return names;
}

std::string expert_name(const MoeNames& names, int32_t expert, const std::string& part) {
  return fmt::format("{}{}.{}", names.expert_prefix, expert, part);
}

Status load_expert(WeightReader& reader, const MoeNames& names, const MoeConfig& config, int64_t dim,
                   int32_t expert, ExpertWeights& out) {
  const int64_t width = config.expert_dim;
  if (!names.stacked) {
    DSPARK_ASSIGN_OR_RETURN(out.gate, reader.matrix(expert_name(names, expert, names.gate)));
    DSPARK_ASSIGN_OR_RETURN(out.up, reader.matrix(expert_name(names, expert, names.up)));
    DSPARK_ASSIGN_OR_RETURN(out.down, reader.matrix(expert_name(names, expert, names.down)));
    return ok_status();
  }
  if (names.gate_up.empty()) {
    DSPARK_ASSIGN_OR_RETURN(out.gate, reader.matrix_rows(names.gate, expert * width, width));
    DSPARK_ASSIGN_OR_RETURN(out.up, reader.matrix_rows(names.up, expert * width, width));
  } else {
    DSPARK_ASSIGN_OR_RETURN(out.gate, reader.matrix_rows(names.gate_up, 2 * expert * width, width));
    DSPARK_ASSIGN_OR_RETURN(out.up, reader.matrix_rows(names.gate_up, (2 * expert + 1) * width, width));
  }
  DSPARK_ASSIGN_OR_RETURN(out.down, reader.matrix_rows(names.down, expert * dim, dim));
  return ok_status();
}

Status load_token_experts(WeightReader& reader, const std::string& name, const MoeConfig& config,
                          MoeWeights& weights) {
  const std::vector<int64_t> ids = reader.integers(name);
  weights.token_experts.reserve(ids.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= config.n_experts) {
      return invalid_argument(fmt::format("{}: {}: token {} is sent to expert {} of {}",
                                          reader.checkpoint().path(), name,
                                          i / static_cast<size_t>(config.n_used), ids[i], config.n_experts));
    }
    weights.token_experts.push_back(static_cast<int32_t>(ids[i]));
  }
  return ok_status();
}

}  // namespace

MoeNames moe_names(const std::string& arch, const MoeConfig& config, bool gguf, const std::string& prefix) {
  if (gguf) return gguf_names(arch, config, prefix);
  if (arch == "gemma4") return gemma4_names(prefix);
  if (arch == "deepseek4") return deepseek4_names(config, prefix);
  MoeNames names;
  names.router = prefix + "mlp.gate.weight";
  if (config.choice_bias) names.choice_bias = prefix + "mlp.gate.e_score_correction_bias";
  names.expert_prefix = prefix + "mlp.experts.";
  names.gate = "gate_proj.weight";
  names.up = "up_proj.weight";
  names.down = "down_proj.weight";
  if (config.shared_dim > 0) {
    names.shared_gate = prefix + "mlp.shared_experts.gate_proj.weight";
    names.shared_up = prefix + "mlp.shared_experts.up_proj.weight";
    names.shared_down = prefix + "mlp.shared_experts.down_proj.weight";
  }
  return names;
}

void expect_moe(TensorFinder& finder, const MoeNames& names, const MoeConfig& config, int64_t dim,
                int64_t vocab_size) {
  const int64_t n_experts = config.n_experts, width = config.expert_dim;
  const auto expect = [&](const std::string& name, const std::vector<int64_t>& shape) {
    if (!name.empty()) finder.expect(name, shape);
  };
  expect(names.router, {n_experts, dim});
  expect(names.router_scale, {dim});
  expect(names.choice_bias, {n_experts});
  expect(names.expert_scale, {n_experts});
  if (!names.token_experts.empty()) finder.expect_integers(names.token_experts, {vocab_size, config.n_used});
  for (const std::string* norm : {&names.in_norm, &names.out_norm, &names.dense_norm}) expect(*norm, {dim});
  expect(names.shared_gate, {config.shared_dim, dim});
  expect(names.shared_up, {config.shared_dim, dim});
  expect(names.shared_down, {dim, config.shared_dim});
  if (names.stacked) {
    expect(names.gate_up, {n_experts, 2 * width, dim});
    expect(names.gate, {n_experts, width, dim});
    expect(names.up, {n_experts, width, dim});
    expect(names.down, {n_experts, dim, width});
    return;
  }
  for (int32_t e = 0; e < config.n_experts; ++e) {
    finder.expect(expert_name(names, e, names.gate), {width, dim});
    finder.expect(expert_name(names, e, names.up), {width, dim});
    finder.expect(expert_name(names, e, names.down), {dim, width});
  }
}

Status load_moe(WeightReader& reader, const MoeNames& names, const MoeConfig& config, int64_t dim,
                MoeWeights& weights) {
  DSPARK_ASSIGN_OR_RETURN(weights.router, reader.matrix(names.router));
  const auto floats = [&](const std::string& name) {
    return name.empty() ? std::vector<float>() : reader.floats(name);
  };
  weights.choice_bias = floats(names.choice_bias);
  weights.expert_scale = floats(names.expert_scale);
  weights.in_norm = floats(names.in_norm);
  weights.out_norm = floats(names.out_norm);
  weights.dense_norm = floats(names.dense_norm);
  weights.router_norm = floats(names.router_scale);
  const float width_scale = 1.0f / std::sqrt(static_cast<float>(dim));
  for (float& scale : weights.router_norm) scale *= width_scale;
  if (!names.token_experts.empty()) {
    DSPARK_RETURN_IF_ERROR(load_token_experts(reader, names.token_experts, config, weights));
  }
  weights.experts.resize(static_cast<size_t>(config.n_experts));
  for (int32_t e = 0; e < config.n_experts; ++e) {
    DSPARK_RETURN_IF_ERROR(
        load_expert(reader, names, config, dim, e, weights.experts[static_cast<size_t>(e)]));
  }
  if (config.shared_dim > 0) {
    DSPARK_ASSIGN_OR_RETURN(weights.shared.gate, reader.matrix(names.shared_gate));
    DSPARK_ASSIGN_OR_RETURN(weights.shared.up, reader.matrix(names.shared_up));
    DSPARK_ASSIGN_OR_RETURN(weights.shared.down, reader.matrix(names.shared_down));
  }
  return ok_status();
}

}  // namespace dspark
