#pragma once
// A set of random sequences that can be run through kv_write and attention under any schedule.

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "kernels/attention.h"

namespace dspark::test {

struct AttentionShape {
  int32_t head_dim = 64;
  int32_t n_kv_heads = 2;
  int32_t group = 3;
  int32_t window = 0;
  float softcap = 0.0f;
  float scale() const { return 1.0f / static_cast<float>(head_dim) * 4.0f; }
  int32_t q_dim() const { return n_kv_heads * group * head_dim; }
  int32_t kv_dim() const { return n_kv_heads * head_dim; }
};

/// Inputs of one sequence, row = position.
struct AttentionSequence {
  int32_t length = 0;
  std::vector<float> q;  // (length, q_dim)
  std::vector<float> k;  // (length, kv_dim)
  std::vector<float> v;
};

inline AttentionSequence random_sequence(const AttentionShape& shape, int32_t length, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0.0f, 1.0f);
  AttentionSequence s;
  s.length = length;
  for (int32_t i = 0; i < length * shape.q_dim(); ++i) s.q.push_back(normal(rng));
  for (int32_t i = 0; i < length * shape.kv_dim(); ++i) s.k.push_back(normal(rng));
  for (int32_t i = 0; i < length * shape.kv_dim(); ++i) s.v.push_back(normal(rng));
  return s;
}

/// The rows of one pass: (sequence index, rows), taken from where the sequence stands.
using Batch = std::vector<std::pair<int32_t, int32_t>>;

/// Runs sequences through a cache; outputs by sequence and position.
class AttentionRunner {
 public:
  AttentionRunner(const AttentionShape& shape, KvDType dtype, std::vector<AttentionSequence> sequences,
                  int n_threads, uint32_t page_seed)
      : shape_(shape), sequences_(std::move(sequences)), threads_(n_threads) {
    int32_t n_pages = 0;
    for (const AttentionSequence& s : sequences_) n_pages += (s.length + kKvPageSize - 1) / kKvPageSize;
    // Two layers with the work in the second; pages in random order.
    auto pool = KvPool::create(dtype, {{1, 32}, {shape.n_kv_heads, shape.head_dim}}, n_pages);
    cache_ = std::move(pool).value();
    std::vector<int32_t> order(static_cast<size_t>(n_pages));
    std::iota(order.begin(), order.end(), 0);
    if (page_seed != 0) std::shuffle(order.begin(), order.end(), std::mt19937(page_seed));
    size_t next = 0;
    for (const AttentionSequence& s : sequences_) {
      const size_t n = static_cast<size_t>((s.length + kKvPageSize - 1) / kKvPageSize);
      pages_.emplace_back(order.begin() + static_cast<std::ptrdiff_t>(next),
                          order.begin() + static_cast<std::ptrdiff_t>(next + n));
      next += n;
      position_.push_back(0);
      outputs_.emplace_back(static_cast<size_t>(s.length * shape.q_dim()), 0.0f);
    }
  }

  /// Fills every page as an earlier, overflown sequence would have.
  void pollute() {
    std::vector<float> junk(static_cast<size_t>(kKvPageSize * shape_.kv_dim()));
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    const float values[] = {kInfinity, std::numeric_limits<float>::quiet_NaN(), -3e38f, -kInfinity, 7.0f,
                            1e-40f};
    for (size_t i = 0; i < junk.size(); ++i) junk[i] = values[i % 6];
    for (int32_t page = 0; page < cache_.n_pages; ++page) {
      const KvRun run{0, kKvPageSize, 0, std::span<const int32_t>(&page, 1)};
      kv_write(threads_, cache_, 1, {&run, 1}, junk.data(), junk.data(), shape_.kv_dim(), shape_.kv_dim());
    }
  }

  void set_position(int32_t seq, int32_t pos) { position_[static_cast<size_t>(seq)] = pos; }

  /// whole_run: the rows of each sequence are a drafter's block.
  void step(const Batch& batch, bool whole_run = false) {
    std::vector<KvRun> runs;
    int32_t n_rows = 0;
    for (const auto& [seq, rows] : batch) {
      const size_t s = static_cast<size_t>(seq);
      runs.push_back({n_rows, rows, position_[s], pages_[s]});
      n_rows += rows;
    }
    // q, k and v side by side in one row, as a fused projection leaves them.
    const int64_t stride = shape_.q_dim() + 2 * shape_.kv_dim();
    std::vector<float> x(static_cast<size_t>(n_rows * stride)),
        out(static_cast<size_t>(n_rows * shape_.q_dim()));
    for_rows(batch, [&](size_t s, size_t pos, size_t row) {
      float* to = x.data() + row * static_cast<size_t>(stride);
      to = copy_row(sequences_[s].q, pos, shape_.q_dim(), to);
      to = copy_row(sequences_[s].k, pos, shape_.kv_dim(), to);
      copy_row(sequences_[s].v, pos, shape_.kv_dim(), to);
    });
    const float* k = x.data() + shape_.q_dim();
    kv_write(threads_, cache_, 1, runs, k, k + shape_.kv_dim(), stride, stride);
    AttentionArgs args;
    args.q = x.data();
    args.q_stride = stride;
    args.out = out.data();
    args.out_stride = shape_.q_dim();
    args.n_heads = shape_.n_kv_heads * shape_.group;
    args.scale = shape_.scale();
    args.softcap = shape_.softcap;
    args.window = shape_.window;
    args.whole_run = whole_run;
    attention(threads_, cache_, 1, runs, args, scratch_);
    for_rows(batch, [&](size_t s, size_t pos, size_t row) {
      const size_t dim = static_cast<size_t>(shape_.q_dim());
      std::memcpy(outputs_[s].data() + pos * dim, out.data() + row * dim, dim * sizeof(float));
    });
    for (const auto& [seq, rows] : batch) position_[static_cast<size_t>(seq)] += rows;
  }

  const std::vector<float>& output(int32_t seq) const { return outputs_[static_cast<size_t>(seq)]; }
  const KvPool& cache() const { return cache_; }

 private:
  template <typename F>
  void for_rows(const Batch& batch, F&& fn) {
    size_t row = 0;
    for (const auto& [seq, rows] : batch) {
      for (int32_t i = 0; i < rows; ++i) {
        fn(static_cast<size_t>(seq), static_cast<size_t>(position_[static_cast<size_t>(seq)] + i), row++);
      }
    }
  }
  static float* copy_row(const std::vector<float>& from, size_t row, int32_t dim, float* to) {
    const size_t n = static_cast<size_t>(dim);
    std::memcpy(to, from.data() + row * n, n * sizeof(float));
    return to + n;
  }

  AttentionShape shape_;
  std::vector<AttentionSequence> sequences_;
  ThreadPool threads_;
  KvPool cache_;
  std::vector<std::vector<int32_t>> pages_;
  std::vector<int32_t> position_;
  std::vector<std::vector<float>> outputs_;
  AttentionScratch scratch_;
};

}  // namespace dspark::test
