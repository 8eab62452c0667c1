#include "text/detokenizer.h"

#include "text/utf8.h"

namespace dspark {

StreamingDetokenizer::StreamingDetokenizer(const Tokenizer& tokenizer, bool skip_special)
    : tokenizer_(&tokenizer), skip_special_(skip_special), at_start_(tokenizer.strips_leading_space()) {}

std::string StreamingDetokenizer::push(int32_t id) {
  if (skip_special_ && tokenizer_->is_special(id)) return {};
  std::string_view piece = tokenizer_->token_bytes(id);
  if (piece.empty()) return {};
  if (at_start_ && piece[0] == ' ') piece.remove_prefix(1);
  at_start_ = false;
  pending_ += piece;

  std::string out;
  std::string_view rest = pending_;
  while (!rest.empty()) {
    const Utf8Step step = utf8_step(rest);
    if (step.kind == Utf8Step::Kind::kIncomplete) break;
    out += step.kind == Utf8Step::Kind::kValid ? rest.substr(0, step.length) : "\xEF\xBF\xBD";
    rest.remove_prefix(step.length);
  }
  pending_.erase(0, pending_.size() - rest.size());
  return out;
}

std::string StreamingDetokenizer::flush() {
  std::string out = to_valid_utf8(pending_);
  pending_.clear();
  at_start_ = tokenizer_->strips_leading_space();
  return out;
}

}  // namespace dspark
