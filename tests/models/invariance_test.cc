// Batch invariance: the bits of a row depend on its own sequence only. Everything here is memcmp.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
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
    const bool is_file = golden.model.extension() == ".gguf";
    if (is_file && std::filesystem::exists(golden.model.parent_path() / "config.json")) {
      continue;  // same weights as the folder
    }
    cases.push_back({golden.name + "_float", golden.model, DType::kF32, true, KvDType::kF32});
    if (golden.name == "fixture_dsv4_full") {
      cases.push_back({golden.name + "_q8_0_cache", golden.model, DType::kF32, false, KvDType::kQ8_0});
    }
    cases.push_back({golden.name + "_serving", golden.model, DType::kF32, false, KvDType::kBF16});
  }
  for (DType dtype :
       {DType::kQ4_1, DType::kQ5_0, DType::kQ5_1, DType::kQ8_0, DType::kQ2_K, DType::kQ3_K, DType::kQ4_K,
        DType::kQ5_K, DType::kQ6_K, DType::kIQ4_NL, DType::kIQ4_XS, DType::kMXFP4, DType::kF16}) {
    cases.push_back({std::string("llama_") + dtype_name(dtype), {}, dtype});
  }
  for (DType dtype : {DType::kQ4_0, DType::kQ4_K, DType::kBF16}) {
    cases.push_back(
        {std::string("llama_") + dtype_name(dtype) + "_q8_0_cache", {}, dtype, false, KvDType::kQ8_0});
  }
  for (DType dtype : {DType::kQ4_0, DType::kQ4_K, DType::kMXFP4, DType::kBF16}) {
    cases.push_back({std::string("qwen3moe_") + dtype_name(dtype), {}, dtype, false, KvDType::kBF16, true});
  }
  return cases;
}

class Invariance : public testing::TestWithParam<InvarianceCase> {
 protected:
  std::unique_ptr<TargetModel> load(ThreadPool& pool) {
    if (GetParam().model.empty() && path_.empty()) {  // written once: an older model may still map the file
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

// Rows [begin, begin + n) of `whole` against rows [row, row + n) of `part`.
void expect_same_rows(const TargetModel& model, const Outputs& whole, size_t begin, const Outputs& part,
                      size_t n, size_t row = 0) {
  const auto vocab = static_cast<size_t>(model.config().vocab_size);
  const auto dim = static_cast<size_t>(model.config().dim);
  const size_t part_rows = part.logits.size() / vocab, whole_rows = whole.logits.size() / vocab;
  ASSERT_LE(row + n, part_rows);
  ASSERT_LE(begin + n, whole_rows);
  EXPECT_EQ(std::memcmp(part.logits.data() + row * vocab, whole.logits.data() + begin * vocab,
                        n * vocab * sizeof(float)),
            0)
      << "logits of rows " << begin << " to " << begin + n;
  EXPECT_EQ(std::memcmp(part.final_norm.data() + row * dim, whole.final_norm.data() + begin * dim,
                        n * dim * sizeof(float)),
            0);
  const size_t n_streams = part.captured.size() / (part_rows * dim);
  EXPECT_EQ(n_streams, 2u);  // those that load() asks for
  for (size_t s = 0; s < n_streams; ++s) {
    EXPECT_EQ(std::memcmp(part.captured.data() + (s * part_rows + row) * dim,
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
  EXPECT_TRUE(
      std::all_of(whole.logits.begin(), whole.logits.end(), [](float x) { return std::isfinite(x); }));
  Session single = session(*model);
  for (size_t i = 0; i < tokens.size(); ++i) {
    expect_same_rows(*model, whole, i, single.forward(0, {tokens[i]}), 1);
  }
}

TEST_P(Invariance, AnyChunkingEqualsOnePrefill) {
  std::vector<int32_t> tokens;
  Outputs whole;
  {
    ThreadPool pool(2);
    auto model = load(pool);
    ASSERT_NE(model, nullptr);
    tokens = random_tokens(*model, 600, 2);
    whole = session(*model).forward(0, tokens);
  }
  struct Chunks {
    int threads;
    size_t largest;
  };
  std::mt19937 random(3);
  for (const Chunks& chunks : {Chunks{2, 5}, Chunks{2, 40}, Chunks{2, 300}, Chunks{1, 40}, Chunks{4, 90}}) {
    SCOPED_TRACE(testing::Message() << chunks.threads << " threads, up to " << chunks.largest << " rows");
    ThreadPool pool(chunks.threads);
    auto model = load(pool);
    ASSERT_NE(model, nullptr);
    Session chunked = session(*model);
    for (size_t begin = 0; begin < tokens.size();) {
      const size_t n = std::min(tokens.size() - begin, 1 + random() % chunks.largest);
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

// A sequence and what it gives in a cache of its own, in one pass.
struct Alone {
  std::vector<int32_t> tokens;
  Outputs outputs;
  std::vector<std::vector<uint8_t>> pages;
};

Alone run_alone(TargetModel& model, KvDType cache, std::vector<int32_t> tokens) {
  Session one(model, cache, 1, kMaxPositions);
  Alone alone = {std::move(tokens), {}, {}};
  alone.outputs = one.forward(0, alone.tokens);
  const int n_pages = (one.length(0) + kKvPageSize - 1) / kKvPageSize;
  for (int page = 0; page < n_pages; ++page) {
    const std::span<const uint8_t> bytes = one.page(0, page);
    alone.pages.emplace_back(bytes.begin(), bytes.end());
  }
  return alone;
}

// Runs all sequences of `batched` to their ends, in batches of random pieces of each: every row, and in the
// end every byte of their pages, is as in `alone`.
void expect_batches_equal_alone(const TargetModel& model, Session& batched, const std::vector<Alone>& alone) {
  std::mt19937 random(6);
  for (;;) {
    std::vector<Session::Part> parts;
    std::vector<size_t> begins;
    size_t n_left = 0;
    for (size_t s = alone.size(); s-- > 0;) {
      const auto begin = static_cast<size_t>(batched.length(static_cast<int>(s)));
      const size_t left = alone[s].tokens.size() - begin;
      n_left += left;
      const size_t n = std::min(left, static_cast<size_t>(random() % 12));
      if (n == 0) continue;
      parts.push_back({static_cast<int>(s), slice(alone[s].tokens, begin, n)});
      begins.push_back(begin);
    }
    if (n_left == 0) break;
    if (parts.empty()) continue;
    const Outputs out = batched.forward(parts);
    size_t row = 0;
    for (size_t p = 0; p < parts.size(); ++p) {
      SCOPED_TRACE(testing::Message() << "sequence " << parts[p].sequence);
      const size_t n = parts[p].tokens.size();
      expect_same_rows(model, alone[static_cast<size_t>(parts[p].sequence)].outputs, begins[p], out, n, row);
      row += n;
    }
  }
  for (size_t s = 0; s < alone.size(); ++s) {
    for (size_t page = 0; page < alone[s].pages.size(); ++page) {
      const std::span<const uint8_t> bytes = batched.page(static_cast<int>(s), static_cast<int>(page));
      EXPECT_TRUE(std::ranges::equal(bytes, alone[s].pages[page])) << "sequence " << s << ", page " << page;
    }
  }
}

TEST_P(Invariance, SequencesInOneBatchEqualSequencesAlone) {
  std::vector<Alone> alone;
  {
    ThreadPool pool(2);
    auto model = load(pool);
    ASSERT_NE(model, nullptr);
    for (uint32_t s = 0; s < 3; ++s) {
      alone.push_back(run_alone(*model, GetParam().cache, random_tokens(*model, 60 + 17 * s, 10 + s)));
    }
  }
  for (int threads : {1, 2, 4}) {
    SCOPED_TRACE(testing::Message() << threads << " threads");
    ThreadPool pool(threads);
    auto model = load(pool);
    ASSERT_NE(model, nullptr);
    Session batched = session(*model, 3);
    expect_batches_equal_alone(*model, batched, alone);
  }
}

// What a prefix cache does: a second sequence reads the pages of a first one that began alike, and goes on
// with other tokens, while the first goes on too. Nobody writes into the shared pages.
TEST_P(Invariance, SharedPagesEqualPagesOfOnesOwn) {
  constexpr int kSharedPages = 3;
  constexpr size_t kShared = kSharedPages * kKvPageSize, kPiece = 24;
  std::vector<Alone> alone;
  {
    ThreadPool pool(2);
    auto model = load(pool);
    ASSERT_NE(model, nullptr);
    const std::vector<int32_t> beginning = random_tokens(*model, kShared, 11);
    for (uint32_t s = 0; s < 2; ++s) {
      std::vector<int32_t> tokens = beginning;
      const std::vector<int32_t> rest = random_tokens(*model, 30 + 15 * s, 12 + s);
      tokens.insert(tokens.end(), rest.begin(), rest.end());
      alone.push_back(run_alone(*model, GetParam().cache, std::move(tokens)));
    }
  }
  for (int threads : {1, 4}) {
    SCOPED_TRACE(testing::Message() << threads << " threads");
    ThreadPool pool(threads);
    auto model = load(pool);
    ASSERT_NE(model, nullptr);
    Session shared = session(*model, 2);
    for (size_t begin = 0; begin < kShared; begin += kPiece) {
      shared.forward(0, slice(alone[0].tokens, begin, kPiece));
    }
    shared.share(0, 1, kSharedPages);
    expect_batches_equal_alone(*model, shared, alone);
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
