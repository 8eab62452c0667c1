#pragma once
// Ctrl-C while an answer is being written.

#include <atomic>

namespace dspark::cli {

/// While it lives, SIGINT sets a flag instead of ending the process; the previous behaviour comes back with
/// the destructor. At most one lives at a time.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

  /// True once Ctrl-C was pressed; give it to generate() as its cancel flag. Whoever acts on it clears it.
  std::atomic<bool>& flag() const;
};

}  // namespace dspark::cli
