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
  std::string peer;  // address of the client

  /// "" when absent.
  std::string_view header(std::string_view name) const;
};

/// A complete answer.
struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;
};

/// thread: every member from any thread. The producer calls respond() once, or begin_stream(), write() any
/// number of times and end(); the connection takes.
class Exchange {
 public:
  /// max_buffered: bytes a slow reader may leave unread before the stream counts as lost.
  explicit Exchange(HttpRequest request, size_t max_buffered)
      : request_(std::move(request)), max_buffered_(max_buffered) {}

  const HttpRequest& request() const { return request_; }

  // The producer.
  void respond(HttpResponse response);
  void fail(const ApiError& error);
  /// The head of a streamed answer; its body is ignored.
  void begin_stream(HttpResponse head);
  /// returns: false when nobody reads any more (hang-up, or too much is unread): stop producing.
  bool write(std::string_view data);
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
    bool broken = false;  // the reader was too slow: close without an end
  };
  /// notify: called once whenever something new can be taken after a take() that found nothing more to do.
  void set_notify(std::function<void()> notify);
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
  bool notified_ = false;
  bool has_head_ = false, streamed_ = false, ended_ = false, broken_ = false;
  HttpResponse head_;
  std::string data_;
  std::string log_words_;
  std::atomic<bool> aborted_{false};
};

}  // namespace dspark
