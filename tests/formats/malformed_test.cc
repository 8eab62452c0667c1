// Every file of the malformed set: refused with a message that names the file, or loaded with the values the
// table describes.

#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "allocation_probe.h"
#include "formats/checkpoint.h"
#include "support/test_paths.h"

namespace dspark {
namespace {

namespace fs = std::filesystem;

struct Case {
  fs::path file;
  std::string expect;
  std::string what;
};

void PrintTo(const Case& c, std::ostream* out) {
  *out << c.file.filename() << ": " << c.what;
}

std::vector<Case> load_cases() {
  const fs::path folder = test::data_dir() / "malformed";
  std::ifstream in(folder / "table.json");
  std::vector<Case> cases;
  for (const auto& row : nlohmann::json::parse(in))
    cases.push_back({folder / row["file"], row["expect"], row["what"]});
  return cases;
}

std::vector<float> floats(const Checkpoint& checkpoint, const char* name) {
  const TensorView* tensor = checkpoint.find(name);
  if (tensor == nullptr || tensor->dtype != DType::kF32) return {};
  std::vector<float> values(tensor->n_bytes / sizeof(float));
  std::memcpy(values.data(), tensor->data, tensor->n_bytes);
  return values;
}

std::vector<float> ramp(int first, int count) {
  std::vector<float> values;
  for (int i = 0; i < count; ++i) values.push_back(static_cast<float>(first + i));
  return values;
}

using Shape = std::vector<int64_t>;

void check_two_tensors(const Checkpoint& c) {
  ASSERT_EQ(c.tensors().size(), 2u);
  ASSERT_NE(c.find("a.weight"), nullptr);
  EXPECT_EQ(c.find("a.weight")->shape, (Shape{2, 4}));
  EXPECT_EQ(floats(c, "a.weight"), ramp(0, 8));
  EXPECT_EQ(floats(c, "b.weight"), ramp(8, 8));
  EXPECT_EQ(c.meta_int("llama.block_count"), 1);
}

template <typename T>
T meta(const Checkpoint& c, const char* key) {
  const MetaValue* value = c.meta(key);
  EXPECT_NE(value, nullptr) << key;
  if (value == nullptr || !std::holds_alternative<T>(*value)) {
    ADD_FAILURE() << key << " is absent or of another kind";
    return T();
  }
  return std::get<T>(*value);
}

void check_all_value_types(const Checkpoint& c) {
  EXPECT_EQ(c.metadata().size(), 21u);
  EXPECT_EQ(c.meta_string("general.architecture"), "llama");
  EXPECT_EQ(c.meta_int("t.u8"), 255);
  EXPECT_EQ(c.meta_int("t.i8"), -128);
  EXPECT_EQ(c.meta_int("t.u16"), 65535);
  EXPECT_EQ(c.meta_int("t.i16"), -32768);
  EXPECT_EQ(c.meta_int("t.u32"), 4294967295);
  EXPECT_EQ(c.meta_int("t.i32"), -2147483648LL);
  EXPECT_EQ(c.meta_float("t.f32"), 1.5);
  EXPECT_EQ(c.meta_bool("t.bool_t"), true);
  EXPECT_EQ(c.meta_bool("t.bool_f"), false);
  EXPECT_EQ(c.meta_string("t.str"), "h\xc3\xa9llo \xf0\x9f\x99\x82");
  EXPECT_EQ(c.meta_string("t.str_empty"), "");
  EXPECT_EQ(c.meta_string("t.str_nul"), std::string("a\0b", 3));
  EXPECT_EQ(meta<uint64_t>(c, "t.u64"), UINT64_MAX);
  EXPECT_EQ(c.meta_int("t.u64"), std::nullopt);
  EXPECT_EQ(c.meta_int("t.i64"), INT64_MIN);
  EXPECT_EQ(c.meta_float("t.f64"), 1e300);
  EXPECT_EQ(meta<std::vector<int64_t>>(c, "t.arr_i32"), (std::vector<int64_t>{1, -2, 3}));
  EXPECT_EQ(meta<std::vector<std::string>>(c, "t.arr_str"),
            (std::vector<std::string>{"a", "", "\xe6\x97\xa5"}));
  EXPECT_TRUE(meta<std::vector<double>>(c, "t.arr_empty").empty());
  EXPECT_EQ(meta<std::vector<bool>>(c, "t.arr_bool"), (std::vector<bool>{true, false}));
  EXPECT_EQ(meta<std::vector<double>>(c, "t.arr_f64"), (std::vector<double>{0.5}));
}

void check_minimal_safetensors(const Checkpoint& c) {
  ASSERT_EQ(c.tensors().size(), 2u);
  ASSERT_NE(c.find("a"), nullptr);
  EXPECT_EQ(c.find("a")->shape, (Shape{2, 2}));
  EXPECT_EQ(floats(c, "a"), ramp(1, 4));
  ASSERT_NE(c.find("b"), nullptr);
  EXPECT_EQ(c.find("b")->dtype, DType::kBF16);
  EXPECT_EQ(c.find("b")->shape, (Shape{3}));
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(c.find("b")->data), 6),
            std::string("\x80\x3f\x00\x40\x40\x40", 6));
}

void check_alignment_64(const Checkpoint& c) {
  EXPECT_EQ(floats(c, "a.weight"), ramp(1, 4));
  EXPECT_EQ(floats(c, "b.weight"), ramp(5, 4));
}

void check_scalar_and_empty(const Checkpoint& c) {
  ASSERT_NE(c.find("s"), nullptr);
  EXPECT_EQ(c.find("s")->shape, Shape{});
  EXPECT_EQ(c.find("s")->n_elements(), 1);
  EXPECT_EQ(floats(c, "s"), ramp(1, 1));
  ASSERT_NE(c.find("e"), nullptr);
  EXPECT_EQ(c.find("e")->shape, (Shape{0, 5}));
  EXPECT_EQ(c.find("e")->n_bytes, 0u);
}

// What an accepted file must hold. A file of the table that must load and is not listed here fails the test.
const std::map<std::string, std::function<void(const Checkpoint&)>> kChecks = {
    {"ok_minimal.gguf", check_two_tensors},
    {"ok_trailing_bytes.gguf", check_two_tensors},
    {"ok_no_tensors.gguf",
     [](const Checkpoint& c) {
       EXPECT_TRUE(c.tensors().empty());
       EXPECT_EQ(c.meta_string("general.architecture"), "llama");
     }},
    {"ok_alignment_64.gguf", check_alignment_64},
    {"ok_all_value_types.gguf", check_all_value_types},
    {"ok_version_2.gguf", [](const Checkpoint& c) { EXPECT_EQ(floats(c, "a.weight"), ramp(0, 8)); }},
    {"tensors_out_of_order.gguf",
     [](const Checkpoint& c) {
       EXPECT_EQ(floats(c, "a.weight"), ramp(0, 8));
       EXPECT_EQ(floats(c, "b.weight"), ramp(8, 8));
     }},
    {"ok_minimal.safetensors", check_minimal_safetensors},
    {"ok_header_padding.safetensors", check_minimal_safetensors},
    {"header_leading_space.safetensors", check_minimal_safetensors},
    {"ok_metadata.safetensors",
     [](const Checkpoint& c) {
       check_minimal_safetensors(c);
       EXPECT_EQ(c.meta_string("format"), "pt");
       EXPECT_EQ(c.meta_string("k"), "v");
     }},
    {"ok_scalar_and_empty.safetensors", check_scalar_and_empty},
    {"ok_no_tensors.safetensors", [](const Checkpoint& c) { EXPECT_TRUE(c.tensors().empty()); }},
    {"ok_unordered.safetensors",
     [](const Checkpoint& c) {
       EXPECT_EQ(floats(c, "a"), ramp(1, 1));
       EXPECT_EQ(floats(c, "b"), ramp(2, 1));
     }},
    {"ok_escaped_name.safetensors",
     [](const Checkpoint& c) { EXPECT_EQ(floats(c, "a\xc3\xa9\n\""), ramp(1, 1)); }},
};

class Malformed : public ::testing::TestWithParam<Case> {};

TEST_P(Malformed, LoadsOrExplains) {
  const Case& c = GetParam();
  const std::string name = c.file.filename().string();
  test::reset_largest_allocation();
  const auto result = Checkpoint::open(c.file.string());
  // Twenty times: a JSON document or a list of strings is larger than its text.
  EXPECT_LT(test::largest_allocation(), 20 * fs::file_size(c.file) + 65536) << c.what;

  const auto check = kChecks.find(name);
  if (c.expect == "refuse") {
    EXPECT_FALSE(result.ok()) << c.what;
  }
  if (c.expect == "accept") {
    ASSERT_TRUE(result.ok()) << result.status().message();
    ASSERT_NE(check, kChecks.end()) << "no expected values written down for " << name;
  }
  if (result.ok()) {
    if (check != kChecks.end()) check->second(*result);
  } else {
    const std::string message = result.status().message();
    EXPECT_EQ(message.find(c.file.string() + ": "), 0u) << message;
    EXPECT_GT(message.size(), c.file.string().size() + 10) << message;
    EXPECT_LT(message.size(), c.file.string().size() + 400) << message;
    EXPECT_NE(result.status().code(), StatusCode::kInternal) << message;
    EXPECT_TRUE(std::all_of(message.begin(), message.end(), [](char ch) { return ch >= 0x20 && ch < 0x7f; }))
        << message;
  }
}

std::string case_name(const ::testing::TestParamInfo<Case>& param) {
  std::string name = param.param.file.filename().string();
  const auto is_separator = [](unsigned char ch) { return std::isalnum(ch) == 0; };
  std::replace_if(name.begin(), name.end(), is_separator, '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Table, Malformed, ::testing::ValuesIn(load_cases()), case_name);

TEST(MalformedReasons, NameTheFieldAndWhatWasFound) {
  const std::map<std::string, std::vector<std::string>> reasons = {
      {"empty.gguf", {"empty"}},
      {"wrong_magic.gguf", {"'GGML'", "'GGUF'"}},
      {"magic_big_endian.gguf", {"big-endian"}},
      {"version_byteswapped.gguf", {"big-endian"}},
      {"version_99.gguf", {"99", "expected 2 or 3"}},
      {"huge_kv_count.gguf", {"metadata_kv_count", "9223372036854775808"}},
      {"duplicate_key.gguf", {"'x.y'", "twice"}},
      {"bad_value_type.gguf", {"'x.y'", "type 13"}},
      {"array_bad_element_type.gguf", {"'x.y'", "type 77"}},
      {"alignment_not_power_of_two.gguf", {"general.alignment", "24"}},
      {"alignment_wrong_type.gguf", {"general.alignment", "string", "u32"}},
      {"tensor_type_unknown.gguf", {"'a'", "type 200"}},
      {"tensor_type_removed.gguf", {"'a'", "type 4"}},
      {"block_not_divisible_k.gguf", {"'a'", "128", "Q4_K", "256"}},
      {"offset_misaligned.gguf", {"'a'", "offset 4", "32"}},
      {"data_too_short.gguf", {"'b'"}},
      {"overlapping_tensors.gguf", {"'a'", "'b'", "overlap"}},
      {"duplicate_tensor_name.gguf", {"'a'", "twice"}},
      {"dtype_unknown.safetensors", {"'a'", "dtype"}},
      {"duplicate_names.safetensors", {"'a'", "twice"}},
      {"deep_json.safetensors", {"nested deeper"}},
      {"offset_gap.safetensors", {"hole"}},
      {"offset_overlap.safetensors", {"overlap"}},
      {"shape_size_mismatch.safetensors", {"'a'", "12", "16"}},
      {"metadata_not_strings.safetensors", {"__metadata__"}},
      {"header_too_long.safetensors", {"1000000000"}},
  };
  for (const auto& [file, words] : reasons) {
    const auto result = Checkpoint::open((test::data_dir() / "malformed" / file).string());
    ASSERT_FALSE(result.ok()) << file;
    for (const std::string& word : words) {
      EXPECT_NE(result.status().message().find(word), std::string::npos)
          << word << " in " << result.status().message();
    }
  }
}

}  // namespace
}  // namespace dspark
