// The type each tensor gets, conversions between GGUF types, refusals, determinism.

#include "formats/quantize_model.h"

#include <cmath>
#include <functional>
#include <limits>

#include "formats/gguf_writer.h"
#include "formats/temp_folder.h"
#include "support/test_paths.h"
#include "tensor/quantize.h"

namespace dspark {
namespace {

struct SmallTensor {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;
};

const std::vector<SmallTensor> kSmallModel = {
    {"token_embd.weight", DType::kF32, {24, 512}},
    {"output.weight", DType::kBF16, {24, 512}},
    {"output_norm.weight", DType::kF32, {512}},
    {"blk.0.attn_q.weight", DType::kF16, {8, 512}},
    {"blk.0.attn_q.bias", DType::kF16, {8}},
    {"blk.0.ffn_down.weight", DType::kF32, {512, 96}},
    {"blk.0.ffn_gate_inp.weight", DType::kF32, {4, 512}},
    {"blk.0.ffn_up_exps.weight", DType::kF32, {4, 2, 256}},
    {"blk.0.odd.weight", DType::kBF16, {3, 40}},
    {"blk.0.odder.weight", DType::kF32, {3, 40}},
    {"blk.0.table.weight", DType::kI32, {4, 6}},
};

/// Smooth numbers of both signs, different in every tensor.
float value_at(size_t tensor, int64_t i) {
  return std::sin(0.37f * static_cast<float>(i) + static_cast<float>(tensor)) * 0.5f +
         0.02f * static_cast<float>(i % 7);
}

std::string write_small_model(const test::TempFolder& temp,
                              const std::function<void(size_t, std::vector<float>&)>& edit) {
  const std::string path = temp.file("small.gguf");
  Result<GgufWriter> writer = GgufWriter::create(path);
  EXPECT_TRUE(writer.ok());
  writer->set_string("general.architecture", "test");
  writer->set_u64("test.wide", 1u);
  for (const SmallTensor& t : kSmallModel) EXPECT_TRUE(writer->declare(t.name, t.dtype, t.shape).ok());
  EXPECT_TRUE(writer->write_header().ok());
  for (size_t k = 0; k < kSmallModel.size(); ++k) {
    const SmallTensor& t = kSmallModel[k];
    int64_t n = 1;
    for (int64_t d : t.shape) n *= d;
    std::vector<float> values(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) values[static_cast<size_t>(i)] = value_at(k, i);
    edit(k, values);
    std::vector<uint8_t> bytes(static_cast<size_t>(n) * 4, 7);
    if (t.dtype != DType::kI32) {
      bytes.resize(dtype_row_bytes(t.dtype, n));
      encode_row(t.dtype, values.data(), bytes.data(), n);
    }
    EXPECT_TRUE(writer->append(t.name, bytes).ok());
  }
  EXPECT_TRUE(writer->finish().ok());
  return path;
}

std::string write_small_model(const test::TempFolder& temp) {
  return write_small_model(temp, [](size_t, std::vector<float>&) {});
}

Result<QuantizeReport> run(const std::string& input, const std::string& output,
                           const QuantizeOptions& options, int threads = 1) {
  Result<Checkpoint> checkpoint = Checkpoint::open(input);
  if (!checkpoint.ok()) return checkpoint.status();
  ThreadPool pool(threads);
  return quantize_model(*checkpoint, output, options, pool, nullptr);
}

/// Types of the output in the order of kSmallModel.
std::vector<std::string> types_after(const std::string& input, const test::TempFolder& temp,
                                     const QuantizeOptions& options) {
  const std::string output = temp.file("out.gguf");
  const Result<QuantizeReport> report = run(input, output, options);
  EXPECT_TRUE(report.ok()) << report.status().message();
  const Result<Checkpoint> out = Checkpoint::open(output);
  EXPECT_TRUE(out.ok()) << out.status().message();
  std::vector<std::string> names;
  for (const SmallTensor& t : kSmallModel) {
    const TensorView* tensor = out->find(t.name);
    EXPECT_NE(tensor, nullptr) << t.name;
    EXPECT_EQ(tensor->shape, t.shape);
    names.push_back(dtype_name(tensor->dtype));
  }
  return names;
}

TEST(QuantizeModel, TypeOfEveryTensor) {
  const test::TempFolder temp;
  const std::string input = write_small_model(temp);
  using Names = std::vector<std::string>;
  QuantizeOptions options;
  options.type = DType::kQ4_K;
  EXPECT_EQ(types_after(input, temp, options),
            (Names{"Q8_0", "Q8_0", "F32", "Q4_K", "F32", "Q5_0", "F32", "Q4_K", "BF16", "F16", "I32"}));
  options.type = DType::kQ6_K;
  EXPECT_EQ(types_after(input, temp, options),
            (Names{"Q6_K", "Q6_K", "F32", "Q6_K", "F32", "Q8_0", "F32", "Q6_K", "BF16", "F16", "I32"}));
  options.type = DType::kQ5_K;
  options.embedding = DType::kQ6_K;
  options.output = DType::kF16;
  options.keep = {"blk.?.attn_*", "*.ffn_up_exps.weight"};
  EXPECT_EQ(types_after(input, temp, options),
            (Names{"Q6_K", "F16", "F32", "F16", "F16", "Q5_1", "F32", "F32", "BF16", "F16", "I32"}));
}

TEST(QuantizeModel, ValuesSurviveAndMetadataIsKept) {
  const test::TempFolder temp;
  const std::string input = write_small_model(temp);
  const std::string output = temp.file("out.gguf");
  QuantizeOptions options;
  options.type = DType::kQ8_0;
  const Result<QuantizeReport> report = run(input, output, options);
  ASSERT_TRUE(report.ok()) << report.status().message();
  const Result<Checkpoint> out = Checkpoint::open(output);
  ASSERT_TRUE(out.ok());
  EXPECT_EQ(report->bytes_after, out->tensor_bytes());
  EXPECT_EQ(out->meta_int("general.file_type"), 7);
  EXPECT_EQ(out->meta_int("general.quantization_version"), 2);
  EXPECT_EQ(out->raw_metadata()[1].key, "test.wide");
  EXPECT_EQ(out->raw_metadata()[1].type, static_cast<uint32_t>(GgufType::kUint64));
  for (size_t k = 0; k < kSmallModel.size(); ++k) {
    if (kSmallModel[k].dtype == DType::kI32) continue;
    const TensorView* tensor = out->find(kSmallModel[k].name);
    std::vector<float> values(static_cast<size_t>(tensor->n_elements()));
    decode_row(tensor->dtype, tensor->data, values.data(), tensor->n_elements());
    for (size_t i = 0; i < values.size(); ++i)
      ASSERT_NEAR(values[i], value_at(k, static_cast<int64_t>(i)), 0.005f) << kSmallModel[k].name << " " << i;
  }
}

TEST(QuantizeModel, SameBytesForAnyNumberOfThreads) {
  const test::TempFolder temp;
  const std::string input = write_small_model(temp);
  QuantizeOptions options;
  options.type = DType::kQ4_K;
  for (int threads : {1, 2, 4}) {
    ASSERT_TRUE(run(input, temp.file(std::to_string(threads)), options, threads).ok());
    EXPECT_EQ(test::read_file(temp.file(std::to_string(threads))), test::read_file(temp.file("1")));
  }
}

TEST(QuantizeModel, RequantisingMustBeAllowed) {
  const test::TempFolder temp;
  const std::string input = write_small_model(temp);
  const std::string middle = temp.file("middle.gguf");
  QuantizeOptions options;
  options.type = DType::kQ8_0;
  ASSERT_TRUE(run(input, middle, options).ok());
  // The same type again copies the blocks.
  ASSERT_TRUE(run(middle, temp.file("again.gguf"), options).ok());
  EXPECT_EQ(test::read_file(temp.file("again.gguf")), test::read_file(middle));
  options.type = DType::kQ4_0;
  const Status refused = run(middle, temp.file("twice.gguf"), options).status();
  EXPECT_EQ(refused.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(refused.message().find("'blk.0.attn_q.weight' is already quantised (Q8_0)"), std::string::npos)
      << refused.message();
  EXPECT_NE(refused.message().find("--allow-requantize"), std::string::npos);
  options.allow_requantize = true;
  EXPECT_TRUE(run(middle, temp.file("twice.gguf"), options).ok());
}

TEST(QuantizeModel, NumbersThatDoNotFitAreNamed) {
  const test::TempFolder temp;
  const auto attempt = [&](float bad, DType type) {
    const std::string input = write_small_model(temp, [&](size_t k, std::vector<float>& values) {
      if (k == 5) values[3 * 96 + 1] = bad;
    });
    QuantizeOptions options;
    options.type = type;
    const Status status = run(input, temp.file("out.gguf"), options).status();
    EXPECT_FALSE(std::filesystem::exists(temp.file("out.gguf")) && !status.ok());
    std::filesystem::remove(temp.file("out.gguf"));
    return status.ok() ? std::string() : status.message();
  };
  const float inf = std::numeric_limits<float>::infinity();
  for (float bad : {inf, -inf, std::numeric_limits<float>::quiet_NaN()}) {
    EXPECT_NE(attempt(bad, DType::kQ8_0)
                  .find("row 3 of tensor 'blk.0.ffn_down.weight' holds a number that is not finite"),
              std::string::npos);
  }
  EXPECT_NE(attempt(1e6f, DType::kQ8_0).find("above 65504"), std::string::npos);
  EXPECT_NE(attempt(1e6f, DType::kF16).find("above 65504"), std::string::npos);
  EXPECT_EQ(attempt(1e6f, DType::kBF16), "");
  EXPECT_EQ(attempt(inf, DType::kF32), "");
}

TEST(QuantizeModel, WrongOptionsAreNamed) {
  const test::TempFolder temp;
  const std::string input = write_small_model(temp);
  const auto message = [&](const QuantizeOptions& options) {
    const Status status = run(input, temp.file("out.gguf"), options).status();
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    return status.message();
  };
  QuantizeOptions unwritable;
  unwritable.type = DType::kIQ2_XS;
  EXPECT_NE(message(unwritable).find("cannot write type IQ2_XS (writable: F32, "), std::string::npos);
  QuantizeOptions head;
  head.output = DType::kQ3_K;
  EXPECT_NE(message(head).find("Q3_K"), std::string::npos);
  QuantizeOptions pattern;
  pattern.keep = {"blk.1.*"};
  EXPECT_NE(message(pattern).find("no tensor matches the pattern 'blk.1.*'"), std::string::npos);
  EXPECT_EQ(temp.n_files(), 1u);  // nothing half-written stays behind
}

TEST(QuantizeModel, EveryListedTypeCanBeWritten) {
  const test::TempFolder temp;
  const std::string input = write_small_model(temp);
  std::string names = writable_type_names() + ", ";
  int count = 0;
  for (size_t end; (end = names.find(", ")) != std::string::npos; names.erase(0, end + 2)) {
    QuantizeOptions options;
    options.type = *dtype_from_name(names.substr(0, end));
    EXPECT_EQ(types_after(input, temp, options)[3], names.substr(0, end));
    ++count;
  }
  EXPECT_EQ(count, 11);
}

TEST(QuantizeModel, Globs) {
  EXPECT_TRUE(glob_matches("*", ""));
  EXPECT_TRUE(glob_matches("blk.*.weight", "blk.0.attn_q.weight"));
  EXPECT_TRUE(glob_matches("*a*b*", "xxaxbxb"));
  EXPECT_TRUE(glob_matches("blk.?.x", "blk.7.x"));
  EXPECT_FALSE(glob_matches("blk.?.x", "blk.17.x"));
  EXPECT_FALSE(glob_matches("blk", "blk.0"));
  EXPECT_FALSE(glob_matches("*.bias", "blk.0.attn_q.weight"));
  EXPECT_FALSE(glob_matches("", "a"));
  EXPECT_TRUE(glob_matches("", ""));
  // A pattern of many stars must not take exponential time.
  EXPECT_FALSE(glob_matches("*a*a*a*a*a*a*a*a*a*a*a*a*b", std::string(2000, 'a')));
}

}  // namespace
}  // namespace dspark
