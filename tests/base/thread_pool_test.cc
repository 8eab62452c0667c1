#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <chrono>
#include <numeric>
#include <thread>

namespace dspark {
namespace {

TEST(ThreadPool, RunsEveryTaskOnce) {
  for (int n_threads : {1, 2, 3, 4, 7}) {
    ThreadPool pool(n_threads);
    EXPECT_EQ(pool.n_threads(), n_threads);
    for (int64_t n_tasks : {0, 1, 2, 3, 5, 16, 100, 1000}) {
      std::vector<std::atomic<int>> counts(static_cast<size_t>(n_tasks));
      pool.parallel_for(n_tasks, [&](int64_t task, int thread) {
        EXPECT_GE(thread, 0);
        EXPECT_LT(thread, n_threads);
        counts[static_cast<size_t>(task)].fetch_add(1);
      });
      for (auto& c : counts) EXPECT_EQ(c.load(), 1);
    }
  }
}

TEST(ThreadPool, ManyShortLoopsSeeEachOthersWrites) {
  ThreadPool pool(4);
  // Plain memory, no atomics: the pool itself must order one loop after the other (checked by tsan too).
  std::vector<int64_t> a(64, 0), b(64, 0);
  for (int round = 0; round < 20000; ++round) {
    pool.parallel_for(
        64, [&](int64_t t, int) { a[static_cast<size_t>(t)] = b[static_cast<size_t>(63 - t)] + 1; });
    pool.parallel_for(64,
                      [&](int64_t t, int) { b[static_cast<size_t>(t)] = a[static_cast<size_t>(63 - t)]; });
  }
  for (int64_t v : b) EXPECT_EQ(v, 20000);
}

TEST(ThreadPool, TasksOfABusyThreadAreTakenByOthers) {
  ThreadPool pool(2);
  std::atomic<int> by_other{0};
  std::thread::id owner;
  // Task 0 is the caller's first; while it is stuck in it, the other thread must finish everything else.
  std::atomic<int> others_done{0};
  pool.parallel_for(32, [&](int64_t task, int thread) {
    if (task == 0) {
      owner = std::this_thread::get_id();
      while (others_done.load() < 31) std::this_thread::yield();
    } else {
      if (thread != 0) by_other.fetch_add(1);
      others_done.fetch_add(1);
    }
  });
  EXPECT_EQ(others_done.load(), 31);
  EXPECT_GT(by_other.load(), 0);
}

TEST(ThreadPool, SleepsAndWakes) {
  ThreadPool pool(3);
  std::atomic<int> n{0};
  for (int i = 0; i < 3; ++i) {
    pool.parallel_for(9, [&](int64_t, int) { n.fetch_add(1); });
    std::this_thread::sleep_for(std::chrono::milliseconds(30));  // long enough for the workers to sleep
  }
  EXPECT_EQ(n.load(), 27);
}

TEST(ThreadPool, TwoPoolsAtOnce) {
  ThreadPool a(2), b(2);
  int64_t sum_a = 0, sum_b = 0;
  std::thread other([&] {
    std::vector<int64_t> v(100);
    for (int i = 0; i < 500; ++i)
      b.parallel_for(100, [&](int64_t t, int) { v[static_cast<size_t>(t)] += t; });
    sum_b = std::accumulate(v.begin(), v.end(), int64_t{0});
  });
  std::vector<int64_t> v(100);
  for (int i = 0; i < 500; ++i) a.parallel_for(100, [&](int64_t t, int) { v[static_cast<size_t>(t)] += t; });
  sum_a = std::accumulate(v.begin(), v.end(), int64_t{0});
  other.join();
  EXPECT_EQ(sum_a, 500 * 4950);
  EXPECT_EQ(sum_b, 500 * 4950);
}

TEST(ThreadPool, DefaultCountIsPositive) {
  EXPECT_GE(default_thread_count(), 1);
}

}  // namespace
}  // namespace dspark
