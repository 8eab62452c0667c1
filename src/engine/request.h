#pragma once
// What a caller asks of the engine and what it gets back.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "speculate/accept.h"
#include "speculate/proposal_source.h"
#include "speculate/sampling_params.h"
#include "speculate/scheduler.h"
#include "speculate/stats.h"
#include "speculate/token_constraint.h"
#include "speculate/token_logprobs.h"

namespace dspark {

using RequestId = uint64_t;

/// Limits of stop strings, so that a request cannot make every token expensive.
inline constexpr size_t kMaxStopStrings = 64;
inline constexpr size_t kMaxStopStringBytes = 1024;

/// Most alternatives per token a request may ask for.
inline constexpr int32_t kMaxLogprobs = 32;
/// Priorities lie in [-kMaxPriority, kMaxPriority].
inline constexpr int32_t kMaxPriority = 100;

inline constexpr size_t kMaxClientBytes = 256;

/// How a request stands in the queue, see docs/engine.md.
struct QueueParams {
  int32_t priority = 0;        // higher starts earlier; waiting makes up for a lower one
  std::string client = {};     // requests of different clients take turns
  double queue_timeout_s = 0;  // longest wait for the first start; 0: any
  double deadline_s = 0;       // longest time from submit to the end; 0: any
  bool follows = false;        // takes the place of one that ended: a full queue does not refuse it

  /// errors: invalid_argument naming the field.
  Status validate() const;
};

/// One generation. Token ids, not text: tokenising and chat templates are the caller's (text room).
struct GenerateRequest {
  std::vector<int32_t> prompt;              // at least one token
  SamplingParams sampling;                  // seed included
  int32_t max_tokens = -1;                  // most new tokens; -1: as many as the context holds
  std::vector<int32_t> stop_token_ids;      // end the text, besides the model's end-of-text ids
  std::vector<std::string> stop_strings;    // end the text before their first occurrence
  bool ignore_eos = false;                  // the model's end-of-text ids do not end the text
  std::optional<VerifyPolicy> speculation;  // instead of the engine's policy
  /// Instead of the engine's rule. With kCoupled, and for greedy requests whatever it says, speculation
  /// changes speed and never text; the other rules keep the distribution of texts only.
  std::optional<AcceptRule> accept_rule;
  std::optional<int32_t> max_drafts;  // at most this many drafts per step, whatever the policy says; >= 0
  /// Log-probabilities of committed tokens in the model's own distribution (temperature 1, before bias,
  /// penalties, filters and constraint). -1: none; 0: of the token; n: of the n likeliest tokens as well.
  int32_t n_logprobs = -1;
  /// RoundView::probability is wanted. Costs time, changes neither drafts nor text.
  bool draft_probabilities = false;
  std::shared_ptr<const TokenConstraint> constraint;  // may be null
  QueueParams queue;

  /// Checks everything that does not need a free slot. context_length: most tokens of prompt plus output.
  /// errors: invalid_argument or resource_exhausted (prompt too long), naming the field.
  Status validate(int32_t vocab_size, int32_t context_length) const;
};

enum class FinishReason : uint8_t {
  kNone,
  kStop,          // a stop token or string, or a constraint that is complete
  kLength,        // max_tokens, or the end of the context
  kCancelled,     // by Engine::cancel
  kError,         // out of memory in the forward pass
  kQueueTimeout,  // waited longer than queue_timeout_s for its first start
  kDeadline,      // deadline_s passed; what was generated until then stands
  kConstraint,    // the constraint allows no token
};
/// "none", "stop", "length", "cancelled", "error", "queue_timeout", "deadline", "constraint".
const char* finish_reason_name(FinishReason reason);

/// How a token came to be committed. The text does not depend on it.
enum class TokenOrigin : uint8_t {
  kPlain,       // nothing was verified in front of it: prefill's token, or a step without drafts
  kAccepted,    // a draft the target agreed with
  kCorrection,  // the target's choice where a draft was rejected
  kBonus,       // the target's choice after a fully accepted run
};
/// "plain", "accepted", "correction", "bonus".
const char* token_origin_name(TokenOrigin origin);

/// One committed token.
struct TokenEvent {
  int32_t token = 0;
  int32_t position = 0;  // absolute index in prompt + output
  TokenOrigin origin = TokenOrigin::kPlain;
  int16_t draft_idx = -1;    // kAccepted: 0-based position in the drafted block; else -1
  bool is_stop = false;      // a stop token: committed, but not part of the text
  float logprob = 0.0f;      // natural logarithm, with n_logprobs >= 0; else 0
  float log_sum_exp = 0.0f;  // of the logits it was picked from, with n_logprobs >= 0; else 0
};

/// Times and counters of one request.
struct GenerateStats {
  int32_t prompt_tokens = 0;
  int32_t output_tokens = 0;  // committed tokens, a closing stop token included
  double queue_s = 0;         // submit to admission
  double prompt_s = 0;        // admission to the first token
  double decode_s = 0;        // first token to the last
  int64_t steps = 0;          // forward passes this request took part in
  int32_t cached_tokens = 0;  // prompt tokens whose cache rows were there already
  int32_t preemptions = 0;    // times it lost its pages and was computed again
  SpeculationStats speculation;
};

/// One verification of one sequence, for views and evaluation. Spans are valid during the callback only.
struct RoundView {
  int32_t anchor_position = 0;      // absolute index of the newest token before the round
  RoundRecord counts;               // what the statistics got
  std::span<const int32_t> drafts;  // (counts.drafted) ids, the first counts.verified of them were verified
  std::span<const ProposalSource> sources;  // (counts.drafted) who proposed each
  /// (counts.drafted) with draft_probabilities: what the drafter itself gave each draft, at temperature 1;
  /// negative where it has no probabilities (looked up).
  std::span<const float> probability;
  // Of a drafter with a confidence head, else empty.
  std::span<const float> confidence;         // (counts.drafted) after calibration, if there is one
  std::span<const float> confidence_logits;  // (counts.drafted) before it
};

/// What one step did for one request. Views are valid during the callback only.
struct StreamUpdate {
  RequestId id = 0;
  int32_t prompt_done = 0;  // prompt tokens processed so far
  int32_t prompt_tokens = 0;
  std::span<const TokenEvent> tokens;  // committed in this step, in order
  /// (tokens, n_logprobs) the likeliest tokens at each place, likeliest first, lower ids first among equals.
  std::span<const TokenLogprob> top_logprobs;
  /// Text released in this step: whole UTF-8 characters, never a part of a stop string; what is held back
  /// comes with a later update, at the latest with the last one. Empty without a token-bytes function.
  std::string_view text;
  FinishReason finish_reason = FinishReason::kNone;  // != kNone: the last update of this request
  std::string_view stop_string;  // kStop: the stop string that ended the text; empty: something else did
  const GenerateStats* stats = nullptr;  // never null
  const RoundView* round = nullptr;      // null: no round took place (prompt, cancelled)
};

/// How hidden states of a prompt become one vector.
enum class Pooling : uint8_t { kMean, kLast };

/// One vector for a text.
struct EmbedRequest {
  std::vector<int32_t> tokens;  // at least one
  Pooling pooling = Pooling::kMean;
  bool normalize = true;  // to length 1
  QueueParams queue;
};

/// The answer to an EmbedRequest. Views are valid during the callback only.
struct EmbedResult {
  RequestId id = 0;
  std::span<const float> embedding;  // (dim), final-norm hidden states; empty unless finish_reason is kStop
  FinishReason finish_reason = FinishReason::kNone;  // kStop: done
  const GenerateStats* stats = nullptr;              // never null
};

/// Called once, on the engine thread inside step(), like a StreamCallback.
using EmbedCallback = std::function<void(const EmbedResult&)>;

/// Called on the engine thread inside step(). Must not call back into Engine::step(); submit and cancel are
/// allowed.
using StreamCallback = std::function<void(const StreamUpdate&)>;

/// Appends the bytes that a token adds to the text ("" for control tokens).
using TokenBytesFn = std::function<void(int32_t token, std::string& out)>;

}  // namespace dspark
