// Batch invariance: the bits of a row depend on its own sequence only. Everything here is memcmp.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "models/harness.h"
#include "models/tiny_model.h"

namespace dspark {
namespace {

using test::Outputs;
using test::Session;

constexpr int kMaxPositions = 640;  // more than two attention chunks

struct InvarianceCase {
  std::string name;
  std::filesystem::path model;  // empty: a tiny llama in `quantised`
  DType quantised = DType::kF32;
  bool float_activations = false;
  KvDType cache = KvDType::kBF16;
  bool experts = false;  // a tiny qwen3moe instead of the llama
};
void PrintTo(const InvarianceCase& invariance, std::ostream* out) {
  *out << invariance.name;
}

std::vector<InvarianceCase> invariance_cases() {
  std::vector<InvarianceCase> cases;
  for (const test::GoldenCase& golden : test::fixture_cases()) {
    if (golden.name.find("llama_bias_mha_gguf") != std::string::npos) continue;  // same weights as the folder
    cases.push_back({golden.name + "_float", golden.model, DType::kF32, true, KvDType::kF32});
    if (golden.name == "fixture_dsv4_full") {
      cases.push_back({golden.name + "_q8_0_cache", golden.model, DType::kF32, false, KvDType::kQ8_0});
    }
    cases.push_back({golden.name + "_serving", golden.model, DType::kF32, false, KvDType::kBF16});
  }
  for (DType dtype :
       {DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ8_0, DType::kQ4_K, DType::kQ6_K, DType::kF16}) {
    cases.push_back({std::string("llama_") + dtype_name(dtype),
                     {},
                     dtype,
                     false,
                     dtype == DType::kQ4_0 ? KvDType::kQ8_0 : KvDType::kBF16});
  }
  for (DType dtype : {DType::kQ4_0, DType::kQ4_K, DType::kBF16}) {
    cases.push_back({std::string("qwen3moe_") + dtype_name(dtype), {}, dtype, false, KvDType::kBF16, true});
  }
  return cases;
}

class Invariance : public testing::TestWithParam<InvarianceCase> {
 protected:
  std::unique_ptr<TargetModel> load(ThreadPool& pool) {
    if (GetParam().model.empty()) {
      const auto make = GetParam().experts ? test::TinyGguf::qwen3moe : test::TinyGguf::llama;
      path_ = make(GetParam().quantised, 256).write(folder_);
    }
    const auto& path = GetParam().model.empty() ? path_ : GetParam().model;
    std::unique_ptr<TargetModel> model = test::open_model(path, pool, GetParam().float_activations);
    if (model != nullptr) model->set_capture_layers({0, model->config().n_layers});
    return model;
  }
  Session session(TargetModel& model, int n_sequences = 1) {
    return Session(model, GetParam().cache, n_sequences, kMaxPositions);
  }

 private:
  test::TemporaryFolder folder_;
  std::filesystem::path path_;
};

std::vector<int32_t> random_tokens(const TargetModel& model, size_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<int32_t> tokens(n);
  for (int32_t& token : tokens) {
    token = static_cast<int32_t>(random() % static_cast<uint32_t>(model.config().vocab_size));
  }
  return tokens;
}

std::vector<int32_t> slice(const std::vector<int32_t>& tokens, size_t begin, size_t n) {
  const auto first = tokens.begin() + static_cast<ptrdiff_t>(begin);
  return {first, first + static_cast<ptrdiff_t>(n)};
}

// Rows [begin, begin + n) of `whole` against all rows of `part`.
void expect_same_rows(const TargetModel& model, const Outputs& whole, size_t begin, const Outputs& part,
                      size_t n) {
  const auto vocab = static_cast<size_t>(model.config().vocab_size);
  const auto dim = static_cast<size_t>(model.config().dim);
  ASSERT_EQ(part.logits.size(), n * vocab);
  EXPECT_EQ(std::memcmp(part.logits.data(), whole.logits.data() + begin * vocab, n * vocab * sizeof(float)),
            0)
      << "logits of rows " << begin << " to " << begin + n;
  EXPECT_EQ(
      std::memcmp(part.final_norm.data(), whole.final_norm.data() + begin * dim, n * dim * sizeof(float)), 0);
  const size_t n_streams = part.captured.size() / (n * dim);
  const size_t whole_rows = whole.logits.size() / vocab;
  for (size_t s = 0; s < n_streams; ++s) {
    EXPECT_EQ(std::memcmp(part.captured.data() + s * n * dim,
                          whole.captured.data() + (s * whole_rows + begin) * dim, n * dim * sizeof(float)),
              0)
        << "residual stream " << s << " of rows " << begin << " to " << begin + n;
  }
}

TEST_P(Invariance, TokenByTokenEqualsOnePrefill) {
  ThreadPool pool(2);
  auto model = load(pool);
  ASSERT_NE(model, nullptr);
  const std::vector<int32_t> tokens = random_tokens(*model, 70, 1);
  Session all = session(*model);
  const Outputs whole = all.forward(0, tokens);
  EXPECT_GT(test::max_abs(whole.logits.data(), whole.logits.size()), 0.0f);
  Session single = session(*model);
  for (size_t i = 0; i < tokens.size(); ++i) {
    expect_same_rows(*model, whole, i, single.forward(0, {tokens[i]}), 1);
  }
}

TEST_P(Invariance, AnyChunkingEqualsOnePrefill) {
  ThreadPool pool(2);
  auto model = load(pool);
  ASSERT_NE(model, nullptr);
  const std::vector<int32_t> tokens = random_tokens(*model, 600, 2);
  Session all = session(*model);
  const Outputs whole = all.forward(0, tokens);
  std::mt19937 random(3);
  for (size_t largest : {5u, 40u, 300u}) {
    Session chunked = session(*model);
    for (size_t begin = 0; begin < tokens.size();) {
      const size_t n = std::min(tokens.size() - begin, 1 + random() % largest);
      expect_same_rows(*model, whole, begin, chunked.forward(0, slice(tokens, begin, n)), n);
      begin += n;
    }
  }
}

TEST_P(Invariance, RejectedRowsLeaveNoTrace) {
  ThreadPool pool(1);
  auto model = load(pool);
  ASSERT_NE(model, nullptr);
  const std::vector<int32_t> tokens = random_tokens(*model, 100, 4);
  Session all = session(*model);
  const Outputs whole = all.forward(0, tokens);
  Session drafted = session(*model);
  std::mt19937 random(5);
  for (size_t begin = 0; begin < tokens.size();) {
    const size_t n = std::min(tokens.size() - begin, static_cast<size_t>(1 + random() % 6));
    std::vector<int32_t> rows = slice(tokens, begin, n);
    const std::vector<int32_t> garbage = random_tokens(*model, random() % 8, static_cast<uint32_t>(begin));
    rows.insert(rows.end(), garbage.begin(), garbage.end());
    Outputs out = drafted.forward(0, rows);
    out.logits.resize(n * static_cast<size_t>(model->config().vocab_size));
    EXPECT_EQ(std::memcmp(out.logits.data(),
                          whole.logits.data() + begin * static_cast<size_t>(model->config().vocab_size),
                          out.logits.size() * sizeof(float)),
              0);
    drafted.truncate(0, static_cast<int>(begin + n));
    begin += n;
  }
}

TEST_P(Invariance, SequencesInOneBatchEqualSequencesAlone) {
  ThreadPool pool(2);
  auto model = load(pool);
  ASSERT_NE(model, nullptr);
  constexpr int kSequences = 3;
  std::vector<std::vector<int32_t>> tokens;
  std::vector<Outputs> alone;
  for (uint32_t s = 0; s < kSequences; ++s) {
    tokens.push_back(random_tokens(*model, 60 + 17 * s, 10 + s));
    Session one = session(*model);
    alone.push_back(one.forward(0, tokens.back()));
  }
  Session shared = session(*model, kSequences);
  std::mt19937 random(6);
  const auto vocab = static_cast<size_t>(model->config().vocab_size);
  for (;;) {
    std::vector<Session::Part> parts;
    std::vector<size_t> begins;
    for (int s = kSequences - 1; s >= 0; --s) {
      const auto begin = static_cast<size_t>(shared.length(s));
      const std::vector<int32_t>& all = tokens[static_cast<size_t>(s)];
      const size_t n = std::min(all.size() - begin, static_cast<size_t>(random() % 12));
      if (n == 0) continue;
      parts.push_back({s, slice(all, begin, n)});
      begins.push_back(begin);
    }
    if (parts.empty()) {
      const bool done = [&] {
        for (int s = 0; s < kSequences; ++s) {
          if (static_cast<size_t>(shared.length(s)) < tokens[static_cast<size_t>(s)].size()) return false;
        }
        return true;
      }();
      if (done) break;
      continue;
    }
    const Outputs out = shared.forward(parts);
    size_t row = 0;
    for (size_t p = 0; p < parts.size(); ++p) {
      const Outputs& want = alone[static_cast<size_t>(parts[p].sequence)];
      const size_t n = parts[p].tokens.size();
      EXPECT_EQ(std::memcmp(out.logits.data() + row * vocab, want.logits.data() + begins[p] * vocab,
                            n * vocab * sizeof(float)),
                0)
          << "sequence " << parts[p].sequence << " from row " << begins[p];
      row += n;
    }
  }
}

TEST_P(Invariance, ThreadsDoNotMatter) {
  std::vector<Outputs> outputs;
  std::unique_ptr<TargetModel> model;
  for (int threads : {1, 2, 4}) {
    ThreadPool pool(threads);
    model = load(pool);
    ASSERT_NE(model, nullptr);
    Session all = session(*model);
    outputs.push_back(all.forward(0, random_tokens(*model, 290, 7)));
    expect_same_rows(*model, outputs.front(), 0, outputs.back(), 290);
    model.reset();  // before its pool
    model = nullptr;
  }
}

TEST_P(Invariance, AskedRowsAloneEqualAllRows) {
  ThreadPool pool(2);
  auto model = load(pool);
  ASSERT_NE(model, nullptr);
  const std::vector<int32_t> tokens = random_tokens(*model, 33, 8);
  Session all = session(*model);
  const Outputs whole = all.forward(0, tokens);

  Result<KvPool> cache = KvPool::create(GetParam().cache, model->kv_shapes(), 2);
  ASSERT_TRUE(cache.ok());
  const std::vector<int32_t> pages = {1, 0};
  ForwardBatch batch;
  batch.tokens = tokens;
  for (int32_t i = 0; i < 33; ++i) batch.positions.push_back(i);
  batch.runs.push_back({0, 33, 0, pages});
  batch.logit_rows = {4, 31, 32};
  batch.capture_rows = {0, 7};
  model->set_capture_layers({model->config().n_layers, 1});
  const ForwardResult some = model->forward(batch, *cache);
  const auto vocab = static_cast<size_t>(model->config().vocab_size);
  const auto dim = static_cast<size_t>(model->config().dim);
  ASSERT_EQ(some.logits.size(), 3 * vocab);
  ASSERT_EQ(some.final_norm.size(), 3 * dim);
  ASSERT_EQ(some.captured.size(), 2 * 2 * dim);
  for (size_t i = 0; i < 3; ++i) {
    const auto row = static_cast<size_t>(batch.logit_rows[i]);
    EXPECT_EQ(std::memcmp(&some.logits[i * vocab], &whole.logits[row * vocab], vocab * sizeof(float)), 0);
    EXPECT_EQ(std::memcmp(&some.final_norm[i * dim], &whole.final_norm[row * dim], dim * sizeof(float)), 0);
  }
  // whole.captured: streams 0 and n_layers; here the order asked for is n_layers, 1.
  EXPECT_EQ(std::memcmp(&some.captured[0], &whole.captured[(33 + 0) * dim], dim * sizeof(float)), 0);
  EXPECT_EQ(std::memcmp(&some.captured[dim], &whole.captured[(33 + 7) * dim], dim * sizeof(float)), 0);
}

// A prompt in two chunks as the engine runs it: no logits of the first, one row of the second, no capture of
// the last stream - the case in which unasked rows are dropped early.
TEST_P(Invariance, UnaskedRowsAreDroppedWithoutATrace) {
  ThreadPool pool(2);
  auto model = load(pool);
  ASSERT_NE(model, nullptr);
  const std::vector<int32_t> tokens = random_tokens(*model, 50, 9);
  Session all = session(*model);
  const Outputs whole = all.forward(0, tokens);
  Result<KvPool> cache = KvPool::create(GetParam().cache, model->kv_shapes(), 2);
  ASSERT_TRUE(cache.ok());
  const std::vector<int32_t> pages = {1, 0};
  model->set_capture_layers({0});
  const auto vocab = static_cast<size_t>(model->config().vocab_size);
  const auto dim = static_cast<size_t>(model->config().dim);
  ForwardBatch batch;
  for (int32_t begin : {0, 20}) {
    const int32_t end = begin == 0 ? 20 : 50;
    batch.clear();
    batch.tokens.assign(tokens.begin() + begin, tokens.begin() + end);
    for (int32_t pos = begin; pos < end; ++pos) batch.positions.push_back(pos);
    batch.runs.push_back({0, end - begin, begin, pages});
    batch.capture_rows = {3};
    if (end == 50) batch.logit_rows = {11, 29};
    const ForwardResult out = model->forward(batch, *cache);
    ASSERT_EQ(out.captured.size(), dim);
    EXPECT_EQ(std::memcmp(out.captured.data(), &whole.captured[static_cast<size_t>(begin + 3) * dim],
                          dim * sizeof(float)),
              0);
    ASSERT_EQ(out.logits.size(), batch.logit_rows.size() * vocab);
    for (size_t i = 0; i < batch.logit_rows.size(); ++i) {
      const auto row = static_cast<size_t>(begin + batch.logit_rows[i]);
      EXPECT_EQ(std::memcmp(&out.logits[i * vocab], &whole.logits[row * vocab], vocab * sizeof(float)), 0);
      EXPECT_EQ(std::memcmp(&out.final_norm[i * dim], &whole.final_norm[row * dim], dim * sizeof(float)), 0);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, Invariance, testing::ValuesIn(invariance_cases()),
                         [](const auto& param) { return param.param.name; });

}  // namespace
}  // namespace dspark
