#pragma once
// What the code under test asks for: an unverified number of a file must never reach operator new.

#include <cstddef>

namespace dspark::test {

/// Bytes of the largest single operator new of this thread since the last reset.
size_t largest_allocation();
void reset_largest_allocation();

}  // namespace dspark::test
