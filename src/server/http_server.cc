#include "server/http_server.h"

#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <chrono>
#include <csignal>
#include <thread>
#include <utility>
#include <vector>

#include "server/http_text.h"

namespace dspark {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::system::error_code;
using Clock = std::chrono::steady_clock;
using Socket = asio::generic::stream_protocol::socket;
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

HttpResponse error_response(int status, const std::string& message) {
  HttpResponse response;
  response.status = status;
  response.body = api_error(status, {}, message).to_json();
  return response;
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

}  // namespace

struct HttpServer::Impl {
  Impl(HttpOptions the_options, HttpHandlers the_handlers)
      : options(std::move(the_options)), handlers(std::move(the_handlers)), signals(io) {}

  Status listen();
  Status listen_tcp();
  Status listen_unix();
  template <typename Acceptor>
  asio::awaitable<void> accept_all(Acceptor& acceptor);
  void wait_signal();

  const HttpOptions options;
  const HttpHandlers handlers;
  std::atomic<int64_t> n_connections{0};
  std::atomic<int64_t> n_busy{0};
  int port = 0;
  // Ends before everything above: what connections still run is destroyed with it.
  asio::io_context io;
  asio::signal_set signals;
  std::optional<asio::ip::tcp::acceptor> tcp;
  std::optional<asio::local::stream_protocol::acceptor> local;
  std::vector<std::thread> threads;
};

// One client. Everything runs on the strand of its socket.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(HttpServer::Impl& server, Socket socket, std::string peer)
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
  Socket::executor_type executor() { return socket_.get_executor(); }

 private:
  asio::awaitable<bool> read_request(HttpRequest& request);
  asio::awaitable<bool> read_header(Parser& parser);
  asio::awaitable<bool> answer(HttpRequest request);
  asio::awaitable<bool> refuse(HttpResponse response);
  asio::awaitable<bool> refuse_bad_header(error_code ec);
  asio::awaitable<bool> send(std::string_view bytes);
  asio::awaitable<bool> send_exchange(Exchange& exchange, const std::string& common);
  asio::awaitable<void> stop_watching();
  asio::awaitable<void> wait_wake();
  bool append(std::string& out, const Exchange::Taken& taken, const std::string& common);
  void watch();
  void wake();
  void arm(double seconds);
  void disarm();

  HttpServer::Impl& server_;  // outlives its connections
  Socket socket_;
  asio::steady_timer timer_;       // of the operation in hand
  asio::steady_timer wake_timer_;  // never expires; cancelled to wake the coroutine
  asio::cancellation_signal stop_watch_;
  beast::flat_buffer buffer_;
  const std::string peer_;
  std::shared_ptr<Exchange> exchange_;
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

asio::awaitable<bool> Connection::send(std::string_view bytes) {
  arm(server_.options.write_timeout_s);
  const auto [ec, n] = co_await asio::async_write(socket_, asio::buffer(bytes.data(), bytes.size()), kAwait);
  disarm();
  sent_ += static_cast<int64_t>(n);
  co_return !ec;
}

asio::awaitable<bool> Connection::refuse(HttpResponse response) {
  HttpRequest unread;
  const std::string common = server_.handlers.common_headers ? server_.handlers.common_headers(unread) : "";
  keep_alive_ = false;
  const std::string bytes = response_head(response, {.close = true, .common = common}) + response.body;
  if (!co_await send(bytes)) co_return false;
  // What the client still sends is read for a moment: a reset would take the answer away from it.
  error_code ignored;
  socket_.shutdown(Socket::shutdown_send, ignored);
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

asio::awaitable<bool> Connection::refuse_bad_header(error_code ec) {
  if (timed_out_) {
    co_return co_await refuse(error_response(408, "the request was not complete in time"));
  }
  if (ec == http::error::header_limit || ec == http::error::buffer_overflow) {
    co_return co_await refuse(error_response(431, "the request's headers are too large"));
  }
  if (ec == http::error::body_limit) {
    co_return co_await refuse(error_response(
        413, "the body is larger than " + std::to_string(server_.options.max_body_bytes) + " bytes"));
  }
  const bool malformed = ec.category() == make_error_code(http::error::bad_method).category() &&
                         ec != http::error::end_of_stream;
  if (malformed) co_return co_await refuse(error_response(400, "not an HTTP request: " + ec.message()));
  co_return false;
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
  arm(server_.options.header_timeout_s);
  const auto [ec, n] = co_await http::async_read_header(socket_, buffer_, parser, kAwait);
  disarm();
  if (!ec) co_return true;
  co_await refuse_bad_header(ec);
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
  if (server_.handlers.on_header) refusal = server_.handlers.on_header(request);
  if (refusal) {
    co_await refuse(std::move(*refusal));
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
      if (ec) co_await refuse_bad_header(ec);
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
    const Exchange::Taken taken = exchange.take();
    out.clear();
    const bool whole = append(out, taken, common);
    if (!out.empty() && !co_await send(out)) co_return false;
    if (!whole || gone_) co_return false;
    if (taken.done) co_return true;
    // take() and a wake-up for something new are in order: the flag is set on this strand.
    if (!taken.has_head && taken.data.empty()) co_await wait_wake();
  }
}

// returns: whether the connection can take another request.
asio::awaitable<bool> Connection::answer(HttpRequest request) {
  const Clock::time_point start = Clock::now();
  const HttpHandlers& handlers = server_.handlers;
  exchange_ = std::make_shared<Exchange>(std::move(request), server_.options.max_buffered);
  exchange_->request_id = make_request_id(exchange_->request().header("x-request-id"));
  std::string common = "X-Request-Id: " + exchange_->request_id + "\r\n";
  if (handlers.common_headers) common += handlers.common_headers(exchange_->request());
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
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    handlers.on_done(*exchange_, whole && !exchange_->aborted() ? status_ : 499, sent_, seconds);
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
  socket_.shutdown(Socket::shutdown_both, ignored);
  socket_.close(ignored);
}

Status HttpServer::Impl::listen_tcp() {
  const std::string place = options.host + " port " + std::to_string(options.port);
  error_code ec;
  asio::ip::tcp::resolver resolver(io);
  const auto found = resolver.resolve(options.host, std::to_string(options.port), ec);
  if (ec || found.empty())
    return invalid_argument("--host, --port: cannot listen on " + place + ": " + ec.message());
  const asio::ip::tcp::endpoint endpoint = found.begin()->endpoint();
  tcp.emplace(io);
  tcp->open(endpoint.protocol(), ec);
  if (!ec) tcp->set_option(asio::socket_base::reuse_address(true), ec);
  if (!ec) tcp->bind(endpoint, ec);
  if (!ec) tcp->listen(asio::socket_base::max_listen_connections, ec);
  if (ec) return invalid_argument("--host, --port: cannot listen on " + place + ": " + ec.message());
  port = tcp->local_endpoint(ec).port();
  return ok_status();
}

Status HttpServer::Impl::listen_unix() {
  const std::string& path = options.unix_path;
  // A socket that a dead server left behind is in the way; another kind of file is not ours to remove.
  struct stat info {};
  if (::stat(path.c_str(), &info) == 0 && S_ISSOCK(info.st_mode)) {
    error_code refused;
    asio::local::stream_protocol::socket probe(io);
    probe.connect(path, refused);
    if (!refused) return invalid_argument("cannot listen on " + path + ": another server does");
    ::unlink(path.c_str());
  }
  error_code ec;
  local.emplace(io);
  local->open(asio::local::stream_protocol(), ec);
  if (!ec) local->bind(path, ec);
  if (!ec) local->listen(asio::socket_base::max_listen_connections, ec);
  return ec ? invalid_argument("cannot listen on " + path + ": " + ec.message()) : ok_status();
}

Status HttpServer::Impl::listen() {
  try {
    return options.unix_path.empty() ? listen_tcp() : listen_unix();
  } catch (const std::exception& error) {  // e.g. a path too long for a socket address
    return invalid_argument("cannot listen: " + std::string(error.what()));
  }
}

template <typename Acceptor>
asio::awaitable<void> HttpServer::Impl::accept_all(Acceptor& acceptor) {
  for (;;) {
    auto [ec, accepted] = co_await acceptor.async_accept(asio::make_strand(io), kAwait);
    if (ec == asio::error::operation_aborted || ec == asio::error::bad_descriptor) co_return;
    if (ec) {
      // Out of file descriptors: others have to leave first.
      asio::steady_timer pause(io, span(0.05));
      co_await pause.async_wait(kAwait);
      continue;
    }
    if (n_connections >= options.max_connections) {
      // Best effort: the socket's own buffer takes it, nobody waits.
      const HttpResponse full = error_response(503, "too many connections");
      const std::string bytes =
          response_head(full, {.close = true, .common = "Retry-After: 1\r\n"}) + full.body;
      accepted.non_blocking(true, ec);
      accepted.write_some(asio::buffer(bytes), ec);
      continue;
    }
    std::string peer = "unix";
    if constexpr (std::is_same_v<Acceptor, asio::ip::tcp::acceptor>) {
      accepted.set_option(asio::ip::tcp::no_delay(true), ec);
      const auto endpoint = accepted.remote_endpoint(ec);
      if (!ec) peer = endpoint.address().to_string();
    }
    auto connection = std::make_shared<Connection>(*this, Socket(std::move(accepted)), std::move(peer));
    const auto executor = connection->executor();
    asio::co_spawn(
        executor, [connection] { return connection->run(); }, asio::detached);
  }
}

void HttpServer::Impl::wait_signal() {
  signals.async_wait([this](error_code ec, int signal) {
    if (ec) return;
    if (handlers.on_signal) handlers.on_signal(signal);
    wait_signal();
  });
}

Status HttpOptions::validate() const {
  if (port < 0 || port > 65535)
    return invalid_argument("port: want 0 to 65535, found " + std::to_string(port));
  if (io_threads < 1 || io_threads > 64) {
    return invalid_argument("io_threads: want 1 to 64, found " + std::to_string(io_threads));
  }
  if (max_connections < 1) return invalid_argument("max_connections: want at least 1");
  if (max_body_bytes < 1024) return invalid_argument("max_body_bytes: want at least 1024");
  for (const double seconds : {idle_timeout_s, header_timeout_s, body_timeout_s, write_timeout_s}) {
    if (!(seconds > 0.0 && seconds <= 86400.0)) return invalid_argument("timeouts: want 0 to 86400 seconds");
  }
  return ok_status();
}

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

HttpServer::~HttpServer() {
  stop();
}

Result<std::unique_ptr<HttpServer>> HttpServer::open(HttpOptions options, HttpHandlers handlers) {
  DSPARK_RETURN_IF_ERROR(options.validate());
  auto impl = std::make_unique<Impl>(std::move(options), std::move(handlers));
  DSPARK_RETURN_IF_ERROR(impl->listen());
  if (impl->handlers.on_signal) {
    // From here on: whoever is told the address may send a signal. It is kept until start().
    error_code ignored;
    impl->signals.add(SIGINT, ignored);
    impl->signals.add(SIGTERM, ignored);
  }
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

void HttpServer::start() {
  Impl& impl = *impl_;
  if (impl.handlers.on_signal) impl.wait_signal();
  // The acceptors are members: they live as long as the coroutine.
  if (impl.tcp) asio::co_spawn(impl.io, impl.accept_all(*impl.tcp), asio::detached);
  if (impl.local) asio::co_spawn(impl.io, impl.accept_all(*impl.local), asio::detached);
  for (int i = 0; i < impl.options.io_threads; ++i) {
    impl.threads.emplace_back([&impl] { impl.io.run(); });
  }
}

void HttpServer::stop() {
  Impl& impl = *impl_;
  impl.io.stop();
  for (std::thread& thread : impl.threads) thread.join();
  impl.threads.clear();
  error_code ignored;
  if (impl.tcp) impl.tcp->close(ignored);
  if (impl.local) {
    impl.local->close(ignored);
    ::unlink(impl.options.unix_path.c_str());
    impl.local.reset();
  }
}

int HttpServer::port() const {
  return impl_->port;
}

int64_t HttpServer::n_connections() const {
  return impl_->n_connections;
}

int64_t HttpServer::n_busy() const {
  return impl_->n_busy;
}

}  // namespace dspark
