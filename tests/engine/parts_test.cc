// Page ownership and stop strings, each driven at random against a plain model of itself.

#include <gtest/gtest.h>

#include <random>

#include "engine/stop_matcher.h"
#include "kernels/kv_cache.h"
#include "kernels/kv_pages.h"

namespace dspark {
namespace {

TEST(PageAllocator, RandomGrowShrinkShareKeepsIntegrity) {
  std::mt19937 rng(9);
  PageAllocator pages(50);
  std::vector<std::vector<int32_t>> tables(8);
  const auto check = [&] {
    std::vector<std::span<const int32_t>> spans(tables.begin(), tables.end());
    return pages.check_integrity(spans);
  };
  int n_refused = 0, n_shared = 0;
  for (int step = 0; step < 5000; ++step) {
    std::vector<int32_t>& table = tables[rng() % tables.size()];
    const auto n_tokens = static_cast<int64_t>(rng() % (14 * kKvPageSize));
    if (rng() % 6 == 0) {  // start over with a shared prefix of another table
      pages.shrink(table, 0);
      const auto& other = tables[rng() % tables.size()];
      for (size_t i = 0; i < other.size() / 2 && &other != &table; ++i, ++n_shared) {
        pages.retain(other[i]);
        table.push_back(other[i]);
      }
    } else if (rng() % 2 == 0) {
      const auto before = table;
      const int32_t n_free = pages.n_free();
      if (!pages.grow(table, n_tokens)) {
        ++n_refused;
        EXPECT_EQ(table, before);
        EXPECT_EQ(pages.n_free(), n_free);
      } else {
        EXPECT_GE(static_cast<int64_t>(table.size()) * kKvPageSize, n_tokens);
      }
    } else {
      pages.shrink(table, n_tokens);
      EXPECT_LE(table.size(), static_cast<size_t>(PageAllocator::pages_for(n_tokens)));
    }
    ASSERT_TRUE(check().ok()) << check().to_string();
  }
  EXPECT_GT(n_refused, 50);
  EXPECT_GT(n_shared, 50);
  for (auto& table : tables) pages.shrink(table, 0);
  EXPECT_EQ(pages.n_free(), 50);
}

TEST(PageAllocator, IntegrityCheckSeesLeaksAndDoubleOwners) {
  PageAllocator pages(4);
  std::vector<int32_t> table;
  ASSERT_TRUE(pages.grow(table, 2 * kKvPageSize));
  const std::vector<std::span<const int32_t>> once = {table}, twice = {table, table};
  EXPECT_TRUE(pages.check_integrity(once).ok());
  EXPECT_FALSE(pages.check_integrity(twice).ok());
  EXPECT_FALSE(pages.check_integrity({}).ok());
  const std::vector<int32_t> wild = {table[0], table[1], 17};
  const std::vector<std::span<const int32_t>> outside = {wild};
  EXPECT_FALSE(pages.check_integrity(outside).ok());
}

TEST(PageAllocator, RoundsUpToPages) {
  EXPECT_EQ(PageAllocator::pages_for(0), 0);
  EXPECT_EQ(PageAllocator::pages_for(1), 1);
  EXPECT_EQ(PageAllocator::pages_for(kKvPageSize), 1);
  EXPECT_EQ(PageAllocator::pages_for(kKvPageSize + 1), 2);
}

TEST(StopMatcher, HoldsBackOnlyWhatMayStillMatch) {
  StopMatcher matcher({"</s>", "STOP"});
  EXPECT_FALSE(matcher.feed("hello <"));
  EXPECT_EQ(matcher.take(), "hello ");
  EXPECT_FALSE(matcher.feed("/x ST"));
  EXPECT_EQ(matcher.take(), "</x ");
  EXPECT_FALSE(matcher.feed("O"));
  EXPECT_EQ(matcher.take(), "");
  EXPECT_EQ(matcher.hit(), "");
  EXPECT_TRUE(matcher.feed("P and more"));
  EXPECT_EQ(matcher.take(), "");
  EXPECT_EQ(matcher.hit(), "STOP");

  StopMatcher unfinished({"STOP"});
  EXPECT_FALSE(unfinished.feed("a STO"));
  EXPECT_EQ(unfinished.take(), "a ");
  unfinished.finish();
  EXPECT_EQ(unfinished.take(), "STO");
}

TEST(StopMatcher, NeverCutsACharacter) {
  StopMatcher matcher;
  EXPECT_FALSE(matcher.feed("x\xE2\x82"));
  EXPECT_EQ(matcher.take(), "x");
  EXPECT_FALSE(matcher.feed("\xAC\xF0\x9F"));
  EXPECT_EQ(matcher.take(), "\xE2\x82\xAC");
  EXPECT_FALSE(matcher.feed("\x98\x80!"));
  EXPECT_EQ(matcher.take(), "\xF0\x9F\x98\x80!");
  EXPECT_FALSE(matcher.feed("\x80\x80\x80\x80"));  // no lead byte: nothing to wait for
  EXPECT_EQ(matcher.take(), "\x80\x80\x80\x80");
  EXPECT_FALSE(matcher.feed("\xC3"));
  matcher.finish();
  EXPECT_EQ(matcher.take(), "\xC3");
}

/// Byte by byte, any text and any stops over {a, b}: the released text is the text before the first complete
/// stop, and at every moment everything is out that no stop can reach any more.
TEST(StopMatcher, RandomBytesAgainstSearchInTheWholeText) {
  std::mt19937 rng(4);
  for (int round = 0; round < 3000; ++round) {
    std::vector<std::string> stops;
    for (uint32_t i = rng() % 3; i > 0; --i) {
      std::string& stop = stops.emplace_back();
      for (uint32_t n = rng() % 5 + 1; n > 0; --n) stop += static_cast<char>('a' + rng() % 2);
    }
    StopMatcher matcher(stops);
    std::string fed, released;
    bool stopped = false;
    while (!stopped && fed.size() < 30) {
      const std::string byte(1, static_cast<char>('a' + rng() % 2));
      fed += byte;
      stopped = matcher.feed(byte);
      released += matcher.take();
      size_t begin = std::string::npos, longest_partial = 0;
      for (const std::string& stop : stops) {
        begin = std::min(begin, fed.find(stop));
        for (size_t n = 1; n < stop.size() && n <= fed.size(); ++n) {
          if (fed.ends_with(stop.substr(0, n))) longest_partial = std::max(longest_partial, n);
        }
      }
      ASSERT_EQ(stopped, begin != std::string::npos);
      ASSERT_EQ(matcher.hit(), stopped ? fed.substr(begin) : "");
      ASSERT_EQ(released, stopped ? fed.substr(0, begin) : fed.substr(0, fed.size() - longest_partial));
    }
    if (!stopped) {
      matcher.finish();
      released += matcher.take();
      ASSERT_EQ(released, fed);
    }
  }
}

}  // namespace
}  // namespace dspark
