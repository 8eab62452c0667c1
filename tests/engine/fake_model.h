#pragma once
// A target without weights: its logits are a hash of the tokens it finds in the cache. It reads the prefix
// back from the pages it was given, so a lost, shared or mixed-up page changes the text.

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "models/model.h"

namespace dspark::test {

/// A clock that stands still until it is told that time has passed. Copies show the same time.
/// thread: any.
class FakeTime {
 public:
  using Clock = std::chrono::steady_clock;
  void pass(double seconds) {
    const auto span = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
    *ticks_ += span.count();
  }
  Clock::time_point now() const { return at(*ticks_); }
  /// For EngineOptions and CostProbeOptions.
  std::function<Clock::time_point()> clock() const {
    return [ticks = ticks_] { return at(*ticks); };
  }

 private:
  static Clock::time_point at(int64_t ticks) { return Clock::time_point(Clock::duration(ticks)); }

  std::shared_ptr<std::atomic<int64_t>> ticks_ = std::make_shared<std::atomic<int64_t>>(0);
};

class FakeModel final : public TargetModel {
 public:
  /// Two threads: sequences are judged in parallel, as with real models.
  explicit FakeModel(int32_t vocab_size = 40, int32_t context_length = 4096, int n_threads = 2)
      : threads_(std::make_unique<ThreadPool>(n_threads)) {
    config_.arch = "fake";
    config_.vocab_size = vocab_size;
    config_.context_length = context_length;
    config_.n_layers = 3;
    config_.dim = 4;
    prefix_.reserve(static_cast<size_t>(context_length));
  }

  const ModelConfig& config() const override { return config_; }
  const Checkpoint& checkpoint() const override { return checkpoint_; }
  std::vector<KvLayerShape> kv_shapes() const override { return {{1, 8}}; }
  void set_capture_layers(std::vector<int32_t> layers) override { taps_ = std::move(layers); }
  Status reserve(int64_t, int64_t, int64_t) override { return ok_status(); }
  ThreadPool* pool() const override { return threads_.get(); }
  size_t weight_bytes() const override { return 0; }

  ForwardResult forward(const ForwardBatch& batch, KvPool& cache) override {
    ++n_forwards;
    cache_type = cache.dtype;
    if (pass_seconds) time.pass(pass_seconds(batch.n_rows()));
    if (context_seconds) time.pass(context_seconds(batch));
    if (fail_from_forward >= 0 && n_forwards > fail_from_forward) return {{}, {}, {}, true};
    largest_batch = std::max(largest_batch, batch.n_rows());
    most_logit_rows = std::max(most_logit_rows, static_cast<int64_t>(batch.logit_rows.size()));
    check(batch);
    for (const KvRun& run : batch.runs) {
      for (int32_t i = 0; i < run.n_rows; ++i) {
        *cell(cache, run, run.pos_begin + i) = batch.tokens[static_cast<size_t>(run.row_begin + i)];
      }
    }
    logits_.clear();
    captured_.clear();
    for (int32_t row : batch.logit_rows) append_logits(batch, cache, row);
    for (int32_t tap : taps_) {
      for (int32_t row : batch.capture_rows) {
        const int32_t token = batch.tokens[static_cast<size_t>(row)];
        captured_.insert(captured_.end(), static_cast<size_t>(config_.dim),
                         static_cast<float>(token + 1000 * tap));
      }
    }
    final_norm_.clear();
    for (int32_t row : batch.logit_rows) {
      for (int32_t d = 0; d < config_.dim; ++d) {
        final_norm_.push_back(hidden_value(batch.tokens[static_cast<size_t>(row)],
                                           batch.positions[static_cast<size_t>(row)], d));
      }
    }
    return {logits_, final_norm_, captured_, false};
  }

  /// The logits behind a text: what forward() computes from its pages.
  static void append_logits_after(const std::vector<int32_t>& tokens, int32_t vocab_size,
                                  std::vector<float>& out) {
    uint64_t prefix = 1, recent = 1;
    for (size_t p = 0; p < tokens.size(); ++p) {
      const auto token = static_cast<uint64_t>(static_cast<uint32_t>(tokens[p]));
      prefix = mix(prefix * 31 + token);
      if (p + 2 >= tokens.size()) recent = mix(recent * 37 + token);
    }
    for (int32_t v = 0; v < vocab_size; ++v) {
      const auto id = static_cast<uint64_t>(v);
      // Mostly a bigram model, so that text repeats and drafts can be right; never only that.
      out.push_back(8.0f * unit(mix(recent + id * 977)) + 1.5f * unit(mix(prefix ^ (id * 7919))));
    }
  }

  /// Element d of the hidden state in front of the head.
  static float hidden_value(int32_t token, int32_t position, int32_t d) {
    return unit(mix(static_cast<uint64_t>(token) * 5 + static_cast<uint64_t>(position) * 1009 +
                    static_cast<uint64_t>(d))) -
           0.4f;
  }

  int64_t n_forwards = 0;
  int64_t largest_batch = 0;
  int64_t most_logit_rows = 0;
  FakeTime time;                                       // moves by pass_seconds with every pass
  std::function<double(int64_t n_rows)> pass_seconds;  // what costs are learned from; empty: nothing
  std::function<double(const ForwardBatch& batch)> context_seconds;  // more; empty: nothing
  std::optional<KvDType> cache_type;                                 // of the last pass
  int64_t fail_from_forward = -1;  // >= 0: later passes report a lack of memory

 private:
  std::unique_ptr<ThreadPool> threads_;

  static uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 31)) * 0x7FB5D329728EA185u;
    x = (x ^ (x >> 27)) * 0x81DADEF4BC2DD44Du;
    return x ^ (x >> 33);
  }
  static float unit(uint64_t hash) { return static_cast<float>(hash >> 40) * 0x1p-24f; }

  static int32_t* cell(KvPool& cache, const KvRun& run, int32_t position) {
    const int32_t page = run.pages[static_cast<size_t>(position / kKvPageSize)];
    EXPECT_GE(page, 0);
    EXPECT_LT(page, cache.n_pages);
    return reinterpret_cast<int32_t*>(cache.page_layer(page, 0)) + position % kKvPageSize;
  }

  void check(const ForwardBatch& batch) const {
    ASSERT_EQ(batch.tokens.size(), batch.positions.size());
    int32_t next_row = 0;
    for (const KvRun& run : batch.runs) {
      ASSERT_EQ(run.row_begin, next_row);
      ASSERT_GT(run.n_rows, 0);
      next_row += run.n_rows;
      ASSERT_GE(static_cast<int64_t>(run.pages.size()) * kKvPageSize, run.pos_begin + run.n_rows);
      for (int32_t i = 0; i < run.n_rows; ++i) {
        ASSERT_EQ(batch.positions[static_cast<size_t>(run.row_begin + i)], run.pos_begin + i);
      }
    }
    ASSERT_EQ(next_row, batch.n_rows());
    for (int32_t token : batch.tokens) {
      ASSERT_GE(token, 0);
      ASSERT_LT(token, config_.vocab_size);
    }
    ASSERT_TRUE(std::is_sorted(batch.logit_rows.begin(), batch.logit_rows.end(), std::less_equal<>()));
  }

  void append_logits(const ForwardBatch& batch, KvPool& cache, int32_t row) {
    const auto run = std::find_if(batch.runs.begin(), batch.runs.end(),
                                  [row](const KvRun& r) { return row < r.row_begin + r.n_rows; });
    prefix_.clear();
    for (int32_t p = 0; p <= batch.positions[static_cast<size_t>(row)]; ++p) {
      prefix_.push_back(*cell(cache, *run, p));
    }
    append_logits_after(prefix_, config_.vocab_size, logits_);
  }

  ModelConfig config_;
  Checkpoint checkpoint_;
  std::vector<int32_t> taps_;
  std::vector<int32_t> prefix_;
  std::vector<float> logits_, final_norm_, captured_;
};

}  // namespace dspark::test
