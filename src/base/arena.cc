#include "base/arena.h"

#include <algorithm>

namespace dspark {
namespace {
constexpr size_t kChunkBytes = size_t{64} << 20;
constexpr size_t kLine = 64;
}  // namespace

ArenaBlock Arena::allocate(size_t n_bytes) {
  const size_t rounded = (n_bytes + kLine - 1) / kLine * kLine;
  if (current_ == nullptr || current_->size() - used_ < rounded) {
    auto chunk = std::make_shared<AlignedBuffer>(std::max(rounded, kChunkBytes));
    if (chunk->data() == nullptr) return {};
    current_ = std::move(chunk);
    used_ = 0;
  }
  ArenaBlock block{{current_->data() + used_, n_bytes}, current_};
  used_ += rounded;
  return block;
}

}  // namespace dspark
