#include "draft/hybrid_drafter.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "draft/draft_pick.h"

namespace dspark {
namespace {

constexpr int32_t kMostWithout = 15;  // steps without the model before one that asks it, to see
constexpr int32_t kLeastSeen = 4;     // steps that say what the model brings
constexpr double kGainStep = 0.1;     // weight of the newest of them

float logit_of(double p) {
  const double bounded = std::clamp(p, 1e-4, 1.0 - 1e-4);
  return static_cast<float>(std::log(bounded / (1.0 - bounded)));
}

}  // namespace

HybridDrafter::HybridDrafter(std::unique_ptr<Drafter> model, const HybridOptions& options)
    : model_(std::move(model)), options_(options), name_(std::string(model_->name()) + "+ngram") {}

int32_t HybridDrafter::max_block() const {
  return std::min(std::max(model_->max_block(), options_.lookup.max_block), kMaxDraftTokens);
}

HybridDrafter::Slot& HybridDrafter::slot_of(int32_t slot) {
  const auto at = static_cast<size_t>(slot);
  if (at >= slots_.size()) slots_.resize(at + 1);
  if (slots_[at] == nullptr) {
    slots_[at] = std::make_unique<Slot>(options_.lookup);
    if (options_.lookup.reserve > 0) slots_[at]->index.reserve(options_.lookup.reserve);
  }
  return *slots_[at];
}

Status HybridDrafter::set_calibration(std::span<const double> temperatures, std::span<const double> biases) {
  return model_->set_calibration(temperatures, biases);
}

void HybridDrafter::release(int32_t slot) {
  Slot& state = slot_of(slot);
  state.index.clear();
  state.is_pending = false;
  model_->release(slot);
}

Status HybridDrafter::propose(std::span<const DraftRequest> requests, DraftBlock& out) {
  for (const DraftRequest& request : requests) look_up(slot_of(request.slot), request);
  Status drafted = ok_status();
  const bool without = can_do_without_model(requests);
  steps_without_ = without ? steps_without_ + 1 : 0;
  if (without) {
    out.model_sequences = 0;
  } else {
    drafted = model_->propose(requests, out);
    if (!drafted.ok()) std::ranges::fill(out.n_tokens, 0);
  }
  for (size_t i = 0; i < requests.size(); ++i) {
    Slot& slot = slot_of(requests[i].slot);
    const int32_t limit = std::min({requests[i].max_tokens, max_block(), out.stride});
    take_block(slot, i, requests[i], out);
    find_places(slot, limit);
    write(slot, i, requests[i], limit, out);
  }
  out.has_confidence = true;
  out.evidence_kind = DraftEvidence::kNone;
  return ok_status();  // a model that failed leaves what lookup found
}

/// What lookup alone proposes, and what that is worth.
void HybridDrafter::look_up(Slot& slot, const DraftRequest& request) {
  slot.is_pending = true;
  slot.samples = pick_kind(request) == PickKind::kSampled;
  slot.position = request.position;
  slot.n_model = 0;
  slot.places[0].match = slot.index.match();
  const int32_t limit = std::min(request.max_tokens, options_.lookup.max_block);
  slot.n_looked = slot.places[0].match.length > 0 ? limit : 0;
  slot.index.follow(slot.places[0].match, {},
                    std::span(slot.looked_up).first(static_cast<size_t>(slot.n_looked)));
  const double value = odds_of(slot).lookup_value(slot.places[0].match.length, slot.n_looked);
  const double share = value / std::max(limit, 1);
  slot.gain_class =
      std::min(static_cast<size_t>(share * static_cast<double>(kGainClasses)), kGainClasses - 1);
  slot.gain = value;
}

/// Whether what the model's pass would add is worth less than the pass, judged by earlier passes in which
/// lookup promised as much.
bool HybridDrafter::can_do_without_model(std::span<const DraftRequest> requests) {
  if (steps_without_ >= kMostWithout) return false;
  double gain = 0.0, tokens = 0.0;
  for (const DraftRequest& request : requests) {
    const Slot& slot = slot_of(request.slot);
    const Gain& seen = gains_[slot.samples ? 1 : 0][slot.gain_class];
    if (slot.n_looked == 0 || seen.seen < kLeastSeen) return false;
    gain += seen.mean;
    tokens += 1.0 + slot.gain;
  }
  return gain < options_.pass_cost * tokens;
}

/// Keeps the model's block and what it says about it.
void HybridDrafter::take_block(Slot& slot, size_t request_idx, const DraftRequest& request,
                               const DraftBlock& out) {
  if (out.model_sequences == 0) return;
  slot.n_model = std::min({out.n_tokens[request_idx], request.max_tokens, kMaxDraftTokens});
  const size_t first = out.at(request_idx, 0);
  is_sure_ = out.has_confidence;
  slot.evidence_kind = out.evidence_kind;
  for (int32_t k = 0; k < slot.n_model; ++k) {
    const auto at = static_cast<size_t>(k);
    slot.drafts[at] = out.tokens[first + at];
    slot.evidence[at] = out.evidence[first + at];
    slot.confidence[at] =
        is_sure_ ? out.confidence[first + at]
                 : static_cast<float>(odds_of(slot).model(slot.evidence_kind, k, slot.evidence[at]));
  }
}

void HybridDrafter::find_places(Slot& slot, int32_t limit) {
  for (int32_t s = 0; s <= slot.n_model; ++s) {
    Place& place = slot.places[static_cast<size_t>(s)];
    const std::span<const int32_t> ahead = std::span(slot.drafts).first(static_cast<size_t>(s));
    place.match = s < limit ? slot.index.match(ahead) : NgramIndex::Match{};
    place.token = -1;
    if (place.match.length > 0) slot.index.follow(place.match, ahead, {&place.token, 1});
  }
}

/// Where to leave the block so that most drafts are expected to be accepted, when everything may be looked
/// at. confidence: (n_model) of the drafts of the block on the way.
int32_t HybridDrafter::best_switch(Slot& slot, int32_t limit, std::span<float> confidence) {
  const ProposalOdds& odds = odds_of(slot);
  int32_t best = slot.n_model;
  const Place& last = slot.places[static_cast<size_t>(best)];
  values_[static_cast<size_t>(best)] =
      odds.lookup_value(last.match.length, last.token < 0 ? 0 : limit - best);
  for (int32_t s = slot.n_model; s-- > 0;) {
    const auto at = static_cast<size_t>(s);
    const Place& place = slot.places[at];
    const double c = static_cast<double>(slot.confidence[at]);
    double p = c, value_of_lookup = 0.0;
    if (place.token == slot.drafts[at]) {
      p = odds.agreement(c, place.match.length);
    } else if (place.token >= 0) {
      const ContestOdds contest = odds.contest(c, place.match.length);
      p = contest.model;
      value_of_lookup = contest.lookup * (1.0 + odds.lookup_value(place.match.length + 1, limit - s - 1));
    }
    confidence[at] = static_cast<float>(p);
    values_[at] = p * (1.0 + values_[at + 1]);
    if (value_of_lookup > values_[at]) {
      values_[at] = value_of_lookup;
      best = s;
    }
  }
  return best;
}

/// The same for drafts that are sampled and judged by their probability: whether draft s comes from the
/// block may depend on the drafts before it and the confidence of draft s, not on draft s or later ones.
int32_t HybridDrafter::causal_switch(const Slot& slot, int32_t limit) {
  const ProposalOdds& odds = odds_of(slot);
  for (int32_t s = 0; s < slot.n_model; ++s) {
    const auto at = static_cast<size_t>(s);
    const Place& place = slot.places[at];
    if (place.token < 0) continue;
    const double of_block = static_cast<double>(slot.confidence[at]) * (1.0 + odds.model_tail(s));
    if (odds.lookup_value(place.match.length, limit - s) > of_block) return s;
  }
  return slot.n_model;
}

/// The chosen proposal into the block.
void HybridDrafter::write(Slot& slot, size_t request_idx, const DraftRequest& request, int32_t limit,
                          DraftBlock& out) {
  const ProposalOdds& odds = odds_of(slot);
  const size_t first = out.at(request_idx, 0);
  int32_t from = 0;
  if (slot.samples) {
    from = causal_switch(slot, limit);
    const double of_block =
        slot.n_model > 0 ? static_cast<double>(slot.confidence[0]) * (1.0 + odds.model_tail(0)) : 0.0;
    slot.gain = std::max(0.0, of_block - slot.gain);
    std::copy_n(slot.confidence.begin(), from, out.confidence.begin() + static_cast<std::ptrdiff_t>(first));
  } else {
    std::array<float, kMaxDraftTokens> confidence;
    from = best_switch(slot, limit, confidence);
    std::copy_n(confidence.begin(), from, out.confidence.begin() + static_cast<std::ptrdiff_t>(first));
    slot.gain = values_[0] - slot.gain;
  }
  if (!is_sure_) {
    for (size_t k = first; k < first + static_cast<size_t>(from); ++k) {
      out.confidence_logits[k] = logit_of(static_cast<double>(out.confidence[k]));
    }
  }
  const Place& place = slot.places[static_cast<size_t>(from)];
  out.n_tokens[request_idx] = from;
  if (place.token < 0) return;
  const auto n_drafts = static_cast<size_t>(from), n = static_cast<size_t>(limit - from);
  slot.index.follow(place.match, std::span(slot.drafts).first(n_drafts),
                    out.row(request_idx).subspan(n_drafts, n));
  for (int32_t k = from; k < limit; ++k) {
    const size_t at = first + static_cast<size_t>(k);
    double p = odds.lookup(place.match.length + k - from);
    if (k == from && from < slot.n_model && !slot.samples) {
      p = odds.contest(static_cast<double>(slot.confidence[n_drafts]), place.match.length).lookup;
    }
    out.confidence[at] = static_cast<float>(p);
    out.confidence_logits[at] = logit_of(p);
    out.sources[at] = ProposalSource::kLookup;
    out.probability[at] = -1.0f;  // that of the model's draft, which is not in the block
    out.n_tokens[request_idx] = k + 1;
    if (request.stops_at(out.tokens[at])) break;
  }
}

void HybridDrafter::attach(const AttachEvent& event) {
  slot_of(event.slot).index.append(event.tokens);
  model_->attach(event);
}

void HybridDrafter::commit(std::span<const CommitEvent> events) {
  for (const CommitEvent& event : events) {
    Slot& slot = slot_of(event.slot);
    if (slot.is_pending && event.token_position == slot.position + 1) learn(slot, event.tokens);
    slot.is_pending = false;
    slot.index.append(event.tokens);
  }
  for (ProposalOdds& odds : odds_) odds.end_step();
  model_->commit(events);
}

/// Compares what was proposed, or could have been, with what was committed. Comparison ends behind the first
/// token that differs, so every place is judged with the right tokens in front of it.
void HybridDrafter::learn(Slot& slot, std::span<const int32_t> tokens) {
  ProposalOdds& odds = odds_of(slot);
  const auto n_tokens = static_cast<int32_t>(tokens.size());
  for (int32_t j = 0; j < std::min(slot.n_looked, n_tokens); ++j) {
    const bool hit = slot.looked_up[static_cast<size_t>(j)] == tokens[static_cast<size_t>(j)];
    odds.observe_lookup(slot.places[0].match.length + j, hit);
    if (!hit) break;
  }
  if (slot.n_model == 0) return;
  odds.observe_block(std::span(slot.confidence).first(static_cast<size_t>(slot.n_model)));
  for (int32_t s = 0; s < std::min(slot.n_model, n_tokens); ++s) {
    const auto at = static_cast<size_t>(s);
    const Place& place = slot.places[at];
    const auto c = static_cast<double>(slot.confidence[at]);
    const bool hit = slot.drafts[at] == tokens[at];
    if (!is_sure_) odds.observe_model(slot.evidence_kind, s, slot.evidence[at], hit);
    if (place.token == slot.drafts[at]) {
      odds.observe_agreement(c, place.match.length, hit);
    } else if (place.token >= 0) {
      odds.observe_contest(c, place.match.length, hit, place.token == tokens[at]);
    }
    if (!hit) break;
  }
  Gain& gain = gains_[slot.samples ? 1 : 0][slot.gain_class];
  ++gain.seen;
  gain.mean += std::max(kGainStep, 1.0 / gain.seen) * (slot.gain - gain.mean);
}

}  // namespace dspark
