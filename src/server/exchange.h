#pragma once
// One HTTP request and its response in the making: produced on any thread (an engine's), written out by the
// connection. Knows nothing of sockets.

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/api_error.h"

namespace dspark {

/// What arrived. Header names are lower case.
struct HttpRequest {
  std::string method;  // "GET"
  std::string path;    // "/v1/models", without the query
  std::string query;   // behind '?', without it
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
  std::string peer;  // address of the other end, or "unix"

  /// "" when absent.
  std::string_view header(std::string_view name) const;
};

/// A complete answer.
struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;
  /// Not null: makes the body, instead of `body`, on the thread that takes the answer. For bodies that cost
  /// time which the thread that knows their content should not spend.
  std::function<std::string()> write_body;
};

/// thread: every member from any thread. The producer calls respond() once, or begin_stream(), write() any
/// number of times and end(); the connection takes. A producer that can pause does so while the exchange is
/// full().
class Exchange {
 public:
  /// max_buffered: bytes of a streamed answer that are kept for a slow reader, see full().
  explicit Exchange(HttpRequest request, size_t max_buffered)
      : request_(std::move(request)), max_buffered_(max_buffered) {}

  const HttpRequest& request() const { return request_; }

  // The producer.
  void respond(HttpResponse response);
  void fail(const ApiError& error);
  /// The head of a streamed answer; its body is ignored.
  void begin_stream(HttpResponse head);
  /// Takes all of it, full() or not. returns: false when nobody reads any more: stop producing.
  bool write(std::string_view data);
  /// More than half of max_buffered waits to be taken: pause until on_drained. The other half is for what the
  /// connection took and has not sent yet.
  bool full() const;
  /// Called, by the thread that takes, whenever what made the exchange full was taken.
  void on_drained(std::function<void()> callback);
  void end();
  /// Called at most once, when the client went away before the end; at once when it is gone already.
  void on_abort(std::function<void()> callback);

  // The connection.
  struct Taken {
    bool has_head = false;  // `head` is new: write it first
    bool streamed = false;  // the body comes in pieces
    HttpResponse head;
    std::string data;  // pieces, for a streamed answer
    bool done = false;
    bool broken = false;  // broken off: close without an end
  };
  /// notify: called once whenever something new can be taken after a take() that found nothing more to do.
  void set_notify(std::function<void()> notify);
  /// A body that is still to be written (HttpResponse::write_body) is written here.
  Taken take();
  /// The client went away.
  void hang_up();
  bool ended() const;
  bool aborted() const { return aborted_.load(std::memory_order_relaxed); }

  /// The stream cannot be completed: what is unread is dropped and the connection closed without its proper
  /// end, so that the client notices.
  void break_off();

  /// More " key=value" words for the log line.
  void add_log(std::string_view words);
  std::string log_words() const;

  std::string request_id;  // set before the handler sees the exchange

 private:
  void wake(std::unique_lock<std::mutex>& lock);

  const HttpRequest request_;
  const size_t max_buffered_;
  mutable std::mutex mutex_;
  std::function<void()> notify_;
  std::function<void()> on_abort_;
  std::function<void()> on_drained_;
  bool notified_ = false;
  bool has_head_ = false, streamed_ = false, ended_ = false, broken_ = false, full_ = false;
  HttpResponse head_;
  std::string data_;
  std::string log_words_;
  std::atomic<bool> aborted_{false};
};

}  // namespace dspark
