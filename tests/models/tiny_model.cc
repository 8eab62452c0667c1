#include "models/tiny_model.h"

#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <stdexcept>

#include "tensor/blocks.h"
#include "tensor/half.h"
#include "tensor/quantize.h"

namespace dspark::test {
namespace {

namespace fs = std::filesystem;

int64_t element_count(const std::vector<int64_t>& shape) {
  int64_t n = 1;
  for (int64_t d : shape) n *= d;
  return n;
}

// FNV-1a of the name: the same values on every machine.
uint32_t seed_of(const TinyTensor& tensor) {
  uint32_t seed = 2166136261u;
  for (char c : tensor.name) seed = (seed ^ static_cast<unsigned char>(c)) * 16777619u;
  return seed;
}

std::vector<float> values_of(const TinyTensor& tensor) {
  std::mt19937 random(seed_of(tensor));
  const bool is_norm = tensor.near_one || tensor.name.find("norm") != std::string::npos;
  std::vector<float> values(static_cast<size_t>(element_count(tensor.shape)));
  for (float& v : values) {
    const float unit = static_cast<float>(random() >> 8) / 16777216.0f - 0.5f;
    v = is_norm ? 1.0f + 0.2f * unit : 0.5f * unit;
  }
  return values;
}

// A binary16 scale of a block type that encode_row cannot write; values of random quanta stay within 0.6.
struct BlockScale {
  DType dtype;
  size_t offset;  // bytes from the start of the block
  float value;
};
constexpr BlockScale kBlockScales[] = {
    {DType::kQ2_K, offsetof(BlockQ2_K, d), 0.01f},     {DType::kQ2_K, offsetof(BlockQ2_K, dmin), 0.015f},
    {DType::kQ3_K, offsetof(BlockQ3_K, d), 0.003f},    {DType::kIQ4_NL, offsetof(BlockIQ4_NL, d), 0.003f},
    {DType::kIQ4_XS, offsetof(BlockIQ4_XS, d), 1e-4f},
};

bool has_random_blocks(DType dtype) {
  return dtype == DType::kMXFP4 || std::any_of(std::begin(kBlockScales), std::end(kBlockScales),
                                               [dtype](const BlockScale& s) { return s.dtype == dtype; });
}

// Every bit pattern of these types is valid; only the scales are chosen.
void fill_random_blocks(const TinyTensor& tensor, std::string& bytes) {
  std::mt19937 random(seed_of(tensor));
  for (char& byte : bytes) byte = static_cast<char>(random() & 0xffu);
  const auto block_bytes = static_cast<size_t>(dtype_info(tensor.dtype)->block_bytes);
  for (size_t at = 0; at < bytes.size(); at += block_bytes) {
    if (tensor.dtype == DType::kMXFP4) {  // its scale is a power of two: 2^-5 or 2^-4
      bytes[at + offsetof(BlockMXFP4, e)] = static_cast<char>(122 + random() % 2);
    }
    for (const BlockScale& scale : kBlockScales) {
      if (scale.dtype != tensor.dtype) continue;
      const uint16_t bits = f32_to_f16(scale.value);
      std::memcpy(bytes.data() + at + scale.offset, &bits, sizeof(bits));
    }
  }
}

std::string bytes_of(const TinyTensor& tensor) {
  const std::vector<float> values = values_of(tensor);
  const auto n = static_cast<int64_t>(values.size());
  std::string bytes(dtype_row_bytes(tensor.dtype, n), '\0');
  auto* out = reinterpret_cast<uint8_t*>(bytes.data());
  if (tensor.dtype == DType::kF32) {
    std::memcpy(out, values.data(), bytes.size());
  } else if (can_encode(tensor.dtype)) {
    encode_row(tensor.dtype, values.data(), out, n);
  } else if (has_random_blocks(tensor.dtype)) {
    fill_random_blocks(tensor, bytes);
  }  // else zeros: a type that no weight may have
  return bytes;
}

template <typename T>
void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void put_string(std::string& out, const std::string& text) {
  put<uint64_t>(out, text.size());
  out += text;
}

// Type ids of the GGUF format: 4 uint32, 5 int32, 6 float32, 7 bool, 8 string, 9 array.
void put_meta(std::string& out, const TinyMeta& value) {
  if (const auto* number = std::get_if<uint32_t>(&value)) {
    put<uint32_t>(out, 4);
    put(out, *number);
  } else if (const auto* real = std::get_if<float>(&value)) {
    put<uint32_t>(out, 6);
    put(out, *real);
  } else if (const auto* flag = std::get_if<bool>(&value)) {
    put<uint32_t>(out, 7);
    put<uint8_t>(out, *flag ? 1 : 0);
  } else if (const auto* text = std::get_if<std::string>(&value)) {
    put<uint32_t>(out, 8);
    put_string(out, *text);
  } else {
    const auto& list = std::get<std::vector<int32_t>>(value);
    put<uint32_t>(out, 9);
    put<uint32_t>(out, 5);
    put<uint64_t>(out, list.size());
    for (int32_t item : list) put(out, item);
  }
}

void pad(std::string& out, size_t alignment) {
  out.resize((out.size() + alignment - 1) / alignment * alignment);
}

void write_file(const fs::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

template <typename Model>
TinyTensor& find_tensor(Model& model, const std::string& name) {
  for (TinyTensor& tensor : model.tensors) {
    if (tensor.name == name) return tensor;
  }
  throw std::out_of_range(name);
}

void remove_tensor(std::vector<TinyTensor>& tensors, const std::string& name) {
  std::erase_if(tensors, [&](const TinyTensor& t) { return t.name == name; });
}

}  // namespace

TemporaryFolder::TemporaryFolder() {
  std::string pattern = (fs::temp_directory_path() / "dspark-test-XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp failed");
  path_ = pattern;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

TinyHf TinyHf::llama() {
  TinyHf model;
  model.config = {{"model_type", "llama"},
                  {"hidden_size", 32},
                  {"intermediate_size", 48},
                  {"num_hidden_layers", 2},
                  {"num_attention_heads", 4},
                  {"num_key_value_heads", 2},
                  {"head_dim", 8},
                  {"vocab_size", 40},
                  {"max_position_embeddings", 128},
                  {"rms_norm_eps", 1e-5},
                  {"rope_theta", 10000.0},
                  {"hidden_act", "silu"},
                  {"tie_word_embeddings", false},
                  {"eos_token_id", 2}};
  model.tensors = {
      {"model.embed_tokens.weight", {40, 32}}, {"lm_head.weight", {40, 32}}, {"model.norm.weight", {32}}};
  for (int layer = 0; layer < 2; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    const TinyTensor tensors[] = {
        {"input_layernorm.weight", {32}},      {"post_attention_layernorm.weight", {32}},
        {"self_attn.q_proj.weight", {32, 32}}, {"self_attn.k_proj.weight", {16, 32}},
        {"self_attn.v_proj.weight", {16, 32}}, {"self_attn.o_proj.weight", {32, 32}},
        {"mlp.gate_proj.weight", {48, 32}},    {"mlp.up_proj.weight", {48, 32}},
        {"mlp.down_proj.weight", {32, 48}},
    };
    for (TinyTensor tensor : tensors) {
      tensor.name = prefix + tensor.name;
      model.tensors.push_back(tensor);
    }
  }
  return model;
}

fs::path TinyHf::write(const TemporaryFolder& folder) const {
  nlohmann::json header = nlohmann::json::object();
  std::string data;
  for (const TinyTensor& tensor : tensors) {
    const size_t begin = data.size();
    data += bytes_of(tensor);
    header[tensor.name] = {{"dtype", "F32"}, {"shape", tensor.shape}, {"data_offsets", {begin, data.size()}}};
  }
  std::string text = header.dump();
  while (text.size() % 8 != 0) text += ' ';
  std::string file;
  put<uint64_t>(file, text.size());
  write_file(folder.path() / "model.safetensors", file + text + data);
  write_file(folder.path() / "config.json", config.dump());
  return folder.path();
}

TinyTensor& TinyHf::tensor(const std::string& name) {
  return find_tensor(*this, name);
}

void TinyHf::remove(const std::string& name) {
  remove_tensor(tensors, name);
}

TinyGguf TinyGguf::llama(DType matrices, int32_t dim) {
  TinyGguf model;
  const auto width = static_cast<uint32_t>(dim);
  model.meta = {{"general.architecture", std::string("llama")},
                {"llama.block_count", 2u},
                {"llama.embedding_length", width},
                {"llama.feed_forward_length", width * 2},
                {"llama.context_length", 128u},
                {"llama.attention.head_count", 4u},
                {"llama.attention.head_count_kv", 2u},
                {"llama.attention.layer_norm_rms_epsilon", 1e-5f},
                {"llama.rope.freq_base", 10000.0f}};
  model.tensors = {{"token_embd.weight", {40, dim}, matrices},
                   {"output.weight", {40, dim}, matrices},
                   {"output_norm.weight", {dim}}};
  for (int layer = 0; layer < 2; ++layer) {
    const std::string prefix = "blk." + std::to_string(layer) + ".";
    const TinyTensor tensors[] = {
        {"attn_norm.weight", {dim}},
        {"ffn_norm.weight", {dim}},
        {"attn_q.weight", {dim, dim}, matrices},
        {"attn_k.weight", {dim / 2, dim}, matrices},
        {"attn_v.weight", {dim / 2, dim}, matrices},
        {"attn_output.weight", {dim, dim}, matrices},
        {"ffn_gate.weight", {dim * 2, dim}, matrices},
        {"ffn_up.weight", {dim * 2, dim}, matrices},
        {"ffn_down.weight", {dim, dim * 2}, matrices},
    };
    for (TinyTensor tensor : tensors) {
      tensor.name = prefix + tensor.name;
      model.tensors.push_back(tensor);
    }
  }
  return model;
}

TinyGguf TinyGguf::qwen3moe(DType matrices, int32_t dim) {
  TinyGguf model = llama(matrices, dim);
  for (auto& [key, value] : model.meta) {
    if (key.starts_with("llama.")) key = "qwen3moe." + key.substr(6);
  }
  model.set("general.architecture", std::string("qwen3moe"));
  model.set("qwen3moe.expert_count", 8u);
  model.set("qwen3moe.expert_used_count", 3u);
  model.set("qwen3moe.expert_feed_forward_length", static_cast<uint32_t>(dim));
  for (const char* name : {"ffn_gate", "ffn_up", "ffn_down"}) {
    model.remove(std::string("blk.1.") + name + ".weight");
    model.tensors.push_back({std::string("blk.1.") + name + "_exps.weight", {8, dim, dim}, matrices});
  }
  model.tensors.push_back({"blk.1.ffn_gate_inp.weight", {8, dim}, DType::kF32});
  for (int layer = 0; layer < 2; ++layer) {
    for (const char* name : {"attn_q_norm", "attn_k_norm"}) {
      model.tensors.push_back({"blk." + std::to_string(layer) + "." + name + ".weight", {dim / 4}});
    }
  }
  return model;
}

fs::path TinyGguf::write(const TemporaryFolder& folder) const {
  std::string out = "GGUF";
  put<uint32_t>(out, 3);
  put<uint64_t>(out, tensors.size());
  put<uint64_t>(out, meta.size());
  for (const auto& [key, value] : meta) {
    put_string(out, key);
    put_meta(out, value);
  }
  std::string data;
  for (const TinyTensor& tensor : tensors) {
    put_string(out, tensor.name);
    put<uint32_t>(out, static_cast<uint32_t>(tensor.shape.size()));
    for (auto it = tensor.shape.rbegin(); it != tensor.shape.rend(); ++it)
      put<uint64_t>(out, static_cast<uint64_t>(*it));
    put<uint32_t>(out, static_cast<uint32_t>(tensor.dtype));
    put<uint64_t>(out, data.size());
    data += bytes_of(tensor);
    pad(data, 32);
  }
  pad(out, 32);
  const fs::path path = folder.path() / "model.gguf";
  write_file(path, out + data);
  return path;
}

void TinyGguf::set(const std::string& key, TinyMeta value) {
  remove_key(key);
  meta.emplace_back(key, std::move(value));
}

void TinyGguf::remove_key(const std::string& key) {
  std::erase_if(meta, [&](const auto& entry) { return entry.first == key; });
}

TinyTensor& TinyGguf::tensor(const std::string& name) {
  return find_tensor(*this, name);
}

void TinyGguf::remove(const std::string& name) {
  remove_tensor(tensors, name);
}

}  // namespace dspark::test
