#pragma once
// What the two readers (GGUF, tokenizer.json) hand to the tokenizer: plain data, checked on arrival.

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "text/normalizer.h"
#include "text/pretokenizer.h"
#include "text/vocab.h"

namespace dspark {

/// A token that is matched as text before words are cut.
struct AddedToken {
  int32_t id = -1;
  bool special = false;     // only with parse_special
  bool normalized = false;  // matched in the normalised text
  bool strip_left = false;  // swallows white space on that side
  bool strip_right = false;
};

/// How the pieces of text are written in the vocabulary.
enum class PieceCoding {
  kByteLevel,    // every byte as a printable character (ByteAlphabet)
  kSpaceMarker,  // UTF-8 with U+2581 for a space
  kPlain,        // UTF-8
};

struct TokenizerSpec {
  Vocab vocab;  // index() called
  PieceCoding coding = PieceCoding::kByteLevel;
  bool by_score = false;       // merge by score of the merged text instead of by `merges`
  std::vector<float> scores;   // one per token when by_score
  MergeTable merges;           // when !by_score
  bool byte_fallback = false;  // unknown characters become "<0xAB>" tokens
  bool ignore_merges = false;  // a word that is a token is taken as it is
  bool fuse_unknown = false;   // a run of unknown characters becomes one unk_id

  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  std::vector<AddedToken> added;
  bool prefix_space = false;        // a space (mark) before every stretch of plain text
  bool prefix_space_first = false;  // only before the first, when it starts the text
  bool strip_leading_space = false;

  std::vector<int32_t> prefix_ids;  // added by add_special
  std::vector<int32_t> suffix_ids;
  int32_t bos_id = -1;
  int32_t eos_id = -1;
  int32_t eot_id = -1;  // -1: found by name
  int32_t pad_id = -1;
  int32_t unk_id = -1;
  std::vector<int32_t> stop_ids;  // besides eos, eot and those found by name
  std::string chat_template;
  std::string description;
};

/// Texts of tokens that end a turn or a text in published chat models, most specific first.
const std::vector<std::string_view>& end_token_names();

}  // namespace dspark
