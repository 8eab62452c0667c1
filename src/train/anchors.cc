#include "train/anchors.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "base/philox.h"

namespace dspark {
namespace {

enum class Purpose : uint32_t { kAnchors = 1, kOrder = 2 };

/// A stream of random numbers of its own for every (seed, purpose, stream).
class Draws {
 public:
  Draws(uint64_t seed, Purpose purpose, uint64_t stream) : seed_(seed), purpose_(purpose), stream_(stream) {}

  /// Uniform in 0 .. n-1 (up to a bias of n / 2^64).
  uint64_t below(uint64_t n) {
    const auto words = philox4x32_10({static_cast<uint32_t>(stream_), static_cast<uint32_t>(stream_ >> 32),
                                      counter_++, static_cast<uint32_t>(purpose_)},
                                     {static_cast<uint32_t>(seed_), static_cast<uint32_t>(seed_ >> 32)});
    return ((uint64_t{words[0]} << 32) | words[1]) % n;
  }

 private:
  uint64_t seed_;
  Purpose purpose_;
  uint64_t stream_;
  uint32_t counter_ = 0;
};

}  // namespace

std::vector<int32_t> anchor_candidates(std::span<const uint8_t> loss_mask) {
  std::vector<int32_t> positions;
  for (size_t p = 0; p + 1 < loss_mask.size(); ++p) {
    if (loss_mask[p] != 0 && loss_mask[p + 1] != 0) positions.push_back(static_cast<int32_t>(p));
  }
  return positions;
}

std::vector<int32_t> draw_anchors(std::span<const int32_t> candidates, int64_t count, uint64_t seed,
                                  uint64_t stream) {
  std::vector<int32_t> pool(candidates.begin(), candidates.end());
  const size_t kept = std::min(pool.size(), static_cast<size_t>(std::max<int64_t>(count, 0)));
  Draws draws(seed, Purpose::kAnchors, stream);
  for (size_t i = 0; i < kept; ++i) std::swap(pool[i], pool[i + draws.below(pool.size() - i)]);
  pool.resize(kept);
  std::sort(pool.begin(), pool.end());
  return pool;
}

std::vector<int32_t> shuffled_order(int64_t count, uint64_t seed, uint64_t epoch) {
  std::vector<int32_t> order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  Draws draws(seed, Purpose::kOrder, epoch);
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[draws.below(i)]);
  return order;
}

int32_t valid_slots(std::span<const uint8_t> loss_mask, int32_t anchor, int32_t block_size) {
  int32_t slots = 0;
  while (slots < block_size &&
         static_cast<size_t>(anchor) + 1 + static_cast<size_t>(slots) < loss_mask.size() &&
         loss_mask[static_cast<size_t>(anchor) + 1 + static_cast<size_t>(slots)] != 0) {
    ++slots;
  }
  return slots;
}

}  // namespace dspark
