// What a block drafter costs beside the passes of a real target, taken in turn as a server would run them, so
// that each finds the caches as the other left them. The drafter has random weights of realistic size.
//
//   draft_share MODEL [threads=2] [layers=1] [draft_vocab=8192] [rank=64] [repeats=41]
//
// Prints medians: a target pass over one row, a round of drafts for one sequence (and without the sequential
// head), the context rows of four tokens; the same for eight sequences. Then rounds of drafts one behind the
// other, without passes in between, so that no target drives the drafter's weights out of the caches. The
// second line of each is for draft_roof.py: what a round of drafts must read and multiply at least.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <string>

#include "draft/block_drafter.h"
#include "draft/random_draft.h"
#include "models/model.h"

namespace dspark {
namespace {

constexpr int32_t kContext = 512, kBlock = 7, kManySequences = 8;

struct Options {
  std::string model;
  int threads = 2;
  int32_t layers = 1, draft_vocab = 8192, rank = 64;
  int repeats = 41;
};

double now_ms() {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

/// Drafts and context rows of `n_sequences` sequences with filled caches.
class DraftSide {
 public:
  DraftSide(test::RandomDraft& random, const DraftTarget& target, ThreadPool& pool, int32_t n_sequences)
      : n_sequences_(n_sequences), dim_(random.config().dim) {
    BlockDrafterOptions options;
    options.max_sequences = n_sequences;
    options.context_length = 2 * kContext;
    auto made = BlockDrafter::create(random.checkpoint(), target, pool, options);
    if (!made.ok()) {
      std::fprintf(stderr, "draft_share: %s\n", made.status().to_string().c_str());
      std::exit(1);
    }
    drafter_ = std::move(made).value();
    features_ = test::random_features(random.config(), kContext, 1);
    commit(0, kContext);
    sampling_.temperature = 0.0f;
    for (int32_t slot = 0; slot < n_sequences; ++slot) {
      requests_.push_back({slot, 5 + slot, kContext, kBlock, &sampling_, AcceptRule::kCoupled});
    }
    block_.reset(requests_.size(), kBlock);
  }
  void propose() {
    if (!drafter_->propose(requests_, block_).ok()) std::exit(1);
  }
  void commit(int32_t position, int32_t n_rows) {
    events_.clear();
    for (int32_t slot = 0; slot < n_sequences_; ++slot) {
      CommitEvent event;
      event.slot = slot;
      event.feature_position = position;
      event.n_features = n_rows;
      event.features = features_.data();
      event.tap_stride = int64_t{kContext} * dim_;
      event.dim = dim_;
      events_.push_back(event);
    }
    drafter_->commit(events_);
    drafter_->complete_rows();
  }
  size_t bytes() const { return drafter_->weights().packed_bytes; }

 private:
  int32_t n_sequences_, dim_;
  std::unique_ptr<BlockDrafter> drafter_;
  std::vector<float> features_;
  SamplingParams sampling_;
  std::vector<DraftRequest> requests_;
  std::vector<CommitEvent> events_;
  DraftBlock block_;
};

/// A pass of the target over the newest row of `n_sequences` sequences.
class TargetSide {
 public:
  TargetSide(TargetModel& model, int32_t n_sequences) : model_(model) {
    const int32_t pages_each = kContext / kKvPageSize + 1;
    cache_ = KvPool::create(KvDType::kBF16, model.kv_shapes(), pages_each * n_sequences).value();
    pages_.resize(static_cast<size_t>(cache_.n_pages));
    std::iota(pages_.begin(), pages_.end(), 0);
    for (int32_t i = 0; i < n_sequences; ++i) {
      batch_.tokens.push_back(100 + i);
      batch_.positions.push_back(kContext);
      batch_.logit_rows.push_back(i);
      batch_.capture_rows.push_back(i);
      const auto first = static_cast<size_t>(i) * static_cast<size_t>(pages_each);
      batch_.runs.push_back(
          {i, 1, kContext, std::span(pages_).subspan(first, static_cast<size_t>(pages_each))});
    }
  }
  void pass() { model_.forward(batch_, cache_); }

 private:
  TargetModel& model_;
  KvPool cache_;
  std::vector<int32_t> pages_;
  ForwardBatch batch_;
};

DraftConfig config_for(const ModelConfig& target, const Options& options, bool with_head) {
  DraftConfig c = test::small_draft_config();
  c.n_layers = options.layers;
  c.dim = target.dim;
  c.n_heads = target.n_heads;
  c.n_kv_heads = target.n_kv_heads;
  c.head_dim = target.head_dim;
  c.ffn_dim = target.ffn_dim;
  c.attention_scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim));
  c.vocab_size = target.vocab_size;
  c.draft_vocab_size = target.vocab_size;
  c.mask_token_id = 0;
  c.d2t.clear();
  if (options.draft_vocab < target.vocab_size) test::reduce_vocabulary(c, options.draft_vocab);
  c.block_size = kBlock;
  c.taps.clear();
  for (int32_t i = 0; i < 5; ++i) c.taps.push_back(2 + i * (target.n_layers - 4) / 4);
  c.target_layers = target.n_layers;
  c.markov_rank = options.rank;
  if (!with_head) {
    c.head = SequentialHead::kNone;
    c.markov_rank = 0;
    c.confidence = c.confidence_with_markov = false;
    c.kind = DraftKind::kDFlash;
  }
  c.rope.inv_freq.clear();
  for (int32_t i = 0; i < c.head_dim / 2; ++i) {
    c.rope.inv_freq.push_back(
        std::pow(10000.0f, -2.0f * static_cast<float>(i) / static_cast<float>(c.head_dim)));
  }
  return c;
}

/// What a round of drafts cannot do without. Context rows and their fc are not part of it.
struct RoundWork {
  double bytes = 0;  // weights in Q8_0, each read once, and the cached rows
  double ops = 0;    // of the matrix products
};

RoundWork round_work(const DraftConfig& c, int32_t n_sequences) {
  constexpr double kBytesPerWeight = 34.0 / 32.0;
  const double q_dim = static_cast<double>(c.n_heads) * c.head_dim;
  const double kv_dim = static_cast<double>(c.n_kv_heads) * c.head_dim;
  const double layer = c.dim * (2 * q_dim + 2 * kv_dim) + 3.0 * c.dim * c.ffn_dim;
  const double head = static_cast<double>(c.draft_vocab_size) * (c.dim + c.markov_rank);
  const double weights = layer * c.n_layers + head;
  const double cached = 2 * kv_dim * sizeof(uint16_t) * kContext * c.n_layers;
  return {weights * kBytesPerWeight + cached * n_sequences, 2 * weights * kBlock * n_sequences};
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

/// A round of drafts that finds the caches as the round before left them.
double warm_draft_ms(DraftSide& side, int repeats) {
  std::vector<double> ms;
  for (int i = 0; i < repeats + 3; ++i) {
    const double start = now_ms();
    side.propose();
    if (i >= 3) ms.push_back(now_ms() - start);
  }
  return median(std::move(ms));
}

int run(const Options& options) {
  ThreadPool pool(options.threads);
  auto model = TargetModel::open(options.model, pool);
  if (!model.ok()) {
    std::fprintf(stderr, "draft_share: %s\n", model.status().to_string().c_str());
    return 1;
  }
  const ModelConfig& c = (*model)->config();
  test::RandomDraft random(config_for(c, options, true), DType::kQ8_0, 1);
  test::RandomDraft headless(config_for(c, options, false), DType::kQ8_0, 1);
  (*model)->set_capture_layers(random.config().taps);
  const DraftTarget target = DraftTarget::of(**model);
  std::printf("%s, %d thread(s); drafter: %d layer(s), draft vocabulary %d, rank %d, block %d\n",
              options.model.c_str(), options.threads, options.layers, random.config().draft_vocab_size,
              options.rank, kBlock);
  for (const int32_t n : {1, kManySequences}) {
    TargetSide passes(**model, n);
    DraftSide with(random, target, pool, n), without(headless, target, pool, n);
    std::vector<double> ms[4];
    for (int i = 0; i < options.repeats + 3; ++i) {
      const double start = now_ms();
      passes.pass();
      const double passed = now_ms();
      with.commit(kContext - 4, 4);
      const double committed = now_ms();
      with.propose();
      const double proposed = now_ms();
      passes.pass();
      const double again = now_ms();
      without.propose();
      const double end = now_ms();
      if (i < 3) continue;  // warm
      ms[0].push_back(passed - start);
      ms[1].push_back(committed - passed);
      ms[2].push_back(proposed - committed);
      ms[3].push_back(end - again);
    }
    const double pass = median(ms[0]), commit = median(ms[1]), draft = median(ms[2]), bare = median(ms[3]);
    const double warm = warm_draft_ms(with, options.repeats);
    std::printf(
        "%d sequence(s): target pass of %d row(s) %.3f ms; drafts %.3f ms = %.1f %% of it (weights %.1f MB); "
        "without sequential head %.3f ms, so the head is %.1f %% of the drafts; without passes in between "
        "%.3f ms; context rows of 4 tokens each %.3f ms\n",
        n, n, pass, draft, 100.0 * draft / pass, 1e-6 * static_cast<double>(with.bytes()), bare,
        100.0 * (draft - bare) / draft, warm, commit);
    const RoundWork work = round_work(random.config(), n);
    std::printf(
        "{\"sequences\":%d,\"pass_ms\":%.4f,\"draft_ms\":%.4f,\"warm_draft_ms\":%.4f,\"bytes\":%.0f,"
        "\"ops\":%.0f}\n",
        n, pass, draft, warm, work.bytes, work.ops);
  }
  return 0;
}

}  // namespace
}  // namespace dspark

int main(int argc, char** argv) {
  dspark::Options options;
  if (argc < 2) {
    std::fprintf(stderr, "usage: draft_share MODEL [threads] [layers] [draft_vocab] [rank] [repeats]\n");
    return 2;
  }
  options.model = argv[1];
  const auto number = [&](int at, int fallback) {
    return argc > at ? std::max(1, std::atoi(argv[at])) : fallback;
  };
  options.threads = number(2, options.threads);
  options.layers = number(3, options.layers);
  options.draft_vocab = number(4, options.draft_vocab);
  options.rank = number(5, options.rank);
  options.repeats = number(6, options.repeats);
  return dspark::run(options);
}
