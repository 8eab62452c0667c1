#include "server/text_offsets.h"

#include "text/utf8.h"

namespace dspark {

int64_t TextOffsets::add(std::string_view bytes) {
  const size_t begin = pending_.size();
  pending_.append(bytes);
  int64_t offset = n_chars_;
  size_t at = 0;
  while (at < pending_.size()) {
    const Utf8Step step = utf8_step(std::string_view(pending_).substr(at));
    if (step.kind == Utf8Step::Kind::kIncomplete) break;
    at += step.length;
    ++n_chars_;
    if (at <= begin) offset = n_chars_;  // the unfinished one can be no character any more
  }
  pending_.erase(0, at);
  return offset;
}

}  // namespace dspark
