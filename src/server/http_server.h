#pragma once
// HTTP/1.1 over TCP and unix sockets: reads requests within limits, hands each to a handler as an Exchange,
// writes what comes out of it, and notices clients that hang up. Knows nothing of models.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/status.h"
#include "server/exchange.h"

namespace dspark {

struct HttpOptions {
  std::string host = "127.0.0.1";  // address to listen on
  int port = 8080;                 // 0: any free one
  std::string unix_path;           // not empty: a unix socket instead of host and port
  int io_threads = 1;
  int max_connections = 4096;                 // more are told 503 and closed
  size_t max_header_bytes = size_t{1} << 15;  // else 431
  size_t max_body_bytes = size_t{8} << 20;    // else 413
  size_t max_buffered = size_t{1} << 20;      // of one answer; see Exchange
  double idle_timeout_s = 75;                 // without a request; closed without a word
  double header_timeout_s = 10;               // first byte to end of headers; else 408
  double body_timeout_s = 30;                 // end of headers to end of body; else 408
  double write_timeout_s = 60;                // a client that reads nothing for so long is gone

  /// errors: invalid_argument naming the field.
  Status validate() const;
};

/// What the server calls. All on I/O threads, none may block or throw.
struct HttpHandlers {
  /// Before the body is read: a response refuses the request. May be empty.
  std::function<std::optional<HttpResponse>(const HttpRequest&)> on_header;
  /// Must end the exchange at some time.
  std::function<void(std::shared_ptr<Exchange>)> on_request;
  /// The response was written or the client is gone (status 499). Called for refused requests too; of those
  /// that could not be read the exchange knows what was understood, at least the peer. seconds: since the
  /// request was complete, for a refused one since its first byte.
  std::function<void(const Exchange&, int status, int64_t bytes, double seconds)> on_done;
  /// Headers that every response carries, one "Name: value\r\n" after the other. May be empty.
  std::function<std::string(const HttpRequest&)> common_headers;
  /// SIGINT or SIGTERM came.
  std::function<void(int signal)> on_signal;
  /// Responses tell clients to close their connections.
  std::function<bool()> closing;
};

/// thread: every member from any thread.
class HttpServer {
 public:
  /// Listens; requests are answered once start() is called. errors: invalid_argument naming what cannot be
  /// listened on and why.
  static Result<std::unique_ptr<HttpServer>> open(HttpOptions options, HttpHandlers handlers);
  ~HttpServer();

  void start();
  /// Closes everything and ends the threads.
  void stop();
  /// The port that was taken; 0 for a unix socket.
  int port() const;
  int64_t n_connections() const;
  /// Connections with a request that is not answered in full.
  int64_t n_busy() const;

  struct Impl;  // of http_server.cc

 private:
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace dspark
