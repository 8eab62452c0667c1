#include "server/http_connection.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <utility>

#include "server/http_text.h"

namespace dspark {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::system::error_code;
using Clock = std::chrono::steady_clock;
using Parser = http::request_parser<http::string_body>;

namespace {

// Operations report failures as values: a client that goes away is no exception.
constexpr auto kAwait = asio::as_tuple(asio::use_awaitable);

// Bytes of later requests that are taken in while one is being answered.
constexpr size_t kMaxPipelined = size_t{1} << 14;
constexpr size_t kReadBytes = 4096;
// How long a refused client may go on sending.
constexpr double kLingerSeconds = 2.0;

Clock::duration span(double seconds) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

HttpRequest head_of(const Parser& parser, const std::string& peer) {
  const auto& message = parser.get();
  HttpRequest request;
  request.method = std::string(message.method_string());
  const std::string_view target(message.target().data(), message.target().size());
  const size_t mark = target.find('?');
  request.path = std::string(target.substr(0, mark));
  if (mark != std::string_view::npos) request.query = std::string(target.substr(mark + 1));
  for (const auto& field : message) {
    request.headers.emplace_back(to_lower({field.name_string().data(), field.name_string().size()}),
                                 std::string(field.value()));
  }
  request.peer = peer;
  return request;
}

// The headers that every response carries, that of the request's id first.
std::string common_of(const HttpHandlers& handlers, const Exchange& exchange) {
  std::string common = "X-Request-Id: " + exchange.request_id + "\r\n";
  if (handlers.common_headers) common += handlers.common_headers(exchange.request());
  return common;
}

// One client. Everything runs on the strand of its socket.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(HttpShared& server, HttpSocket socket, std::string peer)
      : server_(server),
        socket_(std::move(socket)),
        timer_(socket_.get_executor()),
        wake_timer_(socket_.get_executor(), Clock::time_point::max()),
        buffer_(server_.options.max_header_bytes + kMaxPipelined),
        peer_(std::move(peer)) {
    ++server_.n_connections;
  }
  ~Connection() { --server_.n_connections; }

  asio::awaitable<void> run();
  HttpSocket::executor_type executor() { return socket_.get_executor(); }

 private:
  asio::awaitable<bool> read_request(HttpRequest& request);
  asio::awaitable<bool> read_header(Parser& parser);
  asio::awaitable<bool> answer(HttpRequest request);
  asio::awaitable<bool> refuse(HttpRequest request, HttpResponse response);
  asio::awaitable<bool> refuse_bad_request(HttpRequest request, error_code ec);
  asio::awaitable<bool> send(std::string_view bytes);
  asio::awaitable<bool> send_exchange(Exchange& exchange, const std::string& common);
  asio::awaitable<void> stop_watching();
  asio::awaitable<void> wait_wake();
  bool append(std::string& out, const Exchange::Taken& taken, const std::string& common);
  void watch();
  void wake();
  void arm(double seconds);
  void disarm();

  HttpShared& server_;  // outlives its connections
  HttpSocket socket_;
  asio::steady_timer timer_;       // of the operation in hand
  asio::steady_timer wake_timer_;  // never expires; cancelled to wake the coroutine
  asio::cancellation_signal stop_watch_;
  beast::flat_buffer buffer_;
  const std::string peer_;
  std::shared_ptr<Exchange> exchange_;
  Clock::time_point request_start_;  // first byte of the request in hand
  uint64_t arm_count_ = 0;
  int64_t sent_ = 0;
  int status_ = 0;
  bool timed_out_ = false;
  bool woken_ = false;
  bool watching_ = false;
  bool ended_ = false;  // the client sends nothing more
  bool gone_ = false;   // nor does it read
  bool keep_alive_ = true;
  bool http_1_0_ = false;
};

}  // namespace

HttpResponse error_response(int status, const std::string& message) {
  HttpResponse response;
  response.status = status;
  response.body = api_error(status, {}, message).to_json();
  return response;
}

Refusal::Refusal(const HttpHandlers& handlers, HttpRequest request, const HttpResponse& response)
    : handlers_(handlers), exchange_(std::move(request), 0) {
  exchange_.request_id = make_request_id(exchange_.request().header("x-request-id"));
  bytes_ = response_head(response, {.close = true, .common = common_of(handlers, exchange_)});
  if (exchange_.request().method != "HEAD") bytes_ += response.body;
}

void Refusal::done(int status, int64_t sent, double seconds) const {
  if (handlers_.on_done) handlers_.on_done(exchange_, status, sent, seconds);
}

void Connection::arm(double seconds) {
  timed_out_ = false;
  const uint64_t count = ++arm_count_;
  timer_.expires_after(span(seconds));
  timer_.async_wait([self = shared_from_this(), count](error_code ec) {
    // The operation may have ended while this handler was on its way.
    if (ec || count != self->arm_count_) return;
    self->timed_out_ = true;
    error_code ignored;
    self->socket_.cancel(ignored);
  });
}

void Connection::disarm() {
  ++arm_count_;
  timer_.cancel();
}

void Connection::wake() {
  woken_ = true;
  wake_timer_.cancel();
}

asio::awaitable<void> Connection::wait_wake() {
  if (!woken_) co_await wake_timer_.async_wait(kAwait);
  woken_ = false;
}

// Reads while an answer is being made: the end of the stream means that the client hung up.
void Connection::watch() {
  if (ended_ || buffer_.size() >= kMaxPipelined) return;
  watching_ = true;
  socket_.async_read_some(
      buffer_.prepare(kReadBytes),
      asio::bind_cancellation_slot(stop_watch_.slot(), [self = shared_from_this()](error_code ec, size_t n) {
        self->watching_ = false;
        self->buffer_.commit(n);
        if (ec && ec != asio::error::operation_aborted) {
          // A client that has closed its side for writing only still gets what is answered at once.
          self->ended_ = true;
          self->gone_ = ec != asio::error::eof;
          if (self->exchange_ != nullptr) self->exchange_->hang_up();
        }
        if (!ec && self->exchange_ != nullptr && !self->exchange_->ended()) self->watch();
        self->wake();
      }));
}

asio::awaitable<void> Connection::stop_watching() {
  while (watching_) {
    stop_watch_.emit(asio::cancellation_type::terminal);
    if (watching_) co_await wait_wake();
  }
}

// The time runs anew with every piece that the client takes.
asio::awaitable<bool> Connection::send(std::string_view bytes) {
  while (!bytes.empty()) {
    arm(server_.options.write_timeout_s);
    const auto [ec, n] = co_await socket_.async_write_some(asio::buffer(bytes.data(), bytes.size()), kAwait);
    disarm();
    sent_ += static_cast<int64_t>(n);
    if (ec) co_return false;
    bytes.remove_prefix(n);
  }
  co_return true;
}

// Answers a request that is not handed on, with what is known of it, and ends the connection.
asio::awaitable<bool> Connection::refuse(HttpRequest request, HttpResponse response) {
  const Refusal refusal(server_.handlers, std::move(request), response);
  keep_alive_ = false;
  sent_ = 0;
  const bool whole = co_await send(refusal.bytes());
  refusal.done(whole ? response.status : kClientGone, sent_, seconds_since(request_start_));
  if (!whole) co_return false;
  // What the client still sends is read for a moment: a reset would take the answer away from it.
  error_code ignored;
  socket_.shutdown(HttpSocket::shutdown_send, ignored);
  arm(kLingerSeconds);
  for (size_t left = 4 * server_.options.max_body_bytes; left > 0;) {
    buffer_.clear();
    const auto [ec, n] = co_await socket_.async_read_some(buffer_.prepare(kMaxPipelined), kAwait);
    if (ec) break;
    left -= std::min(left, n);
  }
  disarm();
  co_return false;
}

asio::awaitable<bool> Connection::refuse_bad_request(HttpRequest request, error_code ec) {
  HttpResponse response;
  if (timed_out_) {
    response = error_response(408, "the request was not complete in time");
    response.headers.emplace_back("Retry-After", "1");
  } else if (ec == http::error::header_limit || ec == http::error::buffer_overflow) {
    response = error_response(431, "the request's headers are too large");
  } else if (ec == http::error::body_limit) {
    response = error_response(
        413, "the body is larger than " + std::to_string(server_.options.max_body_bytes) + " bytes");
  } else if (ec.category() == make_error_code(http::error::bad_method).category() &&
             ec != http::error::end_of_stream) {
    response = error_response(400, "not an HTTP request: " + ec.message());
  } else {
    co_return false;  // nobody is there to be told
  }
  co_return co_await refuse(std::move(request), std::move(response));
}

asio::awaitable<bool> Connection::read_header(Parser& parser) {
  if (buffer_.size() == 0) {
    buffer_.shrink_to_fit();
    arm(server_.options.idle_timeout_s);
    const auto [ec, n] = co_await socket_.async_read_some(buffer_.prepare(kReadBytes), kAwait);
    disarm();
    buffer_.commit(n);
    if (ec) co_return false;
  }
  ++server_.n_busy;
  request_start_ = Clock::now();
  arm(server_.options.header_timeout_s);
  const auto [ec, n] = co_await http::async_read_header(socket_, buffer_, parser, kAwait);
  disarm();
  if (!ec) co_return true;
  co_await refuse_bad_request(head_of(parser, peer_), ec);
  --server_.n_busy;
  co_return false;
}

// returns: false when the connection is to be closed. Counts the connection as busy when true.
asio::awaitable<bool> Connection::read_request(HttpRequest& request) {
  Parser parser;
  parser.header_limit(static_cast<uint32_t>(server_.options.max_header_bytes));
  parser.body_limit(server_.options.max_body_bytes);
  if (!co_await read_header(parser)) co_return false;
  request = head_of(parser, peer_);
  keep_alive_ = parser.get().keep_alive();
  http_1_0_ = parser.get().version() < 11;
  std::optional<HttpResponse> refusal;
  // The parser takes the length of such a body for 0, and then the body for the next request.
  const bool is_readable = std::ranges::all_of(request.headers, [](const auto& field) {
    return to_lower(field.first) != "transfer-encoding" || to_lower(field.second) == "chunked";
  });
  if (!is_readable) {
    refusal = error_response(400, "Transfer-Encoding: only 'chunked' is understood");
  } else if (server_.handlers.on_header) {
    refusal = server_.handlers.on_header(request);
  }
  if (refusal) {
    co_await refuse(std::move(request), std::move(*refusal));
    --server_.n_busy;
    co_return false;
  }
  if (!parser.is_done()) {
    bool ok = true;
    if (to_lower(request.header("expect")) == "100-continue") {
      ok = co_await send("HTTP/1.1 100 Continue\r\n\r\n");
    }
    error_code failure;
    if (ok) {
      arm(server_.options.body_timeout_s);
      const auto [ec, n] = co_await http::async_read(socket_, buffer_, parser, kAwait);
      disarm();
      failure = ec;
      if (ec) co_await refuse_bad_request(std::move(request), ec);
    }
    if (!ok || failure) {
      --server_.n_busy;
      co_return false;
    }
  }
  request.body = std::move(parser.get().body());
  co_return true;
}

// Adds what was taken to `out`. returns: false when the response is not to be completed.
bool Connection::append(std::string& out, const Exchange::Taken& taken, const std::string& common) {
  if (taken.has_head) {
    status_ = taken.head.status;
    ResponseFraming framing;
    framing.streamed = taken.streamed;
    framing.chunked = taken.streamed && !http_1_0_;
    if (taken.streamed && http_1_0_) keep_alive_ = false;
    if (server_.handlers.closing && server_.handlers.closing()) keep_alive_ = false;
    framing.close = !keep_alive_;
    framing.common = common;
    out += response_head(taken.head, framing);
    const bool no_body = exchange_->request().method == "HEAD" || taken.head.status == 204;
    if (!taken.streamed && !no_body) out += taken.head.body;
  }
  if (!taken.streamed) return true;
  append_chunk(out, taken.data, !http_1_0_);
  if (taken.done && !taken.broken && !http_1_0_) out += "0\r\n\r\n";
  return !taken.broken;
}

asio::awaitable<bool> Connection::send_exchange(Exchange& exchange, const std::string& common) {
  std::string out;
  for (;;) {
    Exchange::Taken taken = exchange.take();
    const bool is_new = taken.has_head || !taken.data.empty();
    out.clear();
    const bool whole = append(out, taken, common);
    taken.data = std::string();  // not kept twice while it is sent
    if (!out.empty() && !co_await send(out)) co_return false;
    if (!whole || gone_) co_return false;
    if (taken.done) co_return true;
    // take() and a wake-up for something new are in order: the flag is set on this strand.
    if (!is_new) co_await wait_wake();
  }
}

// returns: whether the connection can take another request.
asio::awaitable<bool> Connection::answer(HttpRequest request) {
  const Clock::time_point start = Clock::now();
  const HttpHandlers& handlers = server_.handlers;
  exchange_ = std::make_shared<Exchange>(std::move(request), server_.options.max_buffered);
  exchange_->request_id = make_request_id(exchange_->request().header("x-request-id"));
  const std::string common = common_of(handlers, *exchange_);
  sent_ = 0;
  status_ = 0;
  // Weak: the exchange outlives the connection in the engine's hands.
  exchange_->set_notify([weak = weak_from_this(), executor = socket_.get_executor()] {
    asio::post(executor, [weak] {
      if (const auto self = weak.lock()) self->wake();
    });
  });
  watch();
  handlers.on_request(exchange_);
  const bool whole = co_await send_exchange(*exchange_, common);
  if (!whole) exchange_->hang_up();
  if (handlers.on_done) {
    handlers.on_done(*exchange_, whole && !exchange_->aborted() ? status_ : kClientGone, sent_,
                     seconds_since(start));
  }
  co_await stop_watching();
  exchange_.reset();
  --server_.n_busy;
  co_return whole&& keep_alive_ && !gone_ && (!ended_ || buffer_.size() > 0);
}

asio::awaitable<void> Connection::run() {
  const auto self = shared_from_this();
  bool open = true;
  while (open) {
    HttpRequest request;
    open = co_await read_request(request);
    if (open) open = co_await answer(std::move(request));
  }
  error_code ignored;
  socket_.shutdown(HttpSocket::shutdown_both, ignored);
  socket_.close(ignored);
}

void start_connection(HttpShared& shared, HttpSocket socket, std::string peer) {
  auto connection = std::make_shared<Connection>(shared, std::move(socket), std::move(peer));
  const auto executor = connection->executor();
  asio::co_spawn(
      executor, [connection] { return connection->run(); }, asio::detached);
}

}  // namespace dspark
