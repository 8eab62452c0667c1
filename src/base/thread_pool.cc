#include "base/thread_pool.h"

#include <sched.h>

#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/status.h"
#include "base/thread_name.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace dspark {
namespace {

inline void cpu_relax() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

// How long an idle worker spins before it sleeps. Phases of one forward pass follow each other within
// microseconds; between passes there may be a longer pause, and a sleeping thread costs others nothing.
constexpr int kSpinsBeforeSleep = 20000;
// The caller waiting for a task that another thread holds: after this many spins it yields, since that thread
// may need this very core.
constexpr int kSpinsBeforeYield = 2000;

// A share's state in one word, so that taking a task is one compare-exchange: epoch (24 bits), end of the
// share and next task (20 bits each). A late worker's exchange fails as soon as a newer loop was published,
// hence it can never run a stale task.
constexpr int kTaskBits = 20;
constexpr uint64_t kTaskMask = (uint64_t{1} << kTaskBits) - 1;
constexpr uint32_t kEpochMask = (1u << (64 - 2 * kTaskBits)) - 1;
constexpr uint64_t pack_claim(uint32_t epoch, uint64_t end, uint64_t next) {
  return (uint64_t{epoch & kEpochMask} << (2 * kTaskBits)) | (end << kTaskBits) | next;
}
constexpr uint32_t claim_epoch(uint64_t claim) {
  return static_cast<uint32_t>(claim >> (2 * kTaskBits));
}
constexpr uint64_t claim_end(uint64_t claim) {
  return (claim >> kTaskBits) & kTaskMask;
}
constexpr uint64_t claim_next(uint64_t claim) {
  return claim & kTaskMask;
}

}  // namespace

// The part of the task range that one thread takes first.
struct alignas(128) ThreadPool::Share {
  std::atomic<uint64_t> claim{0};
};

struct ThreadPool::Shared {
  alignas(128) std::atomic<uint32_t> epoch{0};
  std::atomic<TaskFn> fn{nullptr};
  std::atomic<void*> ctx{nullptr};
  alignas(128) std::atomic<int64_t> n_left{0};
  alignas(128) std::atomic<int> n_sleeping{0};
  std::atomic<bool> stop{false};
  std::mutex mutex;
  std::condition_variable wake;
  std::vector<Share> shares;
  std::vector<std::thread> threads;
};

ThreadPool::ThreadPool(int n_threads) : n_threads_(n_threads < 1 ? 1 : n_threads), shared_(new Shared) {
  shared_->shares = std::vector<Share>(static_cast<size_t>(n_threads_));
  for (int t = 1; t < n_threads_; ++t) {
    shared_->threads.emplace_back([this, t] {
      name_this_thread("dspark-worker");
      worker_main(t);
    });
  }
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(shared_->mutex);
    shared_->stop.store(true, std::memory_order_seq_cst);
  }
  shared_->wake.notify_all();
  for (std::thread& thread : shared_->threads) thread.join();
}

void ThreadPool::run(int64_t n_tasks, TaskFn fn, void* ctx) {
  if (n_tasks <= 0) return;
  DSPARK_DCHECK(n_tasks < static_cast<int64_t>(kTaskMask));
  if (n_threads_ == 1 || n_tasks == 1) {
    for (int64_t task = 0; task < n_tasks; ++task) fn(ctx, task, 0);
    return;
  }
  Shared& s = *shared_;
  s.fn.store(fn, std::memory_order_relaxed);
  s.ctx.store(ctx, std::memory_order_relaxed);
  s.n_left.store(n_tasks, std::memory_order_relaxed);
  const uint32_t epoch = s.epoch.load(std::memory_order_relaxed) + 1;
  for (int t = 0; t < n_threads_; ++t) {
    Share& share = s.shares[static_cast<size_t>(t)];
    const auto begin = static_cast<uint64_t>(n_tasks * t / n_threads_);
    const auto end = static_cast<uint64_t>(n_tasks * (t + 1) / n_threads_);
    // Publishes fn, ctx and n_left to whoever claims from this share.
    share.claim.store(pack_claim(epoch, end, begin), std::memory_order_release);
  }
  s.epoch.store(epoch, std::memory_order_seq_cst);
  if (s.n_sleeping.load(std::memory_order_seq_cst) > 0) {
    std::lock_guard lock(s.mutex);
    s.wake.notify_all();
  }
  work(0, epoch);
  for (int spins = 0; s.n_left.load(std::memory_order_acquire) != 0; ++spins) {
    if (spins < kSpinsBeforeYield) {
      cpu_relax();
    } else {
      std::this_thread::yield();
    }
  }
}

void ThreadPool::work(int thread_idx, uint32_t epoch) {
  Shared& s = *shared_;
  for (int offset = 0; offset < n_threads_; ++offset) {  // own share first, then the neighbours'
    Share& share = s.shares[static_cast<size_t>((thread_idx + offset) % n_threads_)];
    uint64_t claim = share.claim.load(std::memory_order_acquire);
    while (claim_epoch(claim) == (epoch & kEpochMask) && claim_next(claim) < claim_end(claim)) {
      const uint64_t task = claim_next(claim);
      // Read before claiming: once the claim succeeds the loop cannot end under us, so these were its own.
      const TaskFn fn = s.fn.load(std::memory_order_relaxed);
      void* const ctx = s.ctx.load(std::memory_order_relaxed);
      if (!share.claim.compare_exchange_weak(claim, claim + 1, std::memory_order_acq_rel,
                                             std::memory_order_acquire)) {
        continue;
      }
      fn(ctx, static_cast<int64_t>(task), thread_idx);
      s.n_left.fetch_sub(1, std::memory_order_acq_rel);
      claim = share.claim.load(std::memory_order_acquire);
    }
  }
}

void ThreadPool::worker_main(int thread_idx) {
  Shared& s = *shared_;
  uint32_t seen = 0;
  for (;;) {
    int spins = 0;
    uint32_t epoch;
    while ((epoch = s.epoch.load(std::memory_order_acquire)) == seen) {
      if (s.stop.load(std::memory_order_relaxed)) return;
      if (++spins < kSpinsBeforeSleep) {
        cpu_relax();
        continue;
      }
      std::unique_lock lock(s.mutex);
      s.n_sleeping.fetch_add(1, std::memory_order_seq_cst);
      s.wake.wait(lock, [&] {
        return s.epoch.load(std::memory_order_seq_cst) != seen || s.stop.load(std::memory_order_relaxed);
      });
      s.n_sleeping.fetch_sub(1, std::memory_order_relaxed);
      spins = 0;
    }
    seen = epoch;
    work(thread_idx, epoch);
  }
}

int default_thread_count() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  const int n = CPU_COUNT(&set);
  return n < 1 ? 1 : n;
}

}  // namespace dspark
