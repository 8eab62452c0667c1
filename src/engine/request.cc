#include "engine/request.h"

#include <algorithm>
#include <cmath>

namespace dspark {
namespace {

Status check_ids(const char* field, std::span<const int32_t> ids, int32_t vocab_size) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= vocab_size) {
      return invalid_argument(std::string(field) + "[" + std::to_string(i) + "]: want a token id from 0 to " +
                              std::to_string(vocab_size - 1) + ", found " + std::to_string(ids[i]));
    }
  }
  return ok_status();
}

Status check_stop_strings(const std::vector<std::string>& stops) {
  if (stops.size() > kMaxStopStrings) {
    return invalid_argument("stop_strings: want at most " + std::to_string(kMaxStopStrings) + ", found " +
                            std::to_string(stops.size()));
  }
  for (size_t i = 0; i < stops.size(); ++i) {
    if (stops[i].empty() || stops[i].size() > kMaxStopStringBytes) {
      return invalid_argument("stop_strings[" + std::to_string(i) + "]: want 1 to " +
                              std::to_string(kMaxStopStringBytes) + " bytes, found " +
                              std::to_string(stops[i].size()));
    }
  }
  return ok_status();
}

Status check_seconds(const char* field, double seconds) {
  if (seconds >= 0.0 && std::isfinite(seconds)) return ok_status();
  return invalid_argument(std::string(field) + ": want seconds from 0 on, found " + std::to_string(seconds));
}

}  // namespace

Status QueueParams::validate() const {
  if (priority < -kMaxPriority || priority > kMaxPriority) {
    return invalid_argument("priority: want " + std::to_string(-kMaxPriority) + " to " +
                            std::to_string(kMaxPriority) + ", found " + std::to_string(priority));
  }
  if (client.size() > kMaxClientBytes) {
    return invalid_argument("client: want at most " + std::to_string(kMaxClientBytes) + " bytes, found " +
                            std::to_string(client.size()));
  }
  DSPARK_RETURN_IF_ERROR(check_seconds("queue_timeout_s", queue_timeout_s));
  return check_seconds("deadline_s", deadline_s);
}

Status GenerateRequest::validate(int32_t vocab_size, int32_t context_length) const {
  if (prompt.empty()) return invalid_argument("prompt: want at least one token, found none");
  if (static_cast<int64_t>(prompt.size()) >= context_length) {
    return resource_exhausted("prompt: " + std::to_string(prompt.size()) +
                              " tokens do not fit a context of " + std::to_string(context_length) +
                              " tokens with room for an answer; want at most " +
                              std::to_string(context_length - 1));
  }
  DSPARK_RETURN_IF_ERROR(check_ids("prompt", prompt, vocab_size));
  DSPARK_RETURN_IF_ERROR(sampling.validate(vocab_size));
  if (max_tokens < 1 && max_tokens != -1) {
    return invalid_argument("max_tokens: want -1 (as many as fit) or at least 1, found " +
                            std::to_string(max_tokens));
  }
  DSPARK_RETURN_IF_ERROR(check_ids("stop_token_ids", stop_token_ids, vocab_size));
  DSPARK_RETURN_IF_ERROR(check_stop_strings(stop_strings));
  if (speculation) {
    if (const Status status = speculation->validate(); !status.ok()) {
      return invalid_argument("speculation: " + status.message());
    }
  }
  if (max_drafts && *max_drafts < 0) {
    return invalid_argument("max_drafts: want 0 or more, found " + std::to_string(*max_drafts));
  }
  const int32_t most_logprobs = std::min(kMaxLogprobs, vocab_size);
  if (n_logprobs < -1 || n_logprobs > most_logprobs) {
    return invalid_argument("n_logprobs: want -1 (none) to " + std::to_string(most_logprobs) + ", found " +
                            std::to_string(n_logprobs));
  }
  if (constraint != nullptr && constraint->vocab_size() != vocab_size) {
    return invalid_argument("constraint: made for " + std::to_string(constraint->vocab_size()) +
                            " tokens, the model has " + std::to_string(vocab_size));
  }
  DSPARK_RETURN_IF_ERROR(queue.validate());
  return ok_status();
}

const char* finish_reason_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kNone:
      return "none";
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kError:
      return "error";
    case FinishReason::kQueueTimeout:
      return "queue_timeout";
    case FinishReason::kDeadline:
      return "deadline";
    case FinishReason::kConstraint:
      return "constraint";
  }
  return "none";
}

const char* token_origin_name(TokenOrigin origin) {
  switch (origin) {
    case TokenOrigin::kPlain:
      return "plain";
    case TokenOrigin::kAccepted:
      return "accepted";
    case TokenOrigin::kCorrection:
      return "correction";
    case TokenOrigin::kBonus:
      return "bonus";
  }
  return "plain";
}

}  // namespace dspark
