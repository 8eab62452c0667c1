#include "base/aligned_buffer.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

namespace dspark {
namespace {
constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kLine = 64;
}  // namespace

AlignedBuffer::AlignedBuffer(size_t size) {
  if (size == 0) return;
  if (size < kHugePage) {
    const size_t rounded = (size + kLine - 1) / kLine * kLine;
    data_ = static_cast<uint8_t*>(std::aligned_alloc(kLine, rounded));
    if (data_ == nullptr) return;
    std::memset(data_, 0, rounded);
    size_ = size;
    return;
  }
  // Over-map by one huge page, then give back the unaligned ends.
  const size_t rounded = (size + kHugePage - 1) / kHugePage * kHugePage;
  void* raw =
      ::mmap(nullptr, rounded + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) return;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(raw);
  const uintptr_t aligned = (begin + kHugePage - 1) / kHugePage * kHugePage;
  if (aligned > begin) ::munmap(raw, aligned - begin);
  const uintptr_t end = begin + rounded + kHugePage;
  if (end > aligned + rounded) ::munmap(reinterpret_cast<void*>(aligned + rounded), end - aligned - rounded);
  data_ = reinterpret_cast<uint8_t*>(aligned);
  ::madvise(data_, rounded, MADV_HUGEPAGE);
  size_ = size;
  mapped_ = rounded;
}

AlignedBuffer::~AlignedBuffer() {
  if (data_ == nullptr) return;
  if (mapped_ != 0) {
    ::munmap(data_, mapped_);
  } else {
    std::free(data_);
  }
}

}  // namespace dspark
