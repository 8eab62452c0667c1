#include "server/http_server.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <csignal>
#include <thread>
#include <utility>
#include <vector>

#include "base/thread_name.h"
#include "server/http_connection.h"

namespace dspark {

namespace asio = boost::asio;
using boost::system::error_code;

namespace {

// Operations report failures as values.
constexpr auto kAwait = asio::as_tuple(asio::use_awaitable);

// After a failure to accept: others have to leave first.
constexpr auto kAcceptPause = std::chrono::milliseconds(50);

// Most bytes that the kernel keeps of an answer beside those on their way. Else it takes megabytes that no
// option of the server bounds, and a socket that is full of them can be written to only when a third is gone:
// a slow reader would be taken for one that has stopped.
constexpr int kMostUnsent = 1 << 14;

void limit_unsent(int socket) {
#ifdef TCP_NOTSENT_LOWAT
  // Where it does not work, it is not needed for the answers to be right.
  ::setsockopt(socket, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &kMostUnsent, sizeof(kMostUnsent));
#else
  static_cast<void>(socket);
#endif
}

}  // namespace

struct HttpServer::Impl : HttpShared {
  Impl(HttpOptions the_options, HttpHandlers the_handlers)
      : HttpShared{std::move(the_options), std::move(the_handlers)}, signals(io) {}

  Status listen();
  Status listen_tcp();
  Status listen_unix();
  template <typename Acceptor>
  asio::awaitable<void> accept_all(Acceptor& acceptor);
  void wait_signal();

  int port = 0;
  // Ends before what is shared: what connections still run is destroyed with it.
  asio::io_context io;
  asio::signal_set signals;
  std::optional<asio::ip::tcp::acceptor> tcp;
  std::optional<asio::local::stream_protocol::acceptor> local;
  std::vector<std::thread> threads;
};

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
      asio::steady_timer pause(io, kAcceptPause);  // out of file descriptors
      co_await pause.async_wait(kAwait);
      continue;
    }
    std::string peer = "unix";
    if constexpr (std::is_same_v<Acceptor, asio::ip::tcp::acceptor>) {
      accepted.set_option(asio::ip::tcp::no_delay(true), ec);
      limit_unsent(accepted.native_handle());
      const auto endpoint = accepted.remote_endpoint(ec);
      if (!ec) peer = endpoint.address().to_string();
    }
    if (n_connections >= options.max_connections) {
      HttpRequest unread;
      unread.peer = peer;
      HttpResponse full = error_response(503, "too many connections");
      full.headers.emplace_back("Retry-After", "1");
      const Refusal refusal(handlers, std::move(unread), full);
      // Best effort: the socket's own buffer takes it, nobody waits.
      accepted.non_blocking(true, ec);
      const size_t sent = accepted.write_some(asio::buffer(refusal.bytes()), ec);
      refusal.done(ec ? kClientGone : full.status, static_cast<int64_t>(sent), 0.0);
      continue;
    }
    start_connection(*this, HttpSocket(std::move(accepted)), std::move(peer));
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
    impl.threads.emplace_back([&impl] {
      name_this_thread("dspark-http");
      impl.io.run();
    });
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
