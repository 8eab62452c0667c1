#include "server/running_call.h"

#include <string_view>

namespace dspark {
namespace {

// What a field of GenerateRequest is called in the bodies of requests.
struct FieldNames {
  std::string_view engine;
  const char* chat;
  const char* completion;
  const char* responses;
  const char* messages;

  const char* of(ApiKind kind) const {
    if (kind == ApiKind::kChat) return chat;
    if (kind == ApiKind::kCompletion) return completion;
    return kind == ApiKind::kResponses ? responses : messages;
  }
};

constexpr FieldNames kFieldNames[] = {
    {"prompt", "messages", "prompt", "input", "messages"},
    {"n_logprobs", "top_logprobs", "logprobs", "top_logprobs", "top_logprobs"},
    {"max_tokens", "max_tokens", "max_tokens", "max_output_tokens", "max_tokens"},
    {"stop_strings", "stop", "stop", "stop", "stop_sequences"},
    {"max_drafts", "speculation.max_draft", "speculation.max_draft", "speculation.max_draft",
     "speculation.max_draft"}};

}  // namespace

ApiError error_of_end(FinishReason reason, const std::string& cancel_message) {
  ApiError error;
  switch (reason) {
    case FinishReason::kQueueTimeout:
      error = api_error(429, {}, "the request waited too long for its turn", "queue_timeout");
      error.retry_after = 1;
      break;
    case FinishReason::kError:
      error = api_error(500, {}, "out of memory in the forward pass");
      break;
    case FinishReason::kCancelled:
      error = api_error(503, {}, cancel_message.empty() ? "the request was cancelled" : cancel_message,
                        "cancelled");
      error.retry_after = 1;
      break;
    case FinishReason::kConstraint:
      error =
          api_error(500, {}, "the model's tokens cannot go on as the grammar wants", "constraint_dead_end");
      break;
    default:
      break;
  }
  return error;
}

ApiError error_of_submit(const Status& status) {
  ApiError error = from_status(status);
  if (error.http == 429) error.message = "the queue is full: " + status.message();
  return error;
}

ApiError error_of_submit(const Status& status, ApiKind kind) {
  ApiError error = error_of_submit(status);
  for (const FieldNames& names : kFieldNames) {
    const std::string_view field = std::string_view(error.param).substr(0, error.param.find('['));
    if (field != names.engine || field == names.of(kind)) continue;
    // A place in a list of the engine's is none in the body.
    if (const size_t at = error.message.find(error.param); at != std::string::npos)
      error.message.replace(at, error.param.size(), names.of(kind));
    error.param = names.of(kind);
    break;
  }
  return error;
}

}  // namespace dspark
