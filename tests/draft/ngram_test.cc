// Prompt lookup against the definition, and drafters by name.

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "draft/factory.h"
#include "draft/ngram.h"
#include "support/test_paths.h"

namespace dspark {
namespace {

/// The definition: longest suffix first, most recent earlier occurrence, by comparing everywhere.
std::vector<int32_t> brute_lookup(const std::vector<int32_t>& tokens, int32_t k, int32_t min_n,
                                  int32_t max_n) {
  const auto size = static_cast<int32_t>(tokens.size());
  for (int32_t n = std::min(max_n, size - 1); n >= min_n; --n) {
    for (int32_t start = size - n - 1; start >= 0; --start) {
      if (!std::equal(tokens.end() - n, tokens.end(), tokens.begin() + start)) continue;
      const int32_t end = std::min(size, start + n + k);
      return {tokens.begin() + start + n, tokens.begin() + end};
    }
  }
  return {};
}

std::vector<int32_t> lookup(const NgramIndex& index, int32_t k) {
  const auto found = index.lookup(k);
  return {found.begin(), found.end()};
}

TEST(Ngram, ReferenceCases) {
  std::vector<std::filesystem::path> paths = {test::data_dir() / "sampling" / "ngram.json"};
  if (!test::golden_dir().empty()) paths.push_back(test::golden_dir() / "draft" / "rules" / "ngram.json");
  for (const auto& path : paths) {
    std::ifstream file(path);
    ASSERT_TRUE(file.good()) << path;
    const auto cases = nlohmann::json::parse(file);
    ASSERT_GE(cases.size(), 20u);
    for (const auto& c : cases) {
      NgramIndex index(c["min_ngram"], c["max_ngram"]);
      index.append(c["tokens"].get<std::vector<int32_t>>());
      EXPECT_EQ(lookup(index, c["max_draft"]), c["proposal"].get<std::vector<int32_t>>()) << c.dump();
    }
  }
}

TEST(Ngram, IncrementalEqualsDefinition) {
  std::mt19937 rng(2);
  for (int round = 0; round < 30; ++round) {
    const auto max_n = static_cast<int32_t>(rng() % 6 + 1);
    const auto min_n = static_cast<int32_t>(rng() % static_cast<uint32_t>(max_n) + 1);
    const uint32_t vocab = std::array{1u, 2u, 3u, 20u, 200u}[rng() % 5];
    NgramIndex index(min_n, max_n);
    if (round % 2 == 0) index.reserve(round * 20);
    for (uint32_t used = rng() % 4; used > 0; --used) {  // a used index must behave like a new one
      for (uint32_t n = rng() % 300; n > 0; --n) {
        index.append(std::vector<int32_t>{static_cast<int32_t>(rng() % vocab)});
      }
      index.clear();
    }
    std::vector<int32_t> tokens;
    while (tokens.size() < 250) {
      std::vector<int32_t> more(rng() % 5 + 1);
      for (int32_t& token : more) token = static_cast<int32_t>(rng() % vocab);
      index.append(more);
      tokens.insert(tokens.end(), more.begin(), more.end());
      const auto k = static_cast<int32_t>(rng() % 10 + 1);
      ASSERT_EQ(lookup(index, k), brute_lookup(tokens, k, min_n, max_n));
    }
  }
}

TEST(Ngram, DrafterKeepsSlotsApart) {
  NgramDrafter drafter({.min_n = 1, .max_n = 3, .max_block = 4});
  const std::vector<int32_t> a = {1, 2, 3, 4, 5, 6, 1, 2}, b = {7, 8, 7};
  const std::vector<CommitEvent> events = {{.slot = 3, .tokens = a}, {.slot = 0, .tokens = b}};
  drafter.commit(events);
  const std::vector<DraftRequest> requests = {{.slot = 0, .max_tokens = 8}, {.slot = 3, .max_tokens = 8}};
  DraftBlock block;
  block.reset(2, 8);
  ASSERT_TRUE(drafter.propose(requests, block).ok());
  EXPECT_EQ(std::vector<int32_t>(block.drafts(0).begin(), block.drafts(0).end()),
            (std::vector<int32_t>{8, 7}));
  EXPECT_EQ(std::vector<int32_t>(block.drafts(1).begin(), block.drafts(1).end()),
            (std::vector<int32_t>{3, 4, 5, 6}));
  drafter.release(3);
  block.reset(2, 8);
  ASSERT_TRUE(drafter.propose(requests, block).ok());
  EXPECT_EQ(block.n_tokens, (std::vector<int32_t>{2, 0}));
}

TEST(DrafterFactory, NamesAndErrors) {
  EXPECT_EQ(*make_drafter("none"), nullptr);
  EXPECT_EQ(*make_drafter(""), nullptr);
  for (const char* spec : {"ngram", "ngram:5", "ngram:2-3", "ngram:16"}) {
    const auto drafter = make_drafter(spec);
    ASSERT_TRUE(drafter.ok()) << spec;
    EXPECT_EQ((*drafter)->name(), "ngram");
  }
  for (const char* spec :
       {"ngrams", "ngram:", "ngram:0", "ngram:17", "ngram:3-2", "ngram:2-", "ngram:x", "dspark"}) {
    EXPECT_EQ(make_drafter(spec).status().code(), StatusCode::kInvalidArgument) << spec;
  }
}

}  // namespace
}  // namespace dspark
