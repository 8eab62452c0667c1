// Attention on every instruction set and cache type: against the double-precision reference, and bit for bit
// against itself under other chunkings, batches, page orders and thread counts.
#include "kernels/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "kernels/attention_fixture.h"
#include "kernels/isa.h"
#include "kernels/reference/attention_reference.h"

namespace dspark {
namespace {

using test::AttentionRunner;
using test::AttentionSequence;
using test::AttentionShape;
using test::Batch;
using test::random_sequence;

constexpr KvDType kDTypes[] = {KvDType::kF32, KvDType::kBF16, KvDType::kQ8_0};

const char* name(KvDType dtype) {
  return dtype == KvDType::kF32 ? "f32" : dtype == KvDType::kBF16 ? "bf16" : "q8_0";
}

// Calls fn for every instruction set, which is active meanwhile.
template <typename F>
void for_each_isa(F&& fn) {
  const Isa before = active_isa();
  for (Isa isa : runnable_isas()) {
    set_active_isa(isa);
    SCOPED_TRACE(isa_name(isa));
    fn(isa);
  }
  set_active_isa(before);
}

// Largest allowed error per unit of sum(weight * |v|). Float arithmetic: some 1e-7 per operation and unit of
// score. The bf16 dot of AVX-512 rounds q (2^-9 of each product) and weights (2^-9, in sum and numerator).
double tolerance(Isa isa, KvDType dtype, double score_magnitude) {
  double relative = 2e-6 * (4.0 + score_magnitude);
  if (isa == Isa::kAvx512 && dtype == KvDType::kBF16) relative += 2.0 * score_magnitude / 512.0 + 2.0 / 512.0;
  return relative;
}

// Compares the rows [first, length) of one sequence with the reference: causal rows, or (is_block) a
// drafter's block of which every row sees the context and the whole block.
void expect_near_reference(Isa isa, KvDType dtype, const AttentionShape& shape, const AttentionSequence& s,
                           const std::vector<float>& out, int32_t first, bool is_block = false) {
  const std::vector<float> k = reference::through_cache(dtype, s.k.data(), static_cast<int64_t>(s.k.size()));
  const std::vector<float> v = reference::through_cache(dtype, s.v.data(), static_cast<int64_t>(s.v.size()));
  double squares = 0.0, allowed_squares = 0.0;
  for (int32_t pos = first; pos < s.length; ++pos) {
    if (pos > 20 && pos < s.length - 20 && pos % 17 != 0) continue;  // the reference is slow
    const int32_t newest = is_block ? s.length - 1 : pos;
    const int32_t reach = is_block ? first - shape.window : pos - shape.window + 1;
    const int32_t oldest = shape.window > 0 ? std::max(0, reach) : 0;
    for (int32_t h = 0; h < shape.n_kv_heads * shape.group; ++h) {
      const int32_t at = pos * shape.q_dim() + h * shape.head_dim, kv = h / shape.group * shape.head_dim;
      const auto want = reference::attention(s.q.data() + at, k.data() + kv, v.data() + kv, shape.kv_dim(),
                                             oldest, newest, shape.head_dim, shape.scale(), shape.softcap);
      const double relative = tolerance(isa, dtype, want.score_magnitude);
      for (int32_t d = 0; d < shape.head_dim; ++d) {
        const double error =
            static_cast<double>(out[static_cast<size_t>(at + d)]) - want.out[static_cast<size_t>(d)];
        const double allowed = relative * want.magnitude[static_cast<size_t>(d)] + 1e-12;
        ASSERT_LE(std::fabs(error), allowed)
            << name(dtype) << " position " << pos << " head " << h << " dim " << d;
        squares += error * error;
        allowed_squares += allowed * allowed;
      }
    }
  }
  // Bounds of single elements are worst cases; errors that really are rounding stay far below them on
  // average.
  EXPECT_LE(squares, 0.05 * allowed_squares) << name(dtype);
}

TEST(Attention, AgreesWithTheReference) {
  const AttentionShape shapes[] = {
      {64, 3, 3, 0, 0.0f},  {64, 2, 7, 0, 0.0f},   {128, 1, 4, 0, 0.0f},   {256, 1, 4, 100, 0.0f},
      {32, 2, 1, 0, 5.0f},  {96, 1, 2, 300, 0.0f}, {64, 1, 16, 40, 30.0f}, {8, 2, 2, 0, 0.0f},
      {24, 1, 5, 33, 0.0f}, {72, 2, 1, 0, 0.0f},
  };
  for_each_isa([&](Isa isa) {
    for (KvDType dtype : kDTypes) {
      uint32_t seed = 1;
      for (const AttentionShape& shape : shapes) {
        if (dtype == KvDType::kQ8_0 && shape.head_dim % kKvScaleBlock != 0) continue;
        SCOPED_TRACE(testing::Message() << "head_dim " << shape.head_dim << " group " << shape.group
                                        << " window " << shape.window << " softcap " << shape.softcap);
        const AttentionSequence s = random_sequence(shape, 290, seed++);
        AttentionRunner runner(shape, dtype, {s}, 2, seed);
        runner.step({{0, 40}});
        runner.step({{0, 215}});
        for (int i = 0; i < 3; ++i) runner.step({{0, 1}});  // across the chunk boundary at 256
        runner.step({{0, 32}});
        expect_near_reference(isa, dtype, shape, s, runner.output(0), 0);
      }
    }
  });
}

TEST(Attention, AgreesWithTheReferenceOverManyChunks) {
  const AttentionShape shape{64, 2, 3, 0, 0.0f};
  const AttentionSequence s = random_sequence(shape, 1100, 99);
  for_each_isa([&](Isa isa) {
    for (KvDType dtype : kDTypes) {
      AttentionRunner runner(shape, dtype, {s}, 2, 5);
      runner.step({{0, 1091}});
      runner.step({{0, 8}});
      runner.step({{0, 1}});
      expect_near_reference(isa, dtype, shape, s, runner.output(0), 1088);
    }
  });
}

const AttentionShape kBlockShapes[] = {
    {64, 3, 3, 0, 0.0f}, {32, 2, 2, 40, 0.0f}, {128, 1, 4, 0, 12.0f}, {64, 1, 16, 300, 0.0f}};

// A drafter's block: no mask inside it, at the start of a text, inside a chunk, and across two chunks.
TEST(Attention, BlockRowsSeeTheWholeBlock) {
  for_each_isa([&](Isa isa) {
    for (KvDType dtype : kDTypes) {
      for (const AttentionShape& shape : kBlockShapes) {
        for (int32_t context : {0, 1, 30, 250, 253, 700}) {
          SCOPED_TRACE(testing::Message() << "context " << context << " window " << shape.window);
          const AttentionSequence s = random_sequence(shape, context + 7, static_cast<uint32_t>(context));
          AttentionRunner runner(shape, dtype, {s}, 2, 3);
          if (context > 0) runner.step({{0, context}});
          runner.step({{0, 7}}, true);
          expect_near_reference(isa, dtype, shape, s, runner.output(0), context, true);
        }
      }
    }
  });
}

// Ways to run the same three sequences.
void run_whole(AttentionRunner& runner, const std::vector<int32_t>& lengths) {
  for (size_t s = 0; s < lengths.size(); ++s) runner.step({{static_cast<int32_t>(s), lengths[s]}});
}

void run_token_by_token(AttentionRunner& runner, const std::vector<int32_t>& lengths) {
  for (size_t s = 0; s < lengths.size(); ++s) {
    for (int32_t i = 0; i < lengths[s]; ++i) runner.step({{static_cast<int32_t>(s), 1}});
  }
}

void run_random_batches(AttentionRunner& runner, std::vector<int32_t> left, uint32_t seed, int32_t max_rows) {
  std::mt19937 rng(seed);
  while (std::ranges::any_of(left, [](int32_t n) { return n > 0; })) {
    Batch batch;
    for (size_t s = 0; s < left.size(); ++s) {
      const int32_t rows =
          std::min(left[s], static_cast<int32_t>(rng() % static_cast<uint32_t>(max_rows + 1)));
      if (rows == 0) continue;
      batch.emplace_back(static_cast<int32_t>(s), rows);
      left[s] -= rows;
    }
    std::shuffle(batch.begin(), batch.end(), rng);
    if (!batch.empty()) runner.step(batch);
  }
}

void expect_same_bits(const AttentionRunner& a, const AttentionRunner& b, size_t n_sequences) {
  for (size_t s = 0; s < n_sequences; ++s) {
    const auto &x = a.output(static_cast<int32_t>(s)), &y = b.output(static_cast<int32_t>(s));
    ASSERT_EQ(x.size(), y.size());
    EXPECT_EQ(std::memcmp(x.data(), y.data(), x.size() * sizeof(float)), 0) << "sequence " << s;
  }
}

void check_invariance(const AttentionShape& shape, KvDType dtype) {
  const std::vector<int32_t> lengths = {530, 40, 270};
  std::vector<AttentionSequence> sequences;
  for (size_t s = 0; s < lengths.size(); ++s) {
    sequences.push_back(random_sequence(shape, lengths[s], static_cast<uint32_t>(s) + 7));
  }
  AttentionRunner whole(shape, dtype, sequences, 1, 0);
  run_whole(whole, lengths);
  for (int n_threads : {1, 2, 4}) {
    SCOPED_TRACE(testing::Message() << n_threads << " threads");
    AttentionRunner again(shape, dtype, sequences, n_threads, 11);
    again.pollute();
    run_whole(again, lengths);
    expect_same_bits(whole, again, lengths.size());

    AttentionRunner together(shape, dtype, sequences, n_threads, 3);
    together.pollute();
    together.step({{2, 270}, {0, 530}, {1, 40}});
    expect_same_bits(whole, together, lengths.size());

    for (int32_t max_rows : {9, 120}) {
      SCOPED_TRACE(testing::Message() << "batches of up to " << max_rows);
      AttentionRunner mixed(shape, dtype, sequences, n_threads, 17);
      mixed.pollute();
      run_random_batches(mixed, lengths, static_cast<uint32_t>(max_rows), max_rows);
      expect_same_bits(whole, mixed, lengths.size());
    }
  }
  AttentionRunner single(shape, dtype, sequences, 2, 23);
  run_token_by_token(single, lengths);
  expect_same_bits(whole, single, lengths.size());
}

TEST(Attention, BitsDoNotDependOnHowRowsAreGrouped) {
  const AttentionShape shapes[] = {{64, 2, 3, 0, 0.0f}, {32, 1, 7, 70, 20.0f}, {64, 3, 1, 290, 0.0f}};
  for_each_isa([&](Isa) {
    for (KvDType dtype : kDTypes) {
      SCOPED_TRACE(name(dtype));
      for (const AttentionShape& shape : shapes) check_invariance(shape, dtype);
    }
  });
}

TEST(Attention, BitsOfABlockDoNotDependOnItsNeighbours) {
  const std::vector<int32_t> contexts = {530, 30, 253};
  const auto run = [&](AttentionRunner& runner, bool together) {
    for (int32_t i = 0; i < 3; ++i) runner.step({{i, contexts[static_cast<size_t>(i)]}});
    if (together) return runner.step({{2, 7}, {0, 16}, {1, 7}}, true);
    for (int32_t i = 0; i < 3; ++i) runner.step({{i, i == 0 ? 16 : 7}}, true);
  };
  for_each_isa([&](Isa) {
    for (KvDType dtype : kDTypes) {
      SCOPED_TRACE(name(dtype));
      for (const AttentionShape& shape : kBlockShapes) {
        std::vector<AttentionSequence> sequences;
        for (int32_t i = 0; i < 3; ++i) {
          sequences.push_back(
              random_sequence(shape, contexts[static_cast<size_t>(i)] + 16, static_cast<uint32_t>(i)));
        }
        AttentionRunner alone(shape, dtype, sequences, 1, 0);
        run(alone, false);
        for (int n_threads : {1, 2, 4}) {
          AttentionRunner mixed(shape, dtype, sequences, n_threads, 5);
          mixed.pollute();
          run(mixed, true);
          expect_same_bits(alone, mixed, 3);
        }
      }
    }
  });
}

// Rows written, rejected and written again leave nothing behind.
TEST(Attention, RejectedRowsLeaveNoTrace) {
  const AttentionShape shape{64, 1, 3, 0, 0.0f};
  const AttentionSequence s = random_sequence(shape, 280, 1);
  for_each_isa([&](Isa) {
    for (KvDType dtype : kDTypes) {
      SCOPED_TRACE(name(dtype));
      AttentionRunner plain(shape, dtype, {s}, 1, 0), provisional(shape, dtype, {s}, 1, 0);
      plain.step({{0, 280}});
      std::mt19937 rng(4);
      for (int32_t pos = 0; pos < 280;) {
        const int32_t drafted = std::min<int32_t>(8, 280 - pos);
        provisional.step({{0, drafted}});
        pos += 1 + static_cast<int32_t>(rng() % static_cast<uint32_t>(drafted));
        provisional.set_position(0, pos);
      }
      expect_same_bits(plain, provisional, 1);
    }
  });
}

// Random batches up to the size that was reserved, with and without cut tiles.
TEST(Attention, ReservedScratchDoesNotGrow) {
  std::mt19937 rng(6);
  int64_t n_cut = 0;
  for (int i = 0; i < 24; ++i) {
    const int n_threads = static_cast<int>(rng() % 5) + 1;
    const int32_t n_kv_heads = static_cast<int32_t>(rng() % 2) + 1;
    const int32_t group = static_cast<int32_t>(i % 3 == 2 ? 12 : 1 << rng() % 3);
    const KvLayerShape shape{n_kv_heads, 16};
    const int32_t context = static_cast<int32_t>(rng() % 1500) + 40;
    ThreadPool threads(n_threads);
    auto cache = KvPool::create(KvDType::kBF16, {shape}, context / kKvPageSize + 1);
    ASSERT_TRUE(cache.ok()) << cache.status().to_string();
    std::vector<int32_t> pages(static_cast<size_t>(cache->n_pages));
    std::iota(pages.begin(), pages.end(), 0);
    constexpr int32_t kMostRows = 40;
    AttentionScratch scratch;
    ASSERT_TRUE(scratch.reserve(n_threads, {kMostRows, n_kv_heads * group, shape, context}));
    const uint8_t* const partials = scratch.partials.data();
    const uint8_t* const workspaces = scratch.workspaces.data();
    const size_t n_tasks = scratch.tasks.capacity(), n_pending = scratch.pending.capacity();
    const int64_t q_dim = int64_t{n_kv_heads} * group * 16;
    const std::vector<float> q(static_cast<size_t>(kMostRows * q_dim), 0.5f);
    std::vector<float> out(q.size());
    for (int call = 0; call < 4; ++call) {
      std::vector<KvRun> runs;
      int32_t n_rows = 0;
      while (n_rows < kMostRows && (runs.empty() || rng() % 6 != 0)) {
        const int32_t n =
            std::min(static_cast<int32_t>(rng() % (call == 0 ? 40u : 9u)) + 1, kMostRows - n_rows);
        const auto begin = static_cast<int32_t>(rng() % static_cast<uint32_t>(context - n + 1));
        runs.push_back({n_rows, n, call == 1 ? context - n : begin, pages});
        n_rows += n;
      }
      AttentionArgs args;
      args.q = q.data();
      args.out = out.data();
      args.q_stride = args.out_stride = q_dim;
      args.n_heads = n_kv_heads * group;
      args.whole_run = call == 3;
      attention(threads, *cache, 0, runs, args, scratch);
      n_cut += std::ssize(scratch.pending);
      EXPECT_EQ(scratch.partials.data(), partials);
      EXPECT_EQ(scratch.workspaces.data(), workspaces);
      EXPECT_EQ(scratch.tasks.capacity(), n_tasks);
      EXPECT_EQ(scratch.pending.capacity(), n_pending);
    }
  }
  EXPECT_GT(n_cut, 100);
}

TEST(KvPool, RefusesImpossibleShapes) {
  EXPECT_EQ(KvPool::create(KvDType::kBF16, {{2, 20}}, 4).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(KvPool::create(KvDType::kQ8_0, {{2, 72}}, 4).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(KvPool::create(KvDType::kBF16, {{0, 64}}, 4).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(KvPool::create(KvDType::kBF16, {{2, 64}}, 0).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(KvPool::create(KvDType::kBF16, {}, 4).status().code(), StatusCode::kInvalidArgument);
}

TEST(KvPool, PageHoldsAllLayers) {
  auto pool = KvPool::create(KvDType::kBF16, {{3, 64}, {1, 24}}, 5);
  ASSERT_TRUE(pool.ok());
  EXPECT_EQ(pool->head_bytes_of(0), 32u * 64 * 2 * 2);
  EXPECT_EQ(pool->head_bytes_of(1), 32u * 24 * 2 + 32u * 32 * 2);  // V padded to 32 columns
  EXPECT_EQ(pool->page_bytes, 3 * pool->head_bytes_of(0) + pool->head_bytes_of(1));
  EXPECT_EQ(pool->page_layer(2, 1), pool->data.data() + 2 * pool->page_bytes + 3 * pool->head_bytes_of(0));
}

}  // namespace
}  // namespace dspark
