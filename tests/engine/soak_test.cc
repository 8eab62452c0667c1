// Ten thousand short requests: cancellations, deadlines, limits of the wait, preemptions, holds, stop
// strings, constraints, priorities, clients, shared prefixes, drafters and texts to be made vectors at once,
// submitted from several threads. No page is lost and no output differs from that of the request alone.
// DSPARK_SOAK_REQUESTS sets another number of them.

#include <gtest/gtest.h>

#include <cstdlib>

#include "engine/soak.h"

namespace dspark {
namespace {

int64_t n_requests() {
  const char* wanted = std::getenv("DSPARK_SOAK_REQUESTS");
  const int64_t n = wanted != nullptr ? std::atoll(wanted) : 0;
  return n > 0 ? n : 10000;
}

TEST(Soak, EveryTextIsThatOfTheRequestAlone) {
  const test::SoakPool pool(11, 250);
  const VerifyPolicy adaptive = VerifyPolicy::adaptive(), causal = VerifyPolicy::causal();
  const std::vector<test::SoakWay> ways = {
      {.drafter = "pages", .cache_tokens = 260},
      {.drafter = "paired", .max_sequences = 8, .cache_tokens = 200},
      {.drafter = "none", .max_sequences = 3, .cache_tokens = 200, .n_threads = 1},
      {.drafter = "ngram", .max_sequences = 5, .cache_tokens = 200, .n_threads = 2},
      {.drafter = "taps", .max_sequences = 4, .cache_tokens = 200},
      {.drafter = "pages", .max_sequences = 6, .cache_tokens = 200, .prefix_cache = false},
      {.drafter = "paired", .max_sequences = 12, .cache_tokens = 4000, .n_threads = 4},
      {.drafter = "pages", .max_sequences = 6, .cache_tokens = 260, .policy = adaptive},
      {.drafter = "waiting", .max_sequences = 6, .cache_tokens = 260, .policy = adaptive},
      {.drafter = "waiting", .max_sequences = 8, .cache_tokens = 200, .policy = adaptive, .n_threads = 2},
      {.drafter = "gaps", .max_sequences = 6, .cache_tokens = 400, .policy = adaptive},
      {.drafter = "gaps",
       .max_sequences = 9,
       .cache_tokens = 300,
       .policy = adaptive,
       .is_crowded = true,
       .n_threads = 2},
      {.drafter = "paired", .max_sequences = 8, .cache_tokens = 200, .policy = causal},
      {.drafter = "ngram", .max_sequences = 5, .cache_tokens = 200, .policy = adaptive, .n_threads = 2},
      {.drafter = "taps", .max_sequences = 4, .cache_tokens = 200, .policy = causal},
      {.drafter = "pages", .cache_tokens = 260, .holds = true},
      {.drafter = "waiting", .cache_tokens = 260, .policy = adaptive, .holds = true, .n_threads = 2},
      {.drafter = "paired", .max_sequences = 8, .cache_tokens = 200, .policy = causal, .holds = true},
  };
  test::SoakCounts counts;
  EngineStats total;
  uint32_t seed = 100;
  int64_t n_left = n_requests(), n_done = 0;
  for (size_t i = 0; i < ways.size(); ++i) {
    test::SoakWay way = ways[i];
    SCOPED_TRACE(way.drafter + " cache " + std::to_string(way.cache_tokens) + " " + way.policy.to_string());
    const int64_t n_ways_left = std::ssize(ways) - static_cast<int64_t>(i);
    way.n_requests = std::max<int64_t>((n_left + n_ways_left - 1) / n_ways_left, 20);
    n_left = std::max<int64_t>(n_left - way.n_requests, 0);
    const EngineStats stats = test::soak(pool, way, seed += 10, counts);
    n_done += stats.requests_finished;
    if (way.policy.needs_costs() && !way.is_crowded) {
      EXPECT_GT(stats.speculation.verified, way.n_requests / 4);
    }
    total.cached_tokens += stats.cached_tokens;
    total.preemptions += stats.preemptions;
    total.evicted_pages += stats.evicted_pages;
    total.speculation.add(stats.speculation);
    if (way.prefix_cache && way.drafter != "taps") {
      EXPECT_GT(stats.cached_tokens, 0);
    } else if (!way.prefix_cache) {
      EXPECT_EQ(stats.cached_tokens, 0);
    }
    if (HasFailure()) return;
  }
  EXPECT_GE(n_done, n_requests());
  // The test must have been where it claims to have been.
  EXPECT_GT(counts.n_cancelled, n_requests() / 50);
  EXPECT_GT(counts.n_whole, n_requests() / 2);
  EXPECT_GT(counts.n_preempted, n_requests() / 200);
  EXPECT_GT(counts.n_held_steps, n_requests() / 100);
  EXPECT_GT(counts.n_late, n_requests() / 200);
  EXPECT_GT(counts.n_never_started, n_requests() / 200);
  EXPECT_GT(counts.n_constrained, n_requests() / 50);
  EXPECT_GT(counts.n_vectors, n_requests() / 50);
  EXPECT_GT(total.cached_tokens, n_requests() * 5);
  EXPECT_GT(total.evicted_pages, n_requests() / 10);
  EXPECT_GT(total.speculation.accepted, n_requests());
}

}  // namespace
}  // namespace dspark
