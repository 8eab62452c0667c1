#include "server/running_call.h"

namespace dspark {

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

}  // namespace dspark
