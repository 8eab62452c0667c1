#include "constrain/grammar_constraint.h"

#include <algorithm>
#include <limits>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "constrain/automaton.h"
#include "constrain/state_machine.h"
#include "text/tokenizer.h"

namespace dspark {
namespace {

constexpr int32_t kNoLimit = std::numeric_limits<int32_t>::max();
/// Memory of states and transitions after which all but the live ones are forgotten.
constexpr size_t kMachineBytes = size_t{48} << 20;
/// Memory of remembered masks.
constexpr size_t kMaskBytes = size_t{16} << 20;

}  // namespace

std::shared_ptr<const TokenTrie> make_token_trie(const Tokenizer& tokenizer, int32_t vocab_size,
                                                 const std::vector<std::string>& markers) {
  const int32_t n = vocab_size > 0 ? vocab_size : tokenizer.vocab_size();
  return std::make_shared<const TokenTrie>(n, [&](int32_t id) -> std::string_view {
    if (id >= tokenizer.vocab_size() || tokenizer.is_unused(id)) return {};
    const std::string_view bytes = tokenizer.token_bytes(id);
    const bool is_hidden =
        tokenizer.is_special(id) && std::find(markers.begin(), markers.end(), bytes) == markers.end();
    return is_hidden ? std::string_view() : bytes;
  });
}

/// What all texts under one grammar and vocabulary share: states met so far and their masks.
class GrammarConstraint::Shared {
 public:
  struct Mask {
    std::vector<uint32_t> words;
    int32_t largest_to_end = 0;  // with at least so many bytes left the limit excludes nothing
  };

  Shared(Grammar grammar, std::shared_ptr<const TokenTrie> trie)
      : grammar_(std::move(grammar)),
        trie_(std::move(trie)),
        n_words_(token_mask_words(trie_->vocab_size())),
        max_masks_(std::max<size_t>(8, kMaskBytes / (n_words_ * sizeof(uint32_t) + 64))),
        machine_(grammar_.automaton()) {}

  std::unique_lock<std::mutex> lock() { return std::unique_lock(mutex_); }
  // The rest: with the lock held.

  StateMachine& machine() { return machine_; }
  const TokenTrie& trie() const { return *trie_; }

  void add(std::vector<int32_t>* history) { histories_.push_back(history); }
  void remove(std::vector<int32_t>* history) { std::erase(histories_, history); }

  /// Call before work that may meet new states: numbers in the histories change.
  void make_room() {
    if (machine_.bytes() <= kMachineBytes) return;
    machine_.compact(histories_);
    masks_.clear();
    use_order_.clear();
  }

  std::shared_ptr<const Mask> mask_of(int32_t state) {
    if (const auto known = masks_.find(state); known != masks_.end()) {
      known->second.last_use = ++clock_;
      return known->second.mask;
    }
    if (masks_.size() >= max_masks_) evict();
    auto mask = std::make_shared<Mask>();
    mask->words.assign(n_words_, 0);
    mask->largest_to_end = trie_->walk(machine_, grammar_.automaton(), state, kNoLimit, mask->words);
    masks_.emplace(state, Entry{mask, ++clock_});
    return mask;
  }

  /// Only tokens that leave at most `limit` bytes to the end. returns: whether there are any.
  bool limited_mask(int32_t state, int32_t limit, std::vector<uint32_t>& words) {
    words.assign(n_words_, 0);
    trie_->walk(machine_, grammar_.automaton(), state, limit, words);
    return std::any_of(words.begin(), words.end(), [](uint32_t word) { return word != 0; });
  }

 private:
  struct Entry {
    std::shared_ptr<const Mask> mask;
    uint64_t last_use = 0;
  };

  // Forgets the half that was not used for longest, so that the search for it is paid rarely.
  void evict() {
    use_order_.clear();
    for (const auto& [state, entry] : masks_) use_order_.push_back(entry.last_use);
    const auto middle = use_order_.begin() + static_cast<std::ptrdiff_t>(use_order_.size() / 2);
    std::nth_element(use_order_.begin(), middle, use_order_.end());
    const uint64_t keep_from = *middle;
    std::erase_if(masks_, [keep_from](const auto& item) { return item.second.last_use < keep_from; });
  }

  const Grammar grammar_;
  const std::shared_ptr<const TokenTrie> trie_;
  const size_t n_words_;
  const size_t max_masks_;
  std::mutex mutex_;
  StateMachine machine_;
  std::unordered_map<int32_t, Entry> masks_;
  std::vector<uint64_t> use_order_;
  uint64_t clock_ = 0;
  std::vector<std::vector<int32_t>*> histories_;
};

/// One text: the states behind its newest tokens.
class GrammarConstraint::State final : public ConstraintState {
 public:
  State(std::shared_ptr<Shared> shared, std::span<const int32_t> end_ids, int32_t max_tokens)
      : shared_(std::move(shared)), end_ids_(end_ids.begin(), end_ids.end()), max_tokens_(max_tokens) {
    history_.reserve(2 * kKept + 1);
    const auto lock = shared_->lock();
    history_.push_back(shared_->machine().start());
    shared_->add(&history_);
  }
  ~State() override {
    const auto lock = shared_->lock();
    shared_->remove(&history_);
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  TokenMask allowed() override {
    const auto lock = shared_->lock();
    shared_->make_room();
    return mask();
  }

  bool allows(int32_t token) override {
    const auto lock = shared_->lock();
    shared_->make_room();
    return behind(token) != StateMachine::kDead;
  }

  bool advance(int32_t token) override {
    const auto lock = shared_->lock();
    shared_->make_room();
    const int32_t next = behind(token);
    if (next == StateMachine::kDead) return false;
    // Only so much of the past can be asked for.
    if (history_.size() > 2 * kKept) history_.erase(history_.begin(), history_.end() - kKept);
    history_.push_back(next);
    ++n_tokens_;
    if (is_end(token)) n_at_end_ = n_tokens_;
    return true;
  }

  void rollback(int32_t n) override {
    if (n <= 0) return;
    DSPARK_DCHECK(static_cast<size_t>(n) < history_.size());
    history_.resize(history_.size() - static_cast<size_t>(n));
    n_tokens_ -= n;
    if (n_at_end_ > n_tokens_) n_at_end_ = 0;
  }

  bool finished() const override {
    if (ended()) return true;
    const auto lock = shared_->lock();
    return shared_->machine().is_final(state());
  }

 private:
  static constexpr std::ptrdiff_t kKept = kMaxConstraintRollback + 1;

  int32_t state() const { return history_.back(); }
  /// An end id was appended: nothing follows.
  bool ended() const { return n_at_end_ > 0; }
  bool is_end(int32_t token) const {
    return std::find(end_ids_.begin(), end_ids_.end(), token) != end_ids_.end();
  }
  /// Bytes that may be left behind the next token.
  int32_t limit() const {
    return max_tokens_ < 0 ? kNoLimit
                           : static_cast<int32_t>(std::max<int64_t>(0, max_tokens_ - n_tokens_ - 1));
  }

  /// The state behind one more token; kDead when it is not allowed. An end id keeps the state.
  int32_t behind(int32_t token) {
    if (ended()) return StateMachine::kDead;
    StateMachine& machine = shared_->machine();
    if (is_end(token)) return machine.accepts(state()) ? state() : StateMachine::kDead;
    const std::string_view bytes = shared_->trie().bytes(token);
    if (bytes.empty()) return StateMachine::kDead;
    int32_t next = state();
    for (char byte : bytes) next = machine.next(next, static_cast<uint8_t>(byte));
    if (next == StateMachine::kDead || machine.to_end(next) <= limit()) return next;
    return mask_allows(mask(), token) ? next : StateMachine::kDead;
  }

  TokenMask mask() {
    if (ended()) {
      own_.assign(token_mask_words(shared_->trie().vocab_size()), 0);
      return own_;
    }
    shared_mask_ = shared_->mask_of(state());
    const bool accepts = shared_->machine().accepts(state());
    bool is_own = false;
    if (shared_mask_->largest_to_end > limit()) {
      // Where the text may end already, an empty mask is no dead end.
      is_own = shared_->limited_mask(state(), limit(), own_) || accepts;
    }
    const auto touches = [&](int32_t id) {
      return is_inside(id) && (accepts || mask_allows(shared_mask_->words, id));
    };
    if (!is_own && std::none_of(end_ids_.begin(), end_ids_.end(), touches)) return shared_mask_->words;
    if (!is_own) own_ = shared_mask_->words;
    for (int32_t id : end_ids_) set_end(id, accepts);
    return own_;
  }

  bool is_inside(int32_t id) const { return id >= 0 && id < shared_->trie().vocab_size(); }
  void set_end(int32_t id, bool is_allowed) {
    if (!is_inside(id)) return;
    const auto i = static_cast<size_t>(id);
    const uint32_t bit = uint32_t{1} << (i % 32);
    own_[i / 32] = is_allowed ? own_[i / 32] | bit : own_[i / 32] & ~bit;
  }

  const std::shared_ptr<Shared> shared_;
  const std::vector<int32_t> end_ids_;
  const int32_t max_tokens_;
  std::vector<int32_t> history_;  // states, the newest last; renumbered by Shared::make_room
  int64_t n_tokens_ = 0;
  int64_t n_at_end_ = 0;                             // tokens when an end id was appended; 0: none
  std::shared_ptr<const Shared::Mask> shared_mask_;  // keeps the mask given out last
  std::vector<uint32_t> own_;
};

GrammarConstraint::GrammarConstraint(Grammar grammar, std::shared_ptr<const TokenTrie> trie, Options options)
    : GrammarConstraint(std::make_shared<Shared>(grammar, trie), grammar, trie, options) {}

GrammarConstraint::GrammarConstraint(std::shared_ptr<Shared> shared, Grammar grammar,
                                     std::shared_ptr<const TokenTrie> trie, Options options)
    : grammar_(std::move(grammar)), trie_(std::move(trie)), shared_(std::move(shared)), options_(options) {}

GrammarConstraint::~GrammarConstraint() = default;

std::shared_ptr<const GrammarConstraint> GrammarConstraint::with_options(Options options) const {
  return std::shared_ptr<const GrammarConstraint>(new GrammarConstraint(shared_, grammar_, trie_, options));
}

std::unique_ptr<ConstraintState> GrammarConstraint::start(std::span<const int32_t> end_ids) const {
  return std::make_unique<State>(shared_, end_ids, options_.max_tokens);
}

}  // namespace dspark
