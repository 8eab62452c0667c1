#include "engine/noise_seed.h"

#include <algorithm>

#include "base/philox.h"

namespace dspark {

uint64_t unshared_seed(const Sequence& sequence, std::span<const std::unique_ptr<Sequence>> running) {
  const uint64_t asked = sequence.request.sampling.seed;
  if (sequence.rule == AcceptRule::kCoupled) return asked;
  uint64_t seed = asked;
  const auto is_taken = [&](const std::unique_ptr<Sequence>& other) {
    return other != nullptr && other.get() != &sequence && other->rule != AcceptRule::kCoupled &&
           !other->finished() && other->request.sampling.seed == seed;
  };
  for (uint64_t copy = 1; std::any_of(running.begin(), running.end(), is_taken); ++copy) {
    seed = uint64_t{noise_word(asked, copy, 0)} << 32 | noise_word(asked, copy, 1);
  }
  return seed;
}

}  // namespace dspark
