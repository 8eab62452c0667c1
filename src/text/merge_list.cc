#include "text/merge_list.h"

#include "text/utf8.h"

namespace dspark {

MergeListReader::MergeListReader(const Vocab& vocab, size_t n_merges, std::string place)
    : vocab_(vocab), place_(std::move(place)), table_(n_merges) {}

Status MergeListReader::add(std::string_view merge) {
  // A space may be the first character of the left text, never its end.
  const size_t space = merge.find(' ', 1);
  if (space == std::string_view::npos || space + 1 >= merge.size()) {
    return corrupt_data(place_ + "[" + std::to_string(rank_) + "]: expected two texts, found '" +
                        to_valid_utf8(merge.substr(0, 100)) + "'");
  }
  return add(merge.substr(0, space), merge.substr(space + 1));
}

Status MergeListReader::add(std::string_view left, std::string_view right) {
  int32_t ids[3] = {};
  DSPARK_RETURN_IF_ERROR(find(left, ids[0]));
  DSPARK_RETURN_IF_ERROR(find(right, ids[1]));
  merged_.assign(left);
  merged_ += right;
  // Vocabularies list the merged tokens in the order of the merges: try the next id before searching.
  const int32_t guess = last_merged_ + 1;
  if (vocab_.contains(guess) && vocab_.kind(guess) != TokenKind::kUnused && vocab_.text(guess) == merged_) {
    ids[2] = guess;
  } else {
    DSPARK_RETURN_IF_ERROR(find(merged_, ids[2]));
  }
  last_merged_ = ids[2];
  table_.add(ids[0], ids[1], rank_++, ids[2]);
  return ok_status();
}

Status MergeListReader::find(std::string_view text, int32_t& id) const {
  id = vocab_.find(text);
  if (id >= 0) return ok_status();
  return corrupt_data(place_ + "[" + std::to_string(rank_) + "]: '" + to_valid_utf8(text.substr(0, 100)) +
                      "' is no token of the vocabulary");
}

}  // namespace dspark
