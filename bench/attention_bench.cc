// Attention, cache writes and row operations at the shapes of the small models. Attention reports the bytes
// of the cache it walks per second ("GB/s"; rows share each read) and multiply-adds per second ("GMAC/s").
// Decode cycles through enough layers that the cache comes from memory, as it does in a forward pass.
#include <benchmark/benchmark.h>

#include <random>

#include "kernels/attention.h"
#include "kernels/isa.h"
#include "kernels/row_math.h"

namespace dspark {
namespace {

struct Shape {
  int32_t n_layers, n_heads, n_kv_heads, head_dim;
};
constexpr Shape kShapes[] = {{30, 9, 3, 64}, {24, 14, 2, 64}, {18, 4, 1, 256}};  // SmolLM2, Qwen2.5, Gemma 3

std::vector<float> random_floats(int64_t n, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0.0f, 1.0f);
  std::vector<float> x(static_cast<size_t>(n));
  for (float& value : x) value = normal(rng);
  return x;
}

// Arguments: shape, cache type, first position, rows, threads.
void bench_attention(benchmark::State& state) {
  const Shape shape = kShapes[state.range(0)];
  const auto dtype = static_cast<KvDType>(state.range(1));
  const int32_t pos = static_cast<int32_t>(state.range(2)), rows = static_cast<int32_t>(state.range(3));
  ThreadPool threads(static_cast<int>(state.range(4)));
  const int32_t n_pages = (pos + rows + kKvPageSize - 1) / kKvPageSize;
  const std::vector<KvLayerShape> layers(static_cast<size_t>(shape.n_layers),
                                         {shape.n_kv_heads, shape.head_dim});
  KvPool cache = KvPool::create(dtype, layers, n_pages).value();
  std::vector<int32_t> pages;
  for (int32_t i = 0; i < n_pages; ++i) pages.push_back(i);
  const int32_t kv_dim = shape.n_kv_heads * shape.head_dim, q_dim = shape.n_heads * shape.head_dim;
  const auto kv = random_floats(int64_t{kv_dim} * n_pages * kKvPageSize, 1);
  const KvRun all{0, n_pages * kKvPageSize, 0, pages};
  for (int l = 0; l < shape.n_layers; ++l)
    kv_write(threads, cache, l, {&all, 1}, kv.data(), kv.data(), kv_dim, kv_dim);
  const auto q = random_floats(int64_t{q_dim} * rows, 2);
  std::vector<float> out(q.size());
  const KvRun run{0, rows, pos, pages};
  AttentionArgs args;
  args.q = q.data();
  args.out = out.data();
  args.q_stride = args.out_stride = q_dim;
  args.n_heads = shape.n_heads;
  args.scale = 0.125f;
  AttentionScratch scratch;
  for (auto _ : state) {
    for (int l = 0; l < shape.n_layers; ++l) attention(threads, cache, l, {&run, 1}, args, scratch);
  }
  const double passes = static_cast<double>(state.iterations()) * shape.n_layers;
  const double positions = pos + rows;
  const double bytes =
      positions * shape.n_kv_heads * static_cast<double>(cache.head_bytes_of(0)) / kKvPageSize;
  const double macs = (pos + (rows + 1) / 2.0) * rows * shape.n_heads * shape.head_dim * 2.0;
  state.counters["GB/s"] = benchmark::Counter(passes * bytes * 1e-9, benchmark::Counter::kIsRate);
  state.counters["GMAC/s"] = benchmark::Counter(passes * macs * 1e-9, benchmark::Counter::kIsRate);
}

void attention_arguments(benchmark::internal::Benchmark* b) {
  b->ArgNames({"shape", "dtype", "pos", "rows", "threads"})->UseRealTime()->Unit(benchmark::kMicrosecond);
  for (int shape : {0, 1, 2}) {
    for (int dtype : {1, 0, 2}) {
      for (int pos : {128, 4096}) {
        for (int rows : {1, 4, 8}) b->Args({shape, dtype, pos, rows, 2});
      }
      b->Args({shape, dtype, 4096, 1, 1});
      b->Args({shape, dtype, 4096, 8, 1});
      b->Args({shape, dtype, 0, 512, 2});
    }
  }
}
BENCHMARK(bench_attention)->Apply(attention_arguments);

// Arguments: shape, cache type, rows.
void bench_kv_write(benchmark::State& state) {
  const Shape shape = kShapes[state.range(0)];
  const int32_t rows = static_cast<int32_t>(state.range(2)), kv_dim = shape.n_kv_heads * shape.head_dim;
  ThreadPool threads(2);
  const int32_t n_pages = rows / kKvPageSize + 1;
  KvPool cache =
      KvPool::create(static_cast<KvDType>(state.range(1)), {{shape.n_kv_heads, shape.head_dim}}, n_pages)
          .value();
  std::vector<int32_t> pages;
  for (int32_t i = 0; i < n_pages; ++i) pages.push_back(i);
  const auto kv = random_floats(int64_t{kv_dim} * rows, 1);
  const KvRun run{0, rows, 0, pages};
  for (auto _ : state) kv_write(threads, cache, 0, {&run, 1}, kv.data(), kv.data(), kv_dim, kv_dim);
  state.SetItemsProcessed(state.iterations() * rows * kv_dim * 2);
}
BENCHMARK(bench_kv_write)
    ->ArgNames({"shape", "dtype", "rows"})
    ->ArgsProduct({{0, 2}, {0, 1, 2}, {1, 8, 512}});

// Arguments: rows, elements of a row. Items are elements.
void bench_rms_norm(benchmark::State& state) {
  ThreadPool threads(2);
  const int64_t rows = state.range(0), dim = state.range(1);
  const auto x = random_floats(rows * dim, 1), weight = random_floats(dim, 2);
  std::vector<float> y(x.size());
  for (auto _ : state) rms_norm(threads, y.data(), dim, x.data(), dim, weight.data(), 1e-5f, rows, dim);
  state.SetItemsProcessed(state.iterations() * rows * dim);
}
BENCHMARK(bench_rms_norm)->ArgsProduct({{1, 8, 512}, {576, 896}});

void bench_gated_activation(benchmark::State& state) {
  ThreadPool threads(2);
  const int64_t rows = state.range(0), dim = state.range(1);
  const auto act = static_cast<GateActivation>(state.range(2));
  const auto gate = random_floats(rows * dim, 1), up = random_floats(rows * dim, 2);
  std::vector<float> y(gate.size());
  for (auto _ : state) gated_activation(threads, y.data(), gate.data(), up.data(), rows, dim, act);
  state.SetItemsProcessed(state.iterations() * rows * dim);
}
BENCHMARK(bench_gated_activation)->ArgsProduct({{1, 8, 512}, {1536, 4864}, {0, 1}});

void bench_rope(benchmark::State& state) {
  ThreadPool threads(2);
  const int64_t rows = state.range(0), dim = 9 * 64;
  RopeTable table;
  for (int j = 0; j < 32; ++j) table.inv_freq.push_back(1.0f / static_cast<float>(j + 1));
  auto x = random_floats(rows * dim, 1);
  std::vector<int32_t> positions(static_cast<size_t>(rows));
  const bool same = state.range(1) != 0;  // the other layers of a pass, or the first one
  int32_t pos = 0;
  for (auto _ : state) {
    if (!same) ++pos;
    for (size_t r = 0; r < positions.size(); ++r) positions[r] = pos + static_cast<int32_t>(r);
    apply_rope(threads, x.data(), dim, table, positions, 9, 64);
  }
  state.SetItemsProcessed(state.iterations() * rows * dim);
}
BENCHMARK(bench_rope)->ArgNames({"rows", "same"})->ArgsProduct({{1, 8, 512}, {0, 1}});

void bench_softmax(benchmark::State& state) {
  const auto x = random_floats(state.range(0), 1);
  auto y = x;
  for (auto _ : state) {
    std::copy(x.begin(), x.end(), y.begin());
    softmax_row(y.data(), state.range(0));
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(bench_softmax)->Arg(49152)->Arg(262144);

}  // namespace
}  // namespace dspark
