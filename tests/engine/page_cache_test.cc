// The page cache against a model of it: what is shared is equal, what is needed is there, nothing is lost.

#include "engine/page_cache.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

#include "engine/fair_queue.h"

namespace dspark {
namespace {

std::vector<int32_t> random_tokens(std::mt19937& rng, size_t n, uint32_t alphabet) {
  std::vector<int32_t> tokens(n);
  for (int32_t& token : tokens) token = static_cast<int32_t>(rng() % alphabet);
  return tokens;
}

TEST(PageCache, EqualBeginningsShareTheirPages) {
  PageCache cache({.n_pages = 10});
  std::vector<int32_t> text(100, 7), table, other;
  ASSERT_TRUE(cache.grow(table, 100));
  for (int32_t page = 0; page < 3; ++page) cache.publish(table, page, text, false);
  EXPECT_EQ(cache.match(text, 3, false).n_pages, 3);
  EXPECT_EQ(cache.match(text, 2, false).n_pages, 2);
  EXPECT_EQ(cache.match(text, 3, true).n_pages, 0) << "no drafter's rows in them";
  std::vector<int32_t> fork = text;
  fork[40] = 8;
  EXPECT_EQ(cache.match(fork, 3, false).n_pages, 1);
  EXPECT_EQ(cache.attach(fork, 3, false, other).n_pages, 1);
  EXPECT_EQ(other, std::vector<int32_t>{table[0]});
  cache.shrink(table, 0);
  EXPECT_EQ(cache.n_idle(), 2);  // the first is in use
  cache.shrink(other, 0);
  EXPECT_EQ(cache.n_idle(), 3);
  EXPECT_EQ(cache.n_available(), 10);
  EXPECT_EQ(cache.match(text, 9, false).n_idle, 3);
  EXPECT_TRUE(cache.check_integrity({}).ok());
}

TEST(PageCache, TheLastPageOfAnIdleChainGoesFirst) {
  PageCache cache({.n_pages = 4});
  std::vector<int32_t> text(128, 3), table;
  ASSERT_TRUE(cache.grow(table, 128));
  for (int32_t page = 0; page < 4; ++page) cache.publish(table, page, text, false);
  cache.shrink(table, 0);
  for (int32_t left = 3; left >= 0; --left) {
    ASSERT_TRUE(cache.grow(table, (4 - left) * 32));
    EXPECT_EQ(cache.match(text, 4, false).n_pages, left);
  }
  EXPECT_FALSE(cache.grow(table, 129));
  EXPECT_EQ(cache.n_evictions(), 4);
}

TEST(PageCache, APageWithTheDraftersRowsTakesThePlaceOfOneWithout) {
  PageCache cache({.n_pages = 6});
  std::vector<int32_t> text(64, 1), plain, drafted, third;
  ASSERT_TRUE(cache.grow(plain, 64) && cache.grow(drafted, 64));
  cache.publish(plain, 0, text, false);
  cache.publish(plain, 1, text, false);
  cache.publish(drafted, 0, text, true);
  EXPECT_NE(plain[0], drafted[0]);
  EXPECT_EQ(cache.attach(text, 2, true, third).n_pages, 1);
  EXPECT_EQ(third[0], drafted[0]);
  EXPECT_EQ(cache.match(text, 2, false).n_pages, 2) << "the chain behind it is found all the same";
  const PageCache::Match found = cache.match(text, 2, false);
  EXPECT_EQ(found.n_pages, 2);
  EXPECT_EQ(found.n_without_rows, 2) << "the first page has rows, the last one has none";
  cache.publish(drafted, 1, text, false);  // not better than what is known
  EXPECT_EQ(drafted[1], plain[1]);
  const std::vector<std::span<const int32_t>> tables = {plain, drafted, third};
  EXPECT_TRUE(cache.check_integrity(tables).ok()) << cache.check_integrity(tables).to_string();
}

TEST(PageCache, LookaheadMakesTheNextTokenPartOfAPage) {
  PageCache cache({.n_pages = 6, .shares = true, .lookahead = 1});
  std::vector<int32_t> text(65, 1), table;
  ASSERT_TRUE(cache.grow(table, 64));
  cache.publish(table, 0, text, true);
  cache.publish(table, 1, text, true);
  std::vector<int32_t> other = text;
  other[64] = 2;
  EXPECT_EQ(cache.match(text, 2, true).n_pages, 2);
  EXPECT_EQ(cache.match(other, 2, true).n_pages, 1);
  EXPECT_EQ(cache.match(std::span(text).first(64), 2, true).n_pages, 1);
}

/// Sequences that start, grow, publish and leave at random; the contents of pages are kept beside the cache.
void run_random(uint32_t seed, uint64_t hash_mask, int32_t lookahead) {
  struct Running {
    std::vector<int32_t> tokens, table;
    int32_t n_cached = 0, n_published = 0;
    bool drafts = false;
  };
  std::mt19937 rng(seed);
  constexpr int32_t kPages = 8;
  PageCache cache({.n_pages = kPages, .shares = true, .lookahead = lookahead, .hash_mask = hash_mask});
  std::vector<std::vector<int32_t>> content(kPages, std::vector<int32_t>(kKvPageSize, -1));
  std::vector<std::vector<int32_t>> prompts;
  for (int i = 0; i < 14; ++i) prompts.push_back(random_tokens(rng, 150, 2 + rng() % 3));
  for (int i = 1; i < 14; ++i)
    std::copy_n(prompts[0].begin(), 32 * (rng() % 4), prompts[static_cast<size_t>(i)].begin());
  std::vector<Running> running;
  int64_t n_hits = 0;
  const auto expect_content = [&](const Running& r) {
    for (int32_t p = 0; p < r.n_cached; ++p) {
      const auto page = static_cast<size_t>(r.table[static_cast<size_t>(p / kKvPageSize)]);
      ASSERT_EQ(content[page][static_cast<size_t>(p % kKvPageSize)], r.tokens[static_cast<size_t>(p)]);
    }
  };
  for (int step = 0; step < 4000; ++step) {
    if (running.size() < 5 && rng() % 3 == 0) {
      Running r;
      r.tokens = prompts[rng() % prompts.size()];
      r.tokens.resize(rng() % 140 + 2);
      r.drafts = rng() % 2 == 0;
      const auto most = static_cast<int32_t>((r.tokens.size() - 1) / kKvPageSize);
      const PageCache::Match match = cache.match(r.tokens, most, r.drafts);
      const int32_t idle = cache.n_idle();
      r.n_published = cache.attach(r.tokens, most, r.drafts, r.table).n_pages;
      ASSERT_EQ(r.n_published, match.n_pages);
      ASSERT_EQ(idle - cache.n_idle(), match.n_idle);
      r.n_cached = r.n_published * kKvPageSize;
      n_hits += r.n_published;
      running.push_back(std::move(r));
      expect_content(running.back());
    }
    if (running.empty()) continue;
    const size_t at = rng() % running.size();
    Running& r = running[at];
    const int32_t n_more = std::min<int32_t>(static_cast<int32_t>(rng() % 40),
                                             static_cast<int32_t>(r.tokens.size()) - r.n_cached);
    const bool grown = cache.grow(r.table, r.n_cached + n_more);
    if (grown) {
      for (int32_t p = r.n_cached; p < r.n_cached + n_more; ++p) {
        const auto page = static_cast<size_t>(r.table[static_cast<size_t>(p / kKvPageSize)]);
        content[page][static_cast<size_t>(p % kKvPageSize)] = r.tokens[static_cast<size_t>(p)];
      }
      r.n_cached += n_more;
    }
    const int32_t n_full =
        std::min(r.n_cached, static_cast<int32_t>(r.tokens.size()) - lookahead) / kKvPageSize;
    while (r.n_published < n_full) cache.publish(r.table, r.n_published++, r.tokens, r.drafts);
    expect_content(r);
    if (!grown || rng() % 8 == 0 || r.n_cached == static_cast<int32_t>(r.tokens.size())) {
      cache.shrink(r.table, 0);
      running.erase(running.begin() + static_cast<std::ptrdiff_t>(at));
    }
    std::vector<std::span<const int32_t>> tables;
    for (const Running& other : running) tables.emplace_back(other.table);
    const Status intact = cache.check_integrity(tables);
    ASSERT_TRUE(intact.ok()) << intact.to_string() << " step " << step;
  }
  for (Running& r : running) cache.shrink(r.table, 0);
  EXPECT_EQ(cache.n_available(), kPages);
  EXPECT_GT(n_hits, 300);
  EXPECT_GT(cache.n_evictions(), 100);
}

TEST(PageCache, NeverGivesAPageWithOtherTokens) {
  for (uint32_t seed = 1; seed <= 3; ++seed) {
    run_random(seed, ~uint64_t{0}, static_cast<int32_t>(seed % 2));
    run_random(seed, 0, static_cast<int32_t>(seed % 2));  // every hash collides
    run_random(seed, 3, 1);
  }
}

TEST(FairQueue, ClientsTakeTurns) {
  FairQueue queue;
  std::vector<std::pair<FairQueue::Ticket, std::string>> waiting;
  uint64_t id = 0;
  for (int i = 0; i < 6; ++i) waiting.emplace_back(queue.enqueue("many", 0, ++id), "many");
  for (int i = 0; i < 2; ++i) waiting.emplace_back(queue.enqueue("few", 0, ++id), "few");
  std::sort(waiting.begin(), waiting.end(),
            [](const auto& a, const auto& b) { return a.first.rank < b.first.rank; });
  std::string order;
  for (const auto& [ticket, client] : waiting) order += client[0];
  EXPECT_EQ(order, "mfmfmmmm");
}

TEST(FairQueue, AClientWithOneRequestAtATimeDoesNotShutOthersOut) {
  FairQueue queue;
  const auto patient = queue.enqueue("patient", 0, 1);
  const auto second = queue.enqueue("patient", 0, 2);
  int n_before = 0;
  uint64_t id = 2;
  queue.started("patient", patient.turn);
  for (;; ++n_before) {
    const auto eager = queue.enqueue("eager", 0, ++id);
    if (second.rank < eager.rank) break;
    queue.started("eager", eager.turn);
    ASSERT_LT(n_before, 3);
  }
}

TEST(FairQueue, PriorityGoesFirstAndWaitingMakesUpForIt) {
  FairQueue queue;
  const auto low = queue.enqueue("a", -1, 1);
  uint64_t id = 1;
  int n_overtaken = 0;
  for (;; ++n_overtaken) {
    const auto high = queue.enqueue("client " + std::to_string(id), 1, id + 1);
    ++id;
    if (low.rank < high.rank) break;
    queue.started("client " + std::to_string(id - 1), high.turn);
    ASSERT_LT(n_overtaken, 600);
  }
  EXPECT_GT(n_overtaken, 100);
}

TEST(FairQueue, ForgetsClientsAndThoseThatLeft) {
  FairQueue queue;
  for (uint64_t id = 1; id <= 20000; ++id) {
    const std::string client = "client " + std::to_string(id);
    const auto ticket = queue.enqueue(client, 0, id);
    if (id % 3 == 0) {
      queue.left(client);
    } else {
      queue.started(client, ticket.turn);
    }
  }
  EXPECT_LT(queue.n_clients(), 5000u);
  FairQueue other;  // cancelled requests take no turns
  for (uint64_t id = 1; id <= 100; ++id) (void)other.enqueue("many", 0, id);
  for (uint64_t id = 1; id <= 100; ++id) other.left("many");
  EXPECT_EQ(other.enqueue("many", 0, 101).turn, 0);
}

}  // namespace
}  // namespace dspark
