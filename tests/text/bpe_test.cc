// The merge loops against the definition, written down naively.

#include "text/bpe.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

namespace dspark {
namespace {

struct Toy {
  Vocab vocab;
  MergeTable merges{0};
  std::vector<uint32_t> order;
};

// Random merges over the letters a, b, c: every merge joins two known tokens.
Toy make_toy(uint32_t seed) {
  std::mt19937 random(seed);
  Toy toy;
  for (const char* letter : {"a", "b", "c"}) toy.vocab.add(letter, TokenKind::kNormal);
  std::vector<std::pair<int32_t, int32_t>> pairs;
  for (int i = 0; i < 40; ++i) {
    const int32_t n = toy.vocab.size();
    const int32_t left = static_cast<int32_t>(random() % static_cast<uint32_t>(n));
    const int32_t right = static_cast<int32_t>(random() % static_cast<uint32_t>(n));
    const std::string text = std::string(toy.vocab.text(left)) + std::string(toy.vocab.text(right));
    if (text.size() > 12) continue;
    pairs.emplace_back(left, right);
    toy.vocab.add(text, TokenKind::kNormal);
  }
  toy.vocab.index();
  toy.merges = MergeTable(pairs.size());
  for (size_t i = 0; i < pairs.size(); ++i) {
    toy.merges.add(pairs[i].first, pairs[i].second, static_cast<uint32_t>((i * 7) % pairs.size()),
                   static_cast<int32_t>(i) + 3);
  }
  for (int32_t id = 0; id < toy.vocab.size(); ++id)
    toy.order.push_back(static_cast<uint32_t>((id * 11) % 47));
  return toy;
}

template <typename LookUp>
std::vector<int32_t> merge_naively(std::vector<BpeMerger::Symbol> symbols, LookUp&& look_up) {
  for (;;) {
    size_t best = 0;
    MergeTable::Hit best_hit;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const MergeTable::Hit hit = look_up(symbols[i], symbols[i + 1]);
      if (hit.rank < best_hit.rank) {
        best = i;
        best_hit = hit;
      }
    }
    if (best_hit.rank == UINT32_MAX) break;
    symbols[best].id = best_hit.id;
    symbols[best].end = symbols[best + 1].end;
    symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(best) + 1);
  }
  std::vector<int32_t> ids;
  for (const auto& symbol : symbols) ids.push_back(symbol.id);
  return ids;
}

std::vector<int32_t> ids_of(const std::vector<BpeMerger::Symbol>& symbols) {
  std::vector<int32_t> ids;
  for (const auto& symbol : symbols) ids.push_back(symbol.id);
  return ids;
}

TEST(Bpe, MergesAsDefined) {
  std::mt19937 random(5);
  for (uint32_t seed = 0; seed < 60; ++seed) {
    const Toy toy = make_toy(seed);
    BpeMerger by_rank(&toy.merges);
    BpeMerger by_text(&toy.vocab, &toy.order);
    for (size_t length : {1, 2, 3, 10, 47, 48, 49, 50, 120, 300}) {
      std::string text;
      std::vector<BpeMerger::Symbol> symbols;
      for (size_t i = 0; i < length; ++i) {
        const uint32_t letter = seed % 3 == 0 ? 0 : random() % 4;  // 3: a letter without token
        text += static_cast<char>('a' + letter);
        const uint32_t begin = static_cast<uint32_t>(i);
        symbols.push_back({letter < 3 ? static_cast<int32_t>(letter) : -1, begin, begin + 1});
      }
      const auto naive_rank = merge_naively(symbols, [&](const auto& a, const auto& b) {
        return a.id < 0 || b.id < 0 ? MergeTable::Hit{} : toy.merges.find(a.id, b.id);
      });
      const auto naive_text = merge_naively(symbols, [&](const auto& a, const auto& b) {
        const int32_t id = toy.vocab.find(std::string_view(text).substr(a.begin, b.end - a.begin));
        return id < 0 ? MergeTable::Hit{} : MergeTable::Hit{toy.order[static_cast<size_t>(id)], id};
      });
      auto merged = symbols;
      by_rank.merge(text, merged);
      ASSERT_EQ(ids_of(merged), naive_rank) << "seed " << seed << " text " << text;
      merged = symbols;
      by_text.merge(text, merged);
      ASSERT_EQ(ids_of(merged), naive_text) << "seed " << seed << " text " << text;
    }
  }
}

TEST(Bpe, BytePairSet) {
  BytePairSet set;
  set.add_all("ab\xFF");
  set.add_all("");
  set.add_all("x");
  EXPECT_TRUE(set.contains('a', 'b'));
  EXPECT_TRUE(set.contains('b', 0xFF));
  EXPECT_FALSE(set.contains('b', 'a'));
  EXPECT_FALSE(set.contains('x', 'x'));
}

TEST(Vocab, FindsEveryText) {
  Vocab vocab;
  std::mt19937 random(3);
  for (int i = 0; i < 5000; ++i) vocab.add("t" + std::to_string(i * 7919 % 100003), TokenKind::kNormal);
  vocab.add("t0", TokenKind::kNormal);  // a second time: the first stays
  vocab.add("hidden", TokenKind::kUnused);
  vocab.index();
  for (int32_t id = 0; id < 5000; ++id) ASSERT_EQ(vocab.find(vocab.text(id)), id);
  EXPECT_EQ(vocab.find("t0"), 0);
  EXPECT_EQ(vocab.find("hidden"), -1);
  EXPECT_EQ(vocab.find(""), -1);
  EXPECT_EQ(vocab.find(std::string(100000, 't')), -1);
}

TEST(ByteAlphabet, RoundTrip) {
  const ByteAlphabet alphabet;
  std::string all;
  for (int b = 0; b < 256; ++b) all += static_cast<char>(b);
  std::string printable;
  alphabet.encode(all, printable);
  std::string back;
  alphabet.decode(printable, back);
  EXPECT_EQ(back, all);
  std::string space;
  alphabet.encode(" \n", space);
  EXPECT_EQ(space, "\u0120\u010A");
  std::string foreign;
  alphabet.decode("\u4f60 \xE4\xBD", foreign);  // outside the alphabet: kept
  EXPECT_EQ(foreign, "\u4f60 \xE4\xBD");
}

}  // namespace
}  // namespace dspark
