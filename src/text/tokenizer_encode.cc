// Tokenizer::encode: special tokens, normalisation, words, merges, in this order.

#include <algorithm>

#include "text/bpe.h"
#include "text/regex.h"
#include "text/tokenizer_impl.h"
#include "text/utf8.h"
#include "text/word_cache.h"

namespace dspark {
namespace {

// Shorter texts hardly repeat themselves.
constexpr size_t kCacheFrom = 4096;

bool is_space(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

// Without special tokens to look for, the text is one stretch. Calls plain(begin, end) for text between
// tokens and token(id) for tokens, in order; strip flags of tokens are honoured.
template <typename Plain, typename Token>
void cut_at_tokens(std::string_view text, const TokenMatcher& matcher, const std::vector<uint8_t>& strip,
                   Plain&& plain, Token&& token) {
  size_t begin = 0;
  while (begin < text.size()) {
    const TokenMatcher::Match match =
        matcher.empty() ? TokenMatcher::Match{text.size(), text.size(), -1} : matcher.find(text, begin);
    size_t plain_end = match.begin;
    size_t next = match.end;
    const uint8_t strips = match.id >= 0 ? strip[static_cast<size_t>(match.id)] : 0;
    if ((strips & 1) != 0) {
      while (plain_end > begin && is_space(text[plain_end - 1])) --plain_end;
    }
    if ((strips & 2) != 0) {
      while (next < text.size() && is_space(text[next])) ++next;
    }
    if (plain_end > begin) plain(begin, plain_end);
    if (match.id < 0) return;
    token(match.id);
    begin = next;
  }
}

}  // namespace

// State of one encode call.
class EncodePass {
 public:
  EncodePass(const Tokenizer::Impl& impl, bool parse_special, std::vector<int32_t>& out)
      : impl_(impl),
        spec_(impl.spec),
        parse_special_(parse_special),
        merger_(spec_.by_score ? BpeMerger(&spec_.vocab, &impl.order) : BpeMerger(&spec_.merges)),
        out_(out) {}

  void run(std::string_view text) {
    if (text.size() >= kCacheFrom) cache_.enable();
    cut_at_tokens(
        text, parse_special_ ? impl_.raw_all : impl_.raw_plain, impl_.strip,
        [&](size_t begin, size_t end) { stretch(text.substr(begin, end - begin), begin == 0); },
        [&](int32_t id) { out_.push_back(id); });
  }

 private:
  void stretch(std::string_view text, bool starts_text) {
    std::string owned;
    if (spec_.coding == PieceCoding::kByteLevel && !is_valid_utf8(text)) {
      owned = repair_for_byte_level(text);
      text = owned;
    }
    if (spec_.prefix_space || (spec_.prefix_space_first && starts_text && text[0] != ' ')) {
      owned = " " + std::string(text);
      text = owned;
    }
    if (!spec_.normalizer.empty()) {
      owned = spec_.normalizer.apply(text);
      text = owned;
    }
    cut_at_tokens(
        text, parse_special_ ? impl_.normalized_all : impl_.normalized_plain, impl_.strip,
        [&](size_t begin, size_t end) { words(text.substr(begin, end - begin)); },
        [&](int32_t id) { out_.push_back(id); });
  }

  void words(std::string_view text) {
    const bool byte_level = spec_.coding == PieceCoding::kByteLevel;
    const auto word = [&](size_t begin, size_t end) {
      const std::string_view part = text.substr(begin, end - begin);
      after_unknown_ = false;
      byte_level ? byte_word(part) : char_word(part);
    };
    if (spec_.pre_tokenizer.empty()) return word(0, text.size());
    if (is_valid_utf8(text)) return spec_.pre_tokenizer.split(text, scratch_, word);
    const std::string subject = mask_invalid(text);
    spec_.pre_tokenizer.split(subject, scratch_, word);
  }

  void byte_word(std::string_view word) {
    if (spec_.ignore_merges && whole_word(word)) return;
    if (cached(word)) return;
    const size_t begin_ids = out_.size();
    symbols_.clear();
    for (size_t i = 0; i < word.size(); ++i) {
      const uint32_t begin = static_cast<uint32_t>(i);
      symbols_.push_back({impl_.byte_ids[static_cast<uint8_t>(word[i])], begin, begin + 1});
    }
    merge_and_emit(word, begin_ids);
  }

  bool whole_word(std::string_view word) {
    printable_.clear();
    impl_.alphabet.encode(word, printable_);
    const int32_t id = spec_.vocab.find(printable_);
    if (id < 0 || spec_.vocab.kind(id) != TokenKind::kNormal) return false;
    out_.push_back(id);
    return true;
  }

  // Cuts the word where nothing can merge (see BytePairSet).
  void char_word(std::string_view word) {
    if (spec_.ignore_merges) {
      const int32_t id = char_id(word);
      if (id >= 0) return out_.push_back(id);
    }
    size_t part = 0;
    for (size_t i = 0; i < word.size();) {
      const uint8_t lead = static_cast<uint8_t>(word[i]);
      if (i > part && !impl_.pairs.contains(static_cast<uint8_t>(word[i - 1]), lead)) {
        char_part(word.substr(part, i - part));
        part = i;
      }
      i += std::min(utf8_announced_length(lead), word.size() - i);
    }
    char_part(word.substr(part));
  }

  void char_part(std::string_view part) {
    if (cached(part)) return;
    const size_t begin_ids = out_.size();
    symbols_.clear();
    for (size_t i = 0; i < part.size();) {
      const size_t length = std::min(utf8_announced_length(static_cast<uint8_t>(part[i])), part.size() - i);
      const uint32_t begin = static_cast<uint32_t>(i);
      symbols_.push_back({char_id(part.substr(i, length)), begin, begin + static_cast<uint32_t>(length)});
      i += length;
    }
    merge_and_emit(part, begin_ids);
  }

  // With fuse_unknown the result depends on what came before.
  bool cached(std::string_view word) {
    return !spec_.fuse_unknown && cache_.accepts(word) && cache_.append(word, out_);
  }

  // The token of plain text, never a control token.
  int32_t char_id(std::string_view text) const {
    const int32_t id = spec_.vocab.find(text);
    if (id < 0) return -1;
    const TokenKind kind = spec_.vocab.kind(id);
    return kind == TokenKind::kNormal || kind == TokenKind::kUserDefined ? id : -1;
  }

  void merge_and_emit(std::string_view word, size_t begin_ids) {
    merger_.merge(word, symbols_);
    for (const BpeMerger::Symbol& symbol : symbols_) {
      if (symbol.id >= 0) {
        out_.push_back(symbol.id);
        after_unknown_ = false;
      } else if (!emit_bytes(word.substr(symbol.begin, symbol.end - symbol.begin))) {
        if (spec_.unk_id >= 0 && !(spec_.fuse_unknown && after_unknown_)) out_.push_back(spec_.unk_id);
        after_unknown_ = true;
      }
    }
    if (cache_.accepts(word)) cache_.remember(word, out_, begin_ids);
  }

  bool emit_bytes(std::string_view text) {
    if (!spec_.byte_fallback) return false;
    for (char c : text) {
      if (impl_.byte_ids[static_cast<uint8_t>(c)] < 0) return false;
    }
    for (char c : text) out_.push_back(impl_.byte_ids[static_cast<uint8_t>(c)]);
    return true;
  }

  const Tokenizer::Impl& impl_;
  const TokenizerSpec& spec_;
  bool parse_special_;
  Regex::Scratch scratch_;
  BpeMerger merger_;
  std::vector<BpeMerger::Symbol> symbols_;
  std::string printable_;
  WordCache cache_;
  bool after_unknown_ = false;
  std::vector<int32_t>& out_;
};

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool add_special, bool parse_special) const {
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 3 + 8);
  const TokenizerSpec& spec = impl_->spec;
  if (add_special) ids.insert(ids.end(), spec.prefix_ids.begin(), spec.prefix_ids.end());
  EncodePass(*impl_, parse_special, ids).run(text);
  if (add_special) ids.insert(ids.end(), spec.suffix_ids.begin(), spec.suffix_ids.end());
  return ids;
}

}  // namespace dspark
