#pragma once
// Counts what a test program takes from the heap. Link allocation_count.cc: it replaces operator new and
// delete of the whole program.

#include <cstdint>

namespace dspark::test {

/// Calls of operator new so far, of all threads.
int64_t n_allocations();

}  // namespace dspark::test
