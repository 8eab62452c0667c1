#pragma once
// What the server keeps of a request that engines work on: enough to end it and to tell about it.

#include <cstdint>
#include <string>

#include "engine/request.h"
#include "server/api_error.h"
#include "server/completion_writer.h"

namespace dspark {

/// thread: every member from any thread.
class RunningCall {
 public:
  virtual ~RunningCall() = default;
  /// Ends it; message: for the client, when it still listens.
  virtual void cancel(const std::string& message) = 0;

  /// For /slots.
  struct View {
    std::string request_id, model;
    int64_t n_choices = 0, n_done = 0;  // answers, or vectors
    UsageCounts usage;
    double age_s = 0;
    bool streamed = false;
  };
  virtual View view() const = 0;
};

/// What a client is told whose request ended so. ok() for ends that are no errors. cancel_message: why
/// requests were cancelled, "" when there is no more to say.
ApiError error_of_end(FinishReason reason, const std::string& cancel_message);
/// What a client is told whose request the engine did not take. Fields have the names of their interface;
/// those of vectors need no others than the engine's.
ApiError error_of_submit(const Status& status);
ApiError error_of_submit(const Status& status, ApiKind kind);

}  // namespace dspark
