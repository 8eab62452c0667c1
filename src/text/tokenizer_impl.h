#pragma once
// Inside of Tokenizer, shared by its source files only.

#include <string>
#include <vector>

#include "text/bpe.h"
#include "text/token_matcher.h"
#include "text/tokenizer.h"
#include "text/tokenizer_spec.h"

namespace dspark {

struct Tokenizer::Impl {
  TokenizerSpec spec;
  ByteAlphabet alphabet;
  StringPool bytes;  // per id

  std::vector<uint32_t> order;   // by score: sort key per token
  BytePairSet pairs;             // of all tokens that merging can make
  int32_t byte_ids[256];         // byte-level: the token of one byte; byte fallback: "<0xAB>"; -1: none
  std::vector<uint8_t> special;  // per id
  std::vector<uint8_t> strip;    // per id: 1 = left, 2 = right
  TokenMatcher raw_all;          // matched in the raw text with parse_special ...
  TokenMatcher raw_plain;        // ... and without
  TokenMatcher normalized_all;   // the same for the normalised text
  TokenMatcher normalized_plain;

  void prepare();

 private:
  void prepare_bytes();
  void prepare_merging();
  void prepare_matchers();
};

}  // namespace dspark
