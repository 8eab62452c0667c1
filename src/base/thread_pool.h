#pragma once
// Worker pool for the phases of a forward pass and for what a step does between passes with whole rows
// (judging sequences): many very short parallel loops, one after the other.

#include <atomic>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <vector>

namespace dspark {

/// A fixed set of threads; the calling thread is one of them (thread index 0).
///
/// parallel_for cuts [0, n_tasks) into one contiguous share per thread, the same share every time, so that a
/// thread meets the same weights in its own cache on every pass. Whoever finishes early takes tasks from the
/// others' shares. There is no barrier that waits for a *thread*: the loop ends when every *task* is done, so
/// a worker that the operating system has put aside costs at most the one task it holds. Results must not
/// depend on which thread runs a task.
///
/// thread: parallel_for from one thread at a time (the engine thread). fn must not call parallel_for.
class ThreadPool {
 public:
  /// n_threads >= 1 counts the caller. n_threads == 1 starts no thread.
  explicit ThreadPool(int n_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int n_threads() const { return n_threads_; }

  /// Calls fn(task_idx, thread_idx) once for every task_idx in [0, n_tasks); returns when all are done.
  /// Everything fn wrote is visible to the caller afterwards. fn must not throw.
  template <typename F>
  void parallel_for(int64_t n_tasks, F&& fn) {
    using Fn = std::remove_reference_t<F>;
    run(
        n_tasks, [](void* ctx, int64_t task, int thread) { (*static_cast<Fn*>(ctx))(task, thread); },
        const_cast<void*>(static_cast<const void*>(&fn)));
  }

 private:
  using TaskFn = void (*)(void* ctx, int64_t task, int thread);
  struct Share;
  struct Shared;

  void run(int64_t n_tasks, TaskFn fn, void* ctx);
  void work(int thread_idx, uint32_t epoch);
  void worker_main(int thread_idx);

  int n_threads_;
  std::unique_ptr<Shared> shared_;
};

/// Logical processors this process may use, at least 1.
int default_thread_count();

}  // namespace dspark
