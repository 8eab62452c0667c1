#pragma once
// Draft vocabulary: the ids that a drafter can propose, chosen from a corpus.

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "train_data/corpus.h"

namespace dspark {

/// The `size` ids with the largest counts, ties by the lower id, ids never seen filled in from the lowest;
/// ascending. requires: 0 < size <= counts.size().
std::vector<int32_t> most_frequent_ids(std::span<const int64_t> counts, int32_t size);

/// How much of answers a vocabulary covers.
struct Coverage {
  int64_t n_tokens = 0;        // answer tokens
  int64_t n_in = 0;            // of them in the vocabulary
  int64_t n_in_or_prompt = 0;  // in the vocabulary or in the prompt
};

/// Counts ids of a corpus and measures vocabularies chosen from it.
class VocabCounter {
 public:
  explicit VocabCounter(int32_t vocab_size);
  /// Counts prompt and answer. One record in kHeldOutOneIn, by its prompt's id, is kept for measuring.
  /// errors: corrupt_data for an id outside the vocabulary.
  Status add(const CorpusRecord& record);
  /// Of all records.
  std::vector<int32_t> choose(int32_t size) const;
  /// Coverage of the held-out answers, per task, by the ids that the other records choose.
  std::map<std::string, Coverage> held_out_coverage(int32_t size) const;
  int64_t n_tokens() const { return n_tokens_; }

  static constexpr uint64_t kHeldOutOneIn = 20;

 private:
  struct HeldOut {
    std::string task;
    std::vector<int32_t> tokens;
    int32_t prompt_tokens = 0;
  };
  std::vector<int64_t> counts_, held_out_counts_;
  std::vector<HeldOut> held_out_;
  int64_t n_tokens_ = 0;
};

/// {"vocab_size": of the target, "size": n, "target_model": name, "ids": [ascending]}.
std::string draft_vocab_json(std::span<const int32_t> ids, int32_t vocab_size,
                             const std::string& target_name);

/// What such a file says.
struct DraftVocab {
  int32_t vocab_size = 0;  // of the target
  std::string target_model;
  std::vector<int32_t> ids;  // ascending
};
/// errors: not_found, corrupt_data naming the field (ids ascending, inside the target's vocabulary).
Result<DraftVocab> read_draft_vocab(const std::string& path);

}  // namespace dspark
