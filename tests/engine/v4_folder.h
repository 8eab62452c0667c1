#pragma once
// A tiny DeepSeek V4 with a drafter inside: the fixture's target, and random tensors `mtp.*`.

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "support/test_paths.h"

namespace dspark::test {

/// Adds F32 tensors to a safetensors file that was read as a whole.
class SafetensorsPatch {
 public:
  explicit SafetensorsPatch(const std::filesystem::path& file) {
    std::ifstream in(file, std::ios::binary);
    const std::string bytes(std::istreambuf_iterator<char>(in), {});
    uint64_t size = 0;
    std::memcpy(&size, bytes.data(), sizeof size);
    header_ = nlohmann::json::parse(bytes.substr(8, size));
    data_ = bytes.substr(8 + size);
  }

  void add(const std::string& name, const std::vector<int64_t>& shape, const std::vector<float>& values) {
    const size_t begin = data_.size();
    data_.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
    header_[name] = {{"dtype", "F32"}, {"shape", shape}, {"data_offsets", {begin, data_.size()}}};
  }

  void write(const std::filesystem::path& file) const {
    std::string text = header_.dump();
    while (text.size() % 8 != 0) text += ' ';
    const uint64_t size = text.size();
    std::ofstream out(file, std::ios::binary);
    out << std::string(reinterpret_cast<const char*>(&size), sizeof size) << text << data_;
  }

 private:
  nlohmann::json header_;
  std::string data_;
};

/// Values of one tensor: near `mean`, spread by `scale`.
inline std::vector<float> random_values(std::mt19937& random, const std::vector<int64_t>& shape, float mean,
                                        float scale) {
  int64_t n = 1;
  for (const int64_t d : shape) n *= d;
  std::normal_distribution<float> normal(mean, scale);
  std::vector<float> values(static_cast<size_t>(n));
  for (float& v : values) v = normal(random);
  return values;
}

/// Writes the folder: dsv4_full with `n_stages` stages, blocks of 5, taps behind layers 1, 3 and 4, rank 8.
inline void write_v4_with_drafter(const std::filesystem::path& folder, int n_stages = 3) {
  const std::filesystem::path source = data_dir() / "v4_models" / "dsv4_full";
  std::ifstream in(source / "config.json");
  nlohmann::json config = nlohmann::json::parse(in);
  config["dspark_block_size"] = 5;
  config["dspark_noise_token_id"] = 255;
  config["dspark_target_layer_ids"] = {1, 3, 4};
  config["dspark_markov_rank"] = 8;
  std::ofstream(folder / "config.json") << config.dump();
  SafetensorsPatch patch(source / "model.safetensors");
  std::mt19937 random(12);
  const auto add = [&](const std::string& name, const std::vector<int64_t>& shape, float mean = 0.0f,
                       float scale = 0.15f) {
    patch.add("mtp." + name, shape, random_values(random, shape, mean, scale));
  };
  const int64_t dim = 64, heads = 4, c = 32, n = 4;
  add("0.main_proj.weight", {dim, 3 * dim});
  add("0.main_norm.weight", {dim}, 1.0f);
  for (int i = 0; i < n_stages; ++i) {
    const std::string p = std::to_string(i) + ".";
    for (const char* norm : {"attn_norm.weight", "ffn_norm.weight"}) add(p + norm, {dim}, 1.0f);
    for (const char* hc : {"hc_attn", "hc_ffn"}) {
      add(p + hc + "_fn", {(2 + n) * n, n * dim}, 0.0f, 0.05f);
      add(p + hc + "_base", {(2 + n) * n}, 0.0f, 0.5f);
      add(p + hc + "_scale", {3}, 1.0f);
    }
    add(p + "attn.wq_a.weight", {32, dim});
    add(p + "attn.q_norm.weight", {32}, 1.0f);
    add(p + "attn.wq_b.weight", {heads * c, 32});
    add(p + "attn.wkv.weight", {c, dim});
    add(p + "attn.kv_norm.weight", {c}, 1.0f);
    add(p + "attn.wo_a.weight", {2 * 24, heads * c / 2});
    add(p + "attn.wo_b.weight", {dim, 2 * 24});
    add(p + "attn.attn_sink", {heads});
    add(p + "ffn.gate.weight", {6, dim});
    add(p + "ffn.gate.bias", {6});
    for (int e = 0; e < 7; ++e) {
      const std::string expert = e < 6 ? "ffn.experts." + std::to_string(e) + "." : "ffn.shared_experts.";
      add(p + expert + "w1.weight", {32, dim});
      add(p + expert + "w2.weight", {dim, 32});
      add(p + expert + "w3.weight", {32, dim});
    }
  }
  const std::string last = std::to_string(n_stages - 1) + ".";
  add(last + "hc_head_fn", {n, n * dim}, 0.0f, 0.05f);
  add(last + "hc_head_base", {n});
  add(last + "hc_head_scale", {1}, 1.0f);
  add(last + "norm.weight", {dim}, 1.0f);
  add(last + "markov_head.markov_w1.weight", {256, 8});
  add(last + "markov_head.markov_w2.weight", {256, 8});
  add(last + "confidence_head.proj.weight", {1, dim + 8});
  patch.write(folder / "model.safetensors");
}

}  // namespace dspark::test
