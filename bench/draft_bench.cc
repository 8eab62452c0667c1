// Cost of a block drafter beside the targets it is for: the pass over the block, its context rows, and the
// sequential head by itself. Random weights of realistic size; a context of 512 tokens.
#include <benchmark/benchmark.h>

#include <map>
#include <memory>

#include "draft/block_drafter.h"
#include "draft/random_draft.h"
#include "kernels/isa.h"

namespace dspark {
namespace {

constexpr int32_t kContext = 512;
constexpr int32_t kBlock = 7;

/// A drafter for one of the measured targets: width, heads and MLP as the target's own layers.
struct Size {
  const char* name;
  int32_t n_layers, dim, n_heads, n_kv_heads, head_dim, ffn_dim, vocab, draft_vocab, rank, n_taps;
};
constexpr Size kSizes[] = {
    {"SmolLM2-135M, 1 layer, 8k", 1, 576, 9, 3, 64, 1536, 49152, 8192, 64, 3},
    {"SmolLM2-135M, 2 layers, 8k", 2, 576, 9, 3, 64, 1536, 49152, 8192, 64, 4},
    {"Qwen2.5-0.5B, 2 layers, 8k", 2, 896, 14, 2, 64, 4864, 151936, 8192, 128, 4},
    {"Qwen2.5-0.5B, 2 layers, 16k", 2, 896, 14, 2, 64, 4864, 151936, 16384, 128, 4},
    {"Gemma3-270M, 2 layers, 8k", 2, 640, 4, 1, 256, 2048, 262144, 8192, 64, 4},
};

DraftConfig config_of(const Size& size, SequentialHead head) {
  DraftConfig c;
  c.n_layers = size.n_layers;
  c.dim = size.dim;
  c.n_heads = size.n_heads;
  c.n_kv_heads = size.n_kv_heads;
  c.head_dim = size.head_dim;
  c.ffn_dim = size.ffn_dim;
  c.attention_scale = 1.0f / std::sqrt(static_cast<float>(size.head_dim));
  c.vocab_size = size.vocab;
  test::reduce_vocabulary(c, size.draft_vocab);
  c.block_size = kBlock;
  for (int32_t i = 0; i < size.n_taps; ++i) c.taps.push_back(1 + 4 * i);
  c.target_layers = 32;
  c.head = head;
  c.markov_rank = head == SequentialHead::kNone ? 0 : size.rank;
  c.confidence = c.confidence_with_markov = head != SequentialHead::kNone;
  for (int32_t i = 0; i < c.head_dim / 2; ++i) {
    c.rope.inv_freq.push_back(
        std::pow(10000.0f, -2.0f * static_cast<float>(i) / static_cast<float>(c.head_dim)));
  }
  return c;
}

/// Weights are made once per size and head: encoding them takes longer than measuring.
test::RandomDraft& random_draft(int64_t size_idx, SequentialHead head) {
  static std::map<std::pair<int64_t, SequentialHead>, std::unique_ptr<test::RandomDraft>> made;
  auto& slot = made[{size_idx, head}];
  if (slot == nullptr) {
    slot = std::make_unique<test::RandomDraft>(config_of(kSizes[size_idx], head), DType::kQ8_0, 1u, true);
  }
  return *slot;
}

/// A drafter with `n_sequences` filled caches.
struct Fixture {
  Fixture(int64_t size_idx, SequentialHead head, int32_t n_sequences, int threads, int32_t shortlist = 0)
      : pool(threads), random(random_draft(size_idx, head)) {
    BlockDrafterOptions options;
    options.max_sequences = n_sequences;
    options.context_length = 4 * kContext;
    options.shortlist = shortlist;
    drafter = std::move(BlockDrafter::create(random.checkpoint(), random.target(pool, false), pool, options))
                  .value();
    features = test::random_features(random.config(), kContext, 1);
    commit(0, kContext, n_sequences);
    for (int32_t slot = 0; slot < n_sequences; ++slot) {
      requests.push_back({slot, 5 + slot, kContext, kBlock, &sampling, AcceptRule::kCoupled});
    }
    block.reset(requests.size(), kBlock);
  }

  void commit(int32_t position, int32_t n_rows, int32_t n_sequences) {
    std::vector<CommitEvent> events;
    for (int32_t slot = 0; slot < n_sequences; ++slot) {
      CommitEvent event;
      event.slot = slot;
      event.feature_position = position;
      event.n_features = n_rows;
      event.features = features.data();
      event.tap_stride = int64_t{kContext} * random.config().dim;
      event.dim = random.config().dim;
      events.push_back(event);
    }
    drafter->commit(events);
    drafter->complete_rows();
  }

  ThreadPool pool;
  test::RandomDraft& random;
  std::unique_ptr<BlockDrafter> drafter;
  std::vector<float> features;
  SamplingParams sampling;
  std::vector<DraftRequest> requests;
  DraftBlock block;
};

void label(benchmark::State& state, const Fixture& fixture) {
  state.counters["MB"] = static_cast<double>(fixture.drafter->weights().packed_bytes) * 1e-6;
  state.SetLabel(std::string(kSizes[state.range(0)].name) + " " + isa_name(active_isa()));
}

// Arguments: size, sequences, threads, sampled. One round's drafts, sequential head included.
void bench_propose(benchmark::State& state) {
  Fixture fixture(state.range(0), SequentialHead::kVanilla, static_cast<int32_t>(state.range(1)),
                  static_cast<int>(state.range(2)));
  fixture.sampling.temperature = state.range(3) != 0 ? 1.0f : 0.0f;
  for (auto _ : state) {
    if (!fixture.drafter->propose(fixture.requests, fixture.block).ok()) state.SkipWithError("propose");
  }
  label(state, fixture);
}
BENCHMARK(bench_propose)
    ->ArgsProduct({benchmark::CreateDenseRange(0, std::size(kSizes) - 1, 1), {1, 8}, {1, 2}, {0, 1}})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

// Arguments: size, sequences, threads. Context rows of one round: four tokens of every sequence.
void bench_commit(benchmark::State& state) {
  const auto n = static_cast<int32_t>(state.range(1));
  Fixture fixture(state.range(0), SequentialHead::kVanilla, n, static_cast<int>(state.range(2)));
  for (auto _ : state) fixture.commit(kContext - 4, 4, n);
  label(state, fixture);
}
BENCHMARK(bench_commit)
    ->ArgsProduct({benchmark::CreateDenseRange(0, std::size(kSizes) - 1, 1), {1, 8}, {1, 2}})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

// Arguments: size, sequences, threads, sampled, head, shortlist. All steps of the sequential head.
void bench_head(benchmark::State& state) {
  const auto head = static_cast<SequentialHead>(state.range(4));
  Fixture fixture(state.range(0), head, static_cast<int32_t>(state.range(1)),
                  static_cast<int>(state.range(2)));
  fixture.sampling.temperature = state.range(3) != 0 ? 1.0f : 0.0f;
  const DraftConfig& c = fixture.random.config();
  SequentialDecoder decoder(c, fixture.drafter->weights(), fixture.pool,
                            static_cast<int32_t>(state.range(5)));
  std::mt19937 rng(1);
  std::normal_distribution<float> normal(0.0f, 2.5f);  // the tail of a trained model's logits
  const auto n_rows = fixture.requests.size() * size_t{kBlock};
  std::vector<float> hidden(n_rows * static_cast<size_t>(c.dim));
  std::vector<float> logits(n_rows * static_cast<size_t>(c.draft_vocab_size));
  for (float& v : hidden) v = normal(rng);
  for (float& v : logits) v = normal(rng);
  for (size_t row = 0; row < n_rows; ++row) {  // and its few likely tokens
    for (float likely : {15.0f, 14.0f, 12.0f, 10.0f}) {
      logits[row * static_cast<size_t>(c.draft_vocab_size) +
             rng() % static_cast<size_t>(c.draft_vocab_size)] = likely;
    }
  }
  const std::vector<float> base = logits;
  std::vector<HeadRequest> heads;
  for (size_t i = 0; i < fixture.requests.size(); ++i) {
    heads.push_back({&fixture.requests[i], i, static_cast<int64_t>(i) * kBlock, kBlock});
  }
  for (auto _ : state) {
    state.PauseTiming();
    std::copy(base.begin(), base.end(), logits.begin());
    state.ResumeTiming();
    if (!decoder.run({heads, hidden.data(), logits.data(), {}, false}, fixture.block).ok()) {
      state.SkipWithError("run");
    }
  }
  label(state, fixture);
}
constexpr int64_t kVanilla = static_cast<int64_t>(SequentialHead::kVanilla);
constexpr int64_t kRnn = static_cast<int64_t>(SequentialHead::kRnn);
BENCHMARK(bench_head)
    ->ArgsProduct(
        {benchmark::CreateDenseRange(0, std::size(kSizes) - 1, 1), {1, 8}, {1, 2}, {0, 1}, {kVanilla}, {0}})
    ->Args({1, 1, 2, 0, kRnn, 0})
    ->Args({1, 1, 2, 0, kVanilla, 64})
    ->Args({3, 1, 2, 0, kVanilla, 64})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace dspark
