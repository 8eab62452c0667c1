#pragma once
// Bump allocator for long-lived weights: neighbours in memory, on huge pages.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/aligned_buffer.h"

namespace dspark {

/// A zeroed block and what keeps it alive.
struct ArenaBlock {
  std::span<uint8_t> bytes;
  std::shared_ptr<AlignedBuffer> owner;
};

/// Hands out 64-byte aligned blocks one behind the other from large huge-page mappings, so that the pages of
/// many small matrices need few TLB entries and hardware prefetchers run on from one to the next. Memory is
/// only touched when written. A block lives as long as somebody holds its owner. thread: one at a time.
class Arena {
 public:
  /// An empty block when memory is exhausted.
  ArenaBlock allocate(size_t n_bytes);

 private:
  std::shared_ptr<AlignedBuffer> current_;
  size_t used_ = 0;
};

}  // namespace dspark
