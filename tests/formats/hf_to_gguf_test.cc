// Hugging Face folders become the GGUF files that an independent converter made of them.

#include "formats/hf_to_gguf.h"

#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "base/thread_pool.h"
#include "formats/quantize_model.h"
#include "formats/temp_folder.h"
#include "support/test_paths.h"
#include "tensor/quantize.h"

namespace dspark {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

struct Case {
  fs::path folder;
  fs::path reference;
};

/// The cut-down fixtures, the rotary scalings of llama and soft caps with the files that their generator
/// wrote, and the whole checkpoints where the reference set is present.
std::vector<Case> cases() {
  std::vector<Case> list;
  for (const char* name : {"llama3_rope", "qwen2_bias_tied", "qwen3_qknorm", "gemma3_text_legacy_cfg"}) {
    const fs::path folder = test::data_dir() / "quantize" / name;
    list.push_back({folder, folder / "reference.gguf"});
  }
  for (const char* name : {"tiny_rope_linear", "tiny_rope_llama3", "tiny_rope_yarn", "tiny_gemma3_softcap"}) {
    const fs::path folder = test::data_dir() / "models" / name;
    list.push_back({folder, folder / "model.gguf"});
  }
  if (test::golden_dir().empty()) return list;
  for (const char* name : {"llama3_rope", "llama_rope_yarn", "qwen2_bias_tied", "qwen3_qknorm", "qwen3_moe",
                           "gemma3_text_legacy_cfg"}) {
    list.push_back({test::golden_dir() / "models" / name,
                    test::golden_dir() / "gguf" / "models" / (std::string(name) + ".gguf")});
  }
  return list;
}

Checkpoint open_or_die(const fs::path& path) {
  Result<Checkpoint> checkpoint = Checkpoint::open(path.string());
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  return checkpoint.ok() ? std::move(checkpoint).value() : Checkpoint();
}

std::vector<float> values_of(const TensorView& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.n_elements()));
  decode_row(tensor.dtype, tensor.data, values.data(), tensor.n_elements());
  return values;
}

/// Every key of the reference is there with its type and value, apart from the name of the folder.
void expect_metadata(const Checkpoint& actual, const Checkpoint& reference) {
  std::map<std::string_view, const RawMeta*> found;
  for (const RawMeta& raw : actual.raw_metadata()) found[raw.key] = &raw;
  for (const RawMeta& raw : reference.raw_metadata()) {
    if (raw.key == "general.alignment") continue;
    ASSERT_TRUE(found.count(raw.key) == 1) << raw.key;
    EXPECT_EQ(found[raw.key]->type, raw.type) << raw.key;
    EXPECT_TRUE(std::equal(raw.value.begin(), raw.value.end(), found[raw.key]->value.begin(),
                           found[raw.key]->value.end()))
        << raw.key;
  }
  const std::set<std::string_view> extra = {"general.type",
                                            "general.file_type",
                                            "general.quantization_version",
                                            "tokenizer.ggml.bos_token_id",
                                            "tokenizer.ggml.eos_token_id",
                                            "tokenizer.ggml.padding_token_id"};
  for (const RawMeta& raw : actual.raw_metadata()) {
    EXPECT_TRUE(reference.meta(raw.key) != nullptr || extra.count(raw.key) == 1) << raw.key << " is new";
  }
}

TEST(HfToGguf, SameTensorsAndMetadataAsAnotherConverter) {
  ThreadPool pool(2);
  for (const Case& c : cases()) {
    for (DType type : {DType::kF32, DType::kBF16}) {
      SCOPED_TRACE(c.folder.string() + " " + dtype_name(type));
      const test::TempFolder temp;
      const std::string path = temp.file("out.gguf");
      const Checkpoint input = open_or_die(c.folder);
      QuantizeOptions options;
      options.type = type;
      const Result<QuantizeReport> report = quantize_model(input, path, options, pool, nullptr);
      ASSERT_TRUE(report.ok()) << report.status().message();
      EXPECT_EQ(temp.n_files(), 1u);
      const Checkpoint actual = open_or_die(path);
      const Checkpoint reference = open_or_die(c.reference);
      expect_metadata(actual, reference);
      ASSERT_EQ(actual.tensors().size(), reference.tensors().size());
      for (const TensorView& expected : reference.tensors()) {
        SCOPED_TRACE(expected.name);
        const TensorView* tensor = actual.find(expected.name);
        ASSERT_NE(tensor, nullptr);
        EXPECT_EQ(tensor->shape, expected.shape);
        const bool float_matrix =
            expected.shape.size() > 1 && expected.name.find("ffn_gate_inp") == std::string::npos;
        EXPECT_EQ(tensor->dtype, float_matrix ? type : DType::kF32);
        const std::vector<float> a = values_of(*tensor);
        const std::vector<float> b = values_of(expected);
        EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)), 0);
      }
    }
  }
}

/// A copy of a fixture whose config.json a test may change.
class EditableModel {
 public:
  explicit EditableModel(const char* name) {
    const fs::path source = test::data_dir() / "quantize" / name;
    fs::copy_file(source / "model.safetensors", temp.path() / "model.safetensors");
    config = json::parse(test::read_file(source / "config.json"));
  }
  Status convert() {
    temp.write("config.json", config.dump());
    const Checkpoint input = open_or_die(temp.path());
    ThreadPool pool(1);
    const Result<QuantizeReport> report =
        quantize_model(input, temp.file("out.gguf"), QuantizeOptions{}, pool, nullptr);
    if (report.ok()) notes = report->notes;
    return report.status();
  }
  void expect_error(StatusCode code, const std::string& part) {
    const Status status = convert();
    EXPECT_EQ(status.code(), code) << status.message();
    EXPECT_NE(status.message().find(part), std::string::npos) << status.message();
    EXPECT_FALSE(fs::exists(temp.path() / "out.gguf"));
  }
  test::TempFolder temp;
  json config;
  std::vector<std::string> notes;
};

TEST(HfToGguf, WrongConfigsAreNamed) {
  const auto with = [](const char* name, const std::function<void(json&)>& edit, StatusCode code,
                       const char* part) {
    SCOPED_TRACE(part);
    EditableModel model(name);
    edit(model.config);
    model.expect_error(code, part);
  };
  constexpr auto kBad = StatusCode::kInvalidArgument;
  constexpr auto kNo = StatusCode::kUnsupported;
  with(
      "qwen3_qknorm", [](json& c) { c["model_type"] = "mamba"; }, kNo, "'mamba'");
  with(
      "qwen3_qknorm", [](json& c) { c.erase("hidden_size"); }, kBad, "hidden_size");
  with(
      "qwen3_qknorm", [](json& c) { c["num_hidden_layers"] = -1; }, kBad, "num_hidden_layers");
  with(
      "qwen3_qknorm", [](json& c) { c["num_hidden_layers"] = 1e9; }, kBad, "num_hidden_layers");
  with(
      "qwen3_qknorm", [](json& c) { c["vocab_size"] = 18446744073709551615u; }, kBad, "vocab_size");
  with(
      "qwen3_qknorm", [](json& c) { c["rope_theta"] = "big"; }, kBad, "rope_theta");
  with(
      "qwen3_qknorm", [](json& c) { c["head_dim"] = 31; }, kBad, "head_dim");
  with(
      "qwen3_qknorm", [](json& c) { c["hidden_act"] = "gelu"; }, kNo, "hidden_act");
  with(
      "qwen3_qknorm",
      [](json& c) {
        c["quantization_config"] = {{"bits", 4}};
      },
      kNo, "quantization_config");
  with(
      "qwen3_qknorm",
      [](json& c) {
        c["rope_scaling"] = {{"rope_type", "longrope"}};
      },
      kNo, "longrope");
  with(
      "qwen3_qknorm",
      [](json& c) {
        c["rope_scaling"] = {{"rope_type", "yarn"}};
      },
      kBad, "factor");
  with(
      "qwen3_qknorm", [](json& c) { c["layer_types"] = {"sliding_attention"}; }, kNo, "sliding windows");
  with(
      "gemma3_text_legacy_cfg", [](json& c) { c["query_pre_attn_scalar"] = 100; }, kNo,
      "query_pre_attn_scalar");
  with(
      "gemma3_text_legacy_cfg",
      [](json& c) {
        c["layer_types"] = {1, 2, 3};
      },
      kBad, "layer_types");
}

TEST(HfToGguf, MissingUnknownAndMisshapenTensorsAreNamed) {
  EditableModel missing("qwen3_qknorm");
  missing.config["num_hidden_layers"] = 2;
  missing.config["layer_types"] = {"full_attention", "full_attention"};
  missing.expect_error(StatusCode::kCorruptData, "tensor 'model.layers.1.");
  EditableModel wrong("qwen3_qknorm");
  wrong.config["vocab_size"] = 65;
  wrong.expect_error(StatusCode::kCorruptData, "has shape [64, 64], config.json says [65, 64]");
  EditableModel untied("qwen3_qknorm");
  untied.config["tie_word_embeddings"] = false;
  untied.expect_error(StatusCode::kCorruptData, "tensor 'lm_head.weight' is missing");
  EditableModel unknown("qwen3_qknorm");  // a llama has no q_norm
  unknown.config["model_type"] = "llama";
  unknown.expect_error(StatusCode::kCorruptData, "q_norm.weight' has no place in arch llama");
}

TEST(HfToGguf, ATiedHeadThatIsStoredIsLeftOutWithANote) {
  EditableModel model("llama3_rope");
  model.config["tie_word_embeddings"] = true;
  ASSERT_TRUE(model.convert().ok());
  EXPECT_EQ(open_or_die(model.temp.path() / "out.gguf").find("output.weight"), nullptr);
  ASSERT_FALSE(model.notes.empty());
  EXPECT_NE(model.notes.front().find("lm_head.weight"), std::string::npos);
}

TEST(HfToGguf, YarnOptionsBecomeGgufKeys) {
  EditableModel model("qwen2_bias_tied");
  model.config["rope_scaling"] = {{"type", "yarn"},
                                  {"factor", 4.0},
                                  {"original_max_position_embeddings", 128},
                                  {"beta_fast", 16.0},
                                  {"attention_factor", 2.0}};
  ASSERT_TRUE(model.convert().ok());
  const Checkpoint out = open_or_die(model.temp.path() / "out.gguf");
  EXPECT_EQ(out.meta_string("qwen2.rope.scaling.type"), "yarn");
  EXPECT_EQ(out.meta_float("qwen2.rope.scaling.factor"), 4.0);
  EXPECT_EQ(out.meta_int("qwen2.rope.scaling.original_context_length"), 128);
  EXPECT_EQ(out.meta_float("qwen2.rope.scaling.yarn_beta_fast"), 16.0);
  // The GGUF number multiplies the default 0.1 ln(4) + 1.
  EXPECT_NEAR(*out.meta_float("qwen2.rope.scaling.attn_factor"), 2.0 / 1.1386294, 1e-6);
}

TEST(HfToGguf, UnusualWindowPatternsAreWritten) {
  EditableModel model("gemma3_text_legacy_cfg");
  model.config["layer_types"] = {"full_attention"};
  ASSERT_TRUE(model.convert().ok());
  const Checkpoint out = open_or_die(model.temp.path() / "out.gguf");
  const MetaValue* pattern = out.meta("gemma3.attention.sliding_window_pattern");
  ASSERT_NE(pattern, nullptr);
  EXPECT_EQ(std::get<std::vector<bool>>(*pattern), std::vector<bool>{false});
}

}  // namespace
}  // namespace dspark
