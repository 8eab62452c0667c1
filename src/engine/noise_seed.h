#pragma once
// Seeds of sequences that share steps under a probability rule.

#include <cstdint>
#include <memory>
#include <span>

#include "engine/sequence.h"

namespace dspark {

/// The seed for `sequence` when it joins `running`: its own, or one made of it when another sequence under
/// rejection or block verification draws from that already. How far a batch verifies the drafts of one
/// sequence depends on the others', so two that draw the same numbers would not be judged independently
/// (docs/speculation.md); and copies of one request would all get the same text. Coupled and greedy requests
/// keep their seed, which is what makes their texts reproducible.
uint64_t unshared_seed(const Sequence& sequence, std::span<const std::unique_ptr<Sequence>> running);

}  // namespace dspark
