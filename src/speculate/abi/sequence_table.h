#pragma once
// What the handle remembers of sequences, found by the caller's ids.

#include <array>
#include <cstdint>
#include <vector>

#include "speculate/adaptive_planner.h"

namespace dspark::abi {

struct KnownSequence {
  uint64_t id = 0;
  SurvivalRecord survivals;
  // Of the last plan, until its outcome is known.
  std::array<float, kMaxDraftTokens> confidence{};
  std::array<float, kMaxDraftTokens> evidence{};
  int32_t n_drafts = 0;
  uint64_t plan = 0;          // number of the last plan it was part of
  bool is_forgotten = false;  // by the caller, kept until the outcome of that plan is told or replaced
};

/// Open addressing with linear probing over places in a fixed list. No allocation after the constructor.
class SequenceTable {
 public:
  explicit SequenceTable(int32_t max_sequences);

  /// The sequence with this id, made if there is none; null when the table is full.
  KnownSequence* find_or_add(uint64_t id);
  /// Null: there is none.
  KnownSequence* find(uint64_t id);
  void erase(uint64_t id);
  int32_t size() const { return static_cast<int32_t>(sequences_.size() - free_.size()); }

 private:
  size_t home(uint64_t id) const;
  size_t place_of(uint64_t id) const;

  std::vector<KnownSequence> sequences_;
  std::vector<int32_t> free_;
  std::vector<int32_t> places_;  // index into sequences_, -1: empty; a power of two, half full at most
};

}  // namespace dspark::abi
