#pragma once
// One request for vectors on its way: one per text, which come in any order, collected into an exchange. The
// engine gets a few texts at a time, so that their number is not bound by its queue, and the queue has places
// for others.

#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "server/exchange.h"
#include "server/model_host.h"
#include "server/running_call.h"

namespace dspark {

/// thread: every member from any thread; results come from the engine's.
class EmbeddingCall final : public RunningCall, public std::enable_shared_from_this<EmbeddingCall> {
 public:
  /// as_base64: vectors are written as the base64 of their bytes, else as lists of numbers.
  EmbeddingCall(ModelHost& host, std::shared_ptr<Exchange> exchange, bool as_base64);

  /// Submits the first texts, the others when earlier ones are done; the exchange gets an answer or an error
  /// in any case: 429 when the queue has no place while none of the texts is on its way. A text's time in the
  /// queue (QueueParams) begins when it is submitted. requires: requests not empty.
  void start(std::vector<EmbedRequest> requests);
  void cancel(const std::string& message) override;
  View view() const override;

 private:
  using Clock = std::chrono::steady_clock;

  ApiError submit_more();
  void take(size_t index, const EmbedResult& result);
  void finish();
  void cancel_all();

  ModelHost& host_;
  const std::shared_ptr<Exchange> exchange_;
  const bool as_base64_;
  const Clock::time_point arrived_;

  mutable std::mutex mutex_;
  std::vector<EmbedRequest> requests_;  // those that were submitted are empty
  std::vector<std::vector<float>> vectors_;
  std::vector<RequestId> ids_;  // of each text; 0: not submitted, or done
  size_t n_submitted_ = 0;      // the first so many texts
  size_t n_running_ = 0;        // submitted and not done
  size_t n_left_ = 0;           // not done
  int64_t n_tokens_ = 0;
  bool failed_ = false;     // an error was sent; what still comes is dropped
  bool cancelled_ = false;  // nothing more is submitted
  std::string cancel_message_;
};

}  // namespace dspark
