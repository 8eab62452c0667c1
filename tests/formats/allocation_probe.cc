#include "allocation_probe.h"

#include <algorithm>
#include <cstdlib>
#include <new>

namespace {
thread_local size_t largest = 0;
}

// Replaced for the whole test program; kept in a file of its own so that no caller sees the bodies.
void* operator new(size_t size) {
  largest = std::max(largest, size);
  if (void* block = std::malloc(size)) return block;
  throw std::bad_alloc();
}
void operator delete(void* block) noexcept {
  std::free(block);
}
void operator delete(void* block, size_t /*size*/) noexcept {
  std::free(block);
}

namespace dspark::test {

size_t largest_allocation() {
  return largest;
}
void reset_largest_allocation() {
  largest = 0;
}

}  // namespace dspark::test
