#pragma once
// One client of the HTTP server. Private to the room, and beside http_server.cc the only place that knows
// Boost.

#include <atomic>
#include <boost/asio/generic/stream_protocol.hpp>
#include <cstdint>
#include <string>

#include "server/exchange.h"
#include "server/http_server.h"

namespace dspark {

using HttpSocket = boost::asio::generic::stream_protocol::socket;

/// What a server and its connections share.
struct HttpShared {
  const HttpOptions options;
  const HttpHandlers handlers;
  std::atomic<int64_t> n_connections{0};
  std::atomic<int64_t> n_busy{0};
};

/// The status that HttpHandlers::on_done gets when the client went away.
inline constexpr int kClientGone = 499;

/// An answer to what was not handed on: it has an id and is told about like any other.
class Refusal {
 public:
  /// request: as much as is known of it. handlers must outlive this.
  Refusal(const HttpHandlers& handlers, HttpRequest request, const HttpResponse& response);
  /// What to send; the connection ends with it.
  const std::string& bytes() const { return bytes_; }
  /// Calls HttpHandlers::on_done.
  void done(int status, int64_t sent, double seconds) const;

 private:
  const HttpHandlers& handlers_;
  Exchange exchange_;
  std::string bytes_;
};

/// A response that is an error in OpenAI's shape.
HttpResponse error_response(int status, const std::string& message);

/// Answers the requests of one client until it is gone, on the executor of the socket, which is a strand.
/// peer: its address. shared: outlives the connection; counts it from now on.
void start_connection(HttpShared& shared, HttpSocket socket, std::string peer);

}  // namespace dspark
