#pragma once
// Reads the merges of a BPE tokenizer, written as texts, into a MergeTable.

#include <string>
#include <string_view>

#include "base/status.h"
#include "text/vocab.h"

namespace dspark {

/// Feed the merges in order of rank, then take the table.
class MergeListReader {
 public:
  /// `place` names the list in messages. The vocab must outlive the reader.
  MergeListReader(const Vocab& vocab, size_t n_merges, std::string place);

  /// "left right". errors: corrupt_data when it is not two texts or one of left, right and the merged text is
  /// no token.
  Status add(std::string_view merge);
  Status add(std::string_view left, std::string_view right);
  MergeTable take() { return std::move(table_); }

 private:
  Status find(std::string_view text, int32_t& id) const;

  const Vocab& vocab_;
  std::string place_;
  MergeTable table_;
  uint32_t rank_ = 0;
  int32_t last_merged_ = -1;
  std::string merged_;
};

}  // namespace dspark
