#include "cli/read_probe.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>

namespace dspark::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kTaskBytes = size_t{4} << 20;
constexpr size_t kBytesPerThread = size_t{64} << 20;
constexpr size_t kMinBytes = size_t{256} << 20, kMaxBytes = size_t{1} << 30;
constexpr double kReadSeconds = 0.15;  // beside the time to touch the buffer once

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Independent sums, so that the loads and not the additions are waited for.
uint64_t read_task(const uint64_t* data) {
  uint64_t sum[16] = {};
  for (size_t i = 0; i < kTaskBytes / sizeof(uint64_t); i += 16) {
    for (size_t k = 0; k < 16; ++k) sum[k] += data[i + k];
  }
  for (size_t k = 1; k < 16; ++k) sum[0] += sum[k];
  return sum[0];
}

}  // namespace

double measure_read_bandwidth(ThreadPool& pool) {
  const size_t n_bytes =
      std::clamp(kBytesPerThread * static_cast<size_t>(pool.n_threads()), kMinBytes, kMaxBytes);
  void* const mapped = mmap(nullptr, n_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return 0.0;
  madvise(mapped, n_bytes, MADV_HUGEPAGE);
  auto* const data = static_cast<uint64_t*>(mapped);
  const auto n_tasks = static_cast<int64_t>(n_bytes / kTaskBytes);
  const size_t n_words = kTaskBytes / sizeof(uint64_t);
  pool.parallel_for(n_tasks, [&](int64_t task, int) {
    std::fill_n(data + static_cast<size_t>(task) * n_words, n_words, static_cast<uint64_t>(task));
  });
  std::atomic<uint64_t> sum{0};  // keeps the reads
  double best_s = 0.0;
  const Clock::time_point start = Clock::now();
  do {
    const Clock::time_point pass = Clock::now();
    pool.parallel_for(n_tasks, [&](int64_t task, int) {
      sum.fetch_add(read_task(data + static_cast<size_t>(task) * n_words), std::memory_order_relaxed);
    });
    const double pass_s = seconds_since(pass);
    if (best_s == 0.0 || pass_s < best_s) best_s = pass_s;
  } while (seconds_since(start) < kReadSeconds);
  munmap(mapped, n_bytes);
  return static_cast<double>(n_bytes) / best_s;
}

}  // namespace dspark::cli
