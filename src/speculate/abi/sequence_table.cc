#include "speculate/abi/sequence_table.h"

#include <bit>
#include <cstddef>

namespace dspark::abi {

SequenceTable::SequenceTable(int32_t max_sequences)
    : sequences_(static_cast<size_t>(max_sequences)),
      places_(std::bit_ceil(2 * static_cast<size_t>(max_sequences)), -1) {
  free_.reserve(sequences_.size());
  for (int32_t i = max_sequences; i-- > 0;) free_.push_back(i);
}

size_t SequenceTable::home(uint64_t id) const {
  return static_cast<size_t>((id * 0x9E3779B97F4A7C15u) >> 32) & (places_.size() - 1);
}

/// The place of the id, or the empty place where it would go.
size_t SequenceTable::place_of(uint64_t id) const {
  size_t at = home(id);
  while (places_[at] >= 0 && sequences_[static_cast<size_t>(places_[at])].id != id) {
    at = (at + 1) & (places_.size() - 1);
  }
  return at;
}

KnownSequence* SequenceTable::find_or_add(uint64_t id) {
  const size_t at = place_of(id);
  if (places_[at] < 0) {
    if (free_.empty()) return nullptr;
    places_[at] = free_.back();
    free_.pop_back();
    KnownSequence& sequence = sequences_[static_cast<size_t>(places_[at])];
    sequence.id = id;
    sequence.survivals.n = sequence.survivals.n_older = 0;
    sequence.n_drafts = 0;
    sequence.is_forgotten = false;
  }
  return &sequences_[static_cast<size_t>(places_[at])];
}

KnownSequence* SequenceTable::find(uint64_t id) {
  const size_t at = place_of(id);
  return places_[at] < 0 ? nullptr : &sequences_[static_cast<size_t>(places_[at])];
}

// Entries behind the gap that would not be found any more move into it.
void SequenceTable::erase(uint64_t id) {
  const size_t mask = places_.size() - 1;
  size_t gap = place_of(id);
  if (places_[gap] < 0) return;
  free_.push_back(places_[gap]);
  places_[gap] = -1;
  for (size_t at = (gap + 1) & mask; places_[at] >= 0; at = (at + 1) & mask) {
    const size_t wanted = home(sequences_[static_cast<size_t>(places_[at])].id);
    if (((at - wanted) & mask) < ((at - gap) & mask)) continue;
    places_[gap] = places_[at];
    places_[at] = -1;
    gap = at;
  }
}

}  // namespace dspark::abi
