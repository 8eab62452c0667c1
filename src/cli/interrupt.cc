#include "cli/interrupt.h"

#include <csignal>

namespace dspark::cli {
namespace {

// A signal handler can reach nothing but a global. Lock-free, so it may be written there.
std::atomic<bool> interrupt_flag{false};
static_assert(std::atomic<bool>::is_always_lock_free);

void on_interrupt(int) {
  interrupt_flag.store(true);
}

}  // namespace

InterruptGuard::InterruptGuard() {
  interrupt_flag.store(false);
  std::signal(SIGINT, on_interrupt);
}

InterruptGuard::~InterruptGuard() {
  std::signal(SIGINT, SIG_DFL);
}

std::atomic<bool>& InterruptGuard::flag() const {
  return interrupt_flag;
}

}  // namespace dspark::cli
