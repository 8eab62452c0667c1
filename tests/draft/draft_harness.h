#pragma once
// Learned drafters with known rounds, and what runs them without a target model.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "draft/block_drafter.h"
#include "draft/draft_trace.h"
#include "draft/draft_weights.h"
#include "formats/checkpoint.h"
#include "speculate/sampling_params.h"

namespace dspark::test {

/// One drafter of the reference set.
struct GoldenDraft {
  std::string name;              // unique
  std::filesystem::path folder;  // config.json, model.safetensors, expected.*
  std::filesystem::path target;  // folder of its target
};
inline void PrintTo(const GoldenDraft& golden, std::ostream* out) {
  *out << golden.name;
}
/// Block drafters of tests/data/drafters and tests/data/draft, and, where present, of the full set.
std::vector<GoldenDraft> golden_block_drafts();

/// Embedding and head out of a target's folder, whatever its architecture.
class TestTarget {
 public:
  TestTarget(const std::filesystem::path& folder, ThreadPool& pool, bool float_activations);
  DraftTarget view() const;

 private:
  Checkpoint file_;
  PackedMatrix head_;
  int32_t n_layers_ = 0;
};

/// One forced round.
struct ExpectedRound {
  int32_t n = 0;
  int32_t anchor = 0;
  std::vector<int32_t> drafts;
};

/// expected.json and expected.safetensors of one drafter.
class ExpectedDraft {
 public:
  explicit ExpectedDraft(const std::filesystem::path& folder);
  const std::vector<ExpectedRound>& rounds() const { return rounds_; }
  std::vector<int32_t> tokens(const std::string& key) const;
  bool has(const std::string& tensor) const { return file_.find(tensor) != nullptr; }
  /// Fails the test when absent.
  std::vector<float> floats(const std::string& tensor) const;
  /// Features of round `round_idx` in the layout of a CommitEvent: (taps, rows, dim).
  std::vector<float> features(int32_t round_idx, int32_t n_taps, int32_t dim) const;

 private:
  Checkpoint file_;
  std::vector<ExpectedRound> rounds_;
  std::vector<std::pair<std::string, std::vector<int32_t>>> tokens_;
};

/// Options of the exact path.
BlockDrafterOptions exact_options();

/// Loads a golden drafter and fails the test (null) when that does not work.
std::unique_ptr<BlockDrafter> load_block_draft(const GoldenDraft& golden, const TestTarget& target,
                                               ThreadPool& pool, const BlockDrafterOptions& options);

/// Features (taps, rows, dim) as one event. `features` must live as long as the event.
CommitEvent feature_event(int32_t slot, int32_t position, const std::vector<float>& features, int32_t n_taps,
                          int32_t dim);
/// Rows [first, first + n) of (taps, rows, dim).
std::vector<float> feature_rows(const std::vector<float>& features, int32_t n_taps, int32_t dim,
                                int32_t first, int32_t n);
/// The rows of b behind those of a.
std::vector<float> join_features(const std::vector<float>& a, const std::vector<float>& b, int32_t n_taps);

/// proposes for one request; the block's stride is max_tokens.
DraftBlock propose_one(Drafter& drafter, int32_t slot, int32_t anchor, int32_t position, int32_t max_tokens,
                       const SamplingParams& sampling, AcceptRule rule = AcceptRule::kCoupled);

/// K (or V) of the first n_rows positions of one layer out of an fp32 cache: (kv heads, rows, head_dim).
std::vector<float> cached_rows(const KvPool& cache, std::span<const int32_t> pages, int32_t n_rows,
                               int32_t layer, bool values);
/// The same of a drafter's committed rows.
template <typename DrafterType>
std::vector<float> cached_rows(const DrafterType& drafter, int32_t slot, int32_t layer, bool values) {
  return cached_rows(drafter.cache(), drafter.pages(slot), drafter.context_rows(slot), layer, values);
}

float max_abs_diff(const std::vector<float>& a, const std::vector<float>& b);
bool same_bits(const std::vector<float>& a, const std::vector<float>& b);

}  // namespace dspark::test
