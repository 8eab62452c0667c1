#pragma once
// A grammar over the tokens of one model: what the engine asks for masks.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "constrain/grammar.h"
#include "constrain/token_trie.h"
#include "speculate/token_constraint.h"

namespace dspark {

class Tokenizer;  // text/tokenizer.h

/// The texts of a model's tokens, made once per model and shared by all its constraints: what token_bytes()
/// gives, without control tokens and padding. vocab_size: rows of the model's logits (0: the tokenizer's).
/// markers: texts of control tokens that a grammar may ask for all the same (marker_texts()).
std::shared_ptr<const TokenTrie> make_token_trie(const Tokenizer& tokenizer, int32_t vocab_size = 0,
                                                 const std::vector<std::string>& markers = {});

/// Holds texts to a grammar.
///
/// Masks allow the tokens whose whole text the grammar can go on with, whatever bytes a token holds (parts of
/// characters too), and the end ids exactly where the text may end. Control tokens are never allowed. Masks
/// are remembered per state of the grammar, for all texts under this constraint together.
///
/// With a token limit, a token is allowed only if the text can still be completed within the limit, counting
/// one token per byte; far from the limit this changes nothing. When no token passes (the limit was too small
/// to begin with, or the vocabulary cannot spell single bytes) the limit is left out.
///
/// A vocabulary that cannot spell what the grammar wants leads to an empty mask (a dead end). With all 256
/// bytes in the vocabulary that does not happen short of kMaxGrammarDepth levels of nesting.
class GrammarConstraint final : public TokenConstraint {
 public:
  struct Options {
    int32_t max_tokens = -1;  // of one text; -1: no limit
  };

  GrammarConstraint(Grammar grammar, std::shared_ptr<const TokenTrie> trie, Options options);
  GrammarConstraint(Grammar grammar, std::shared_ptr<const TokenTrie> trie)
      : GrammarConstraint(std::move(grammar), std::move(trie), Options()) {}
  ~GrammarConstraint() override;

  /// The same grammar and remembered masks for a text with another limit.
  std::shared_ptr<const GrammarConstraint> with_options(Options options) const;

  int32_t vocab_size() const override { return trie_->vocab_size(); }
  std::unique_ptr<ConstraintState> start(std::span<const int32_t> end_ids) const override;

 private:
  class Shared;
  class State;
  GrammarConstraint(std::shared_ptr<Shared> shared, Grammar grammar, std::shared_ptr<const TokenTrie> trie,
                    Options options);

  Grammar grammar_;
  std::shared_ptr<const TokenTrie> trie_;
  std::shared_ptr<Shared> shared_;
  Options options_;
};

}  // namespace dspark
