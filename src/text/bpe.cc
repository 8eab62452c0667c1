#include "text/bpe.h"

#include <algorithm>

namespace dspark {
namespace {

// Below this many symbols scanning for the best pair beats a heap.
constexpr size_t kShortWord = 48;

}  // namespace

void BytePairSet::add_all(std::string_view text) {
  for (size_t i = 1; i < text.size(); ++i) {
    const uint8_t left = static_cast<uint8_t>(text[i - 1]);
    const uint8_t right = static_cast<uint8_t>(text[i]);
    words_[left * 4u + right / 64u] |= uint64_t{1} << (right % 64u);
  }
}

BpeMerger::Hit BpeMerger::look_up(std::string_view text, const Symbol& left, const Symbol& right) const {
  if (merges_ != nullptr) {
    if (left.id < 0 || right.id < 0) return {};
    return merges_->find(left.id, right.id);
  }
  const int32_t id = vocab_->find(text.substr(left.begin, right.end - left.begin));
  if (id < 0) return {};
  return {(*order_)[static_cast<size_t>(id)], id};
}

void BpeMerger::merge(std::string_view text, std::vector<Symbol>& symbols) {
  if (symbols.size() < 2) return;
  if (symbols.size() <= kShortWord) {
    merge_short(text, symbols);
  } else {
    merge_long(text, symbols);
  }
}

void BpeMerger::merge_short(std::string_view text, std::vector<Symbol>& symbols) {
  hits_.resize(symbols.size() - 1);
  for (size_t i = 0; i < hits_.size(); ++i) hits_[i] = look_up(text, symbols[i], symbols[i + 1]);
  while (!hits_.empty()) {
    size_t best = 0;
    for (size_t i = 1; i < hits_.size(); ++i) {
      if (hits_[i].rank < hits_[best].rank) best = i;
    }
    if (hits_[best].rank == UINT32_MAX) return;
    symbols[best].id = hits_[best].id;
    symbols[best].end = symbols[best + 1].end;
    symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(best) + 1);
    hits_.erase(hits_.begin() + static_cast<ptrdiff_t>(best));
    if (best > 0) hits_[best - 1] = look_up(text, symbols[best - 1], symbols[best]);
    if (best < hits_.size()) hits_[best] = look_up(text, symbols[best], symbols[best + 1]);
  }
}

void BpeMerger::push(std::string_view text, const std::vector<Symbol>& symbols, int32_t left, int32_t right) {
  const Symbol& a = symbols[static_cast<size_t>(left)];
  const Symbol& b = symbols[static_cast<size_t>(right)];
  const Hit hit = look_up(text, a, b);
  if (hit.rank == UINT32_MAX) return;
  heap_.push_back(
      {uint64_t{hit.rank} << 32 | static_cast<uint32_t>(left), left, right, hit.id, b.end, a.end});
  std::push_heap(heap_.begin(), heap_.end());
}

void BpeMerger::merge_long(std::string_view text, std::vector<Symbol>& symbols) {
  const int32_t n = static_cast<int32_t>(symbols.size());
  heap_.clear();
  previous_.resize(symbols.size());
  next_.resize(symbols.size());
  for (int32_t i = 0; i < n; ++i) {
    previous_[static_cast<size_t>(i)] = i - 1;
    next_[static_cast<size_t>(i)] = i + 1 < n ? i + 1 : -1;
  }
  for (int32_t i = 0; i + 1 < n; ++i) push(text, symbols, i, i + 1);
  while (!heap_.empty()) {
    std::pop_heap(heap_.begin(), heap_.end());
    const Candidate best = heap_.back();
    heap_.pop_back();
    Symbol& left = symbols[static_cast<size_t>(best.left)];
    Symbol& right = symbols[static_cast<size_t>(best.right)];
    // A symbol that was merged away has begin == end; one that grew has another end.
    if (left.begin == left.end || right.begin == right.end || left.end != best.middle ||
        right.end != best.end) {
      continue;
    }
    left.id = best.merged;
    left.end = right.end;
    right.begin = right.end;
    const int32_t after = next_[static_cast<size_t>(best.right)];
    next_[static_cast<size_t>(best.left)] = after;
    if (after >= 0) {
      previous_[static_cast<size_t>(after)] = best.left;
      push(text, symbols, best.left, after);
    }
    const int32_t before = previous_[static_cast<size_t>(best.left)];
    if (before >= 0) push(text, symbols, before, best.left);
  }
  std::erase_if(symbols, [](const Symbol& symbol) { return symbol.begin == symbol.end; });
}

}  // namespace dspark
