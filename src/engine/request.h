#pragma once
// What a caller asks of the engine and what it gets back.

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "speculate/accept.h"
#include "speculate/sampling_params.h"
#include "speculate/scheduler.h"
#include "speculate/stats.h"

namespace dspark {

using RequestId = uint64_t;

/// Limits of stop strings, so that a request cannot make every token expensive.
inline constexpr size_t kMaxStopStrings = 64;
inline constexpr size_t kMaxStopStringBytes = 1024;

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

  /// Checks everything that does not need a free slot. context_length: most tokens of prompt plus output.
  /// errors: invalid_argument or resource_exhausted (prompt too long), naming the field.
  Status validate(int32_t vocab_size, int32_t context_length) const;
};

enum class FinishReason : uint8_t { kNone, kStop, kLength, kCancelled, kError };
/// "none", "stop", "length", "cancelled", "error" (out of memory in the forward pass).
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
  int16_t draft_idx = -1;  // kAccepted: 0-based position in the drafted block; else -1
  bool is_stop = false;    // a stop token: committed, but not part of the text
};

/// Times and counters of one request.
struct GenerateStats {
  int32_t prompt_tokens = 0;
  int32_t output_tokens = 0;  // committed tokens, a closing stop token included
  double queue_s = 0;         // submit to admission
  double prompt_s = 0;        // admission to the first token
  double decode_s = 0;        // first token to the last
  int64_t steps = 0;          // forward passes this request took part in
  SpeculationStats speculation;
};

/// One verification of one sequence, for views and evaluation. Spans are valid during the callback only.
struct RoundView {
  int32_t anchor_position = 0;      // absolute index of the newest token before the round
  RoundRecord counts;               // what the statistics got
  std::span<const int32_t> drafts;  // (counts.drafted) ids, the first counts.verified of them were verified
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
  /// Text released in this step: whole UTF-8 characters, never a part of a stop string; what is held back
  /// comes with a later update, at the latest with the last one. Empty without a token-bytes function.
  std::string_view text;
  FinishReason finish_reason = FinishReason::kNone;  // != kNone: the last update of this request
  const GenerateStats* stats = nullptr;              // never null
  const RoundView* round = nullptr;                  // null: no round took place (prompt, cancelled)
};

/// Called on the engine thread inside step(). Must not call back into Engine::step(); submit and cancel are
/// allowed.
using StreamCallback = std::function<void(const StreamUpdate&)>;

/// Appends the bytes that a token adds to the text ("" for control tokens).
using TokenBytesFn = std::function<void(int32_t token, std::string& out)>;

}  // namespace dspark
