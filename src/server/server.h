#pragma once
// The server: routes, who may use them, what is running, how it ends.

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "server/access.h"
#include "server/http_server.h"
#include "server/model_host.h"

namespace dspark {

class RunningCall;     // server/running_call.h
class SimulatedUsers;  // server/simulated_users.h

struct ServerOptions {
  HttpOptions http;
  ApiKeys keys;                    // empty: nobody needs one
  TrustedProxies proxies;          // whose X-Forwarded-For names the client
  double requests_per_minute = 0;  // per key, or per address without keys; 0: any number
  double queue_timeout_s = 0;      // longest wait for a start; 0: any
  std::string cors_origin;         // value of Access-Control-Allow-Origin; empty: no CORS headers
  double drain_s = 30;             // longest time for running answers after the first signal
  SamplingDefaults sampling;       // for fields that a request leaves out
  std::string version;
  bool page = true;             // serve the page at /
  bool simulated_load = false;  // PUT /dspark/load starts simulated users
  /// One line per finished request and per event, without a line end. thread: any, one call at a time.
  std::function<void(std::string_view line)> log;
};

/// thread: run() once, on one thread; everything else any.
class Server {
 public:
  /// One route, for tests of the documentation and the method check.
  struct Route {
    const char* method;
    const char* path;
    void (Server::*handle)(const std::shared_ptr<Exchange>&);
    bool needs_key;
    bool generates;  // refused while the server drains, counted by the rate limit
  };
  static std::span<const Route> routes();

  Server(ServerOptions options, std::vector<std::unique_ptr<ModelHost>> models);
  ~Server();

  /// Opens the address. errors: those of HttpServer::open.
  Status listen();
  /// "http://127.0.0.1:8080" or "unix:PATH". requires: listen().
  std::string address() const;
  /// Answers until a signal ends it. returns: exit status: 0 after a shutdown in order, 130 after a second
  /// signal.
  int run();
  /// As a signal would: the first call drains, the second ends at once.
  void shut_down();

 private:
  using ExchangePtr = std::shared_ptr<Exchange>;
  using Clock = std::chrono::steady_clock;

  // server.cc
  std::optional<HttpResponse> check_header(const HttpRequest& request);
  void dispatch(const ExchangePtr& exchange);
  std::string common_headers(const HttpRequest& request) const;
  void log_request(const Exchange& exchange, int status, int64_t bytes, double seconds);
  void log_event(std::string_view text);
  std::string client_of(const HttpRequest& request) const;
  ModelHost* find_model(const std::string& name, ApiError& error) const;
  void add_call(const std::shared_ptr<RunningCall>& call);
  void cancel_calls(const std::string& message);
  int64_t n_calls();
  bool drain();

  // routes_generate.cc
  void complete(const ExchangePtr& exchange, ApiKind kind);
  void post_chat(const ExchangePtr& exchange);
  void post_completions(const ExchangePtr& exchange);
  void post_responses(const ExchangePtr& exchange);
  void post_messages(const ExchangePtr& exchange);
  void post_count_tokens(const ExchangePtr& exchange);
  void start_call(const ExchangePtr& exchange, CompletionRequest request);

  // routes_text.cc
  void post_embeddings(const ExchangePtr& exchange);
  void post_tokenize(const ExchangePtr& exchange);
  void post_detokenize(const ExchangePtr& exchange);

  // routes_state.cc
  void get_models(const ExchangePtr& exchange);
  void get_model(const ExchangePtr& exchange);
  void get_health(const ExchangePtr& exchange);
  void get_live(const ExchangePtr& exchange);
  void get_metrics(const ExchangePtr& exchange);
  void get_props(const ExchangePtr& exchange);
  void get_slots(const ExchangePtr& exchange);
  void get_openapi(const ExchangePtr& exchange);
  void get_page(const ExchangePtr& exchange);
  void put_load(const ExchangePtr& exchange);

  const ServerOptions options_;
  /// Ends after the models: requests in their engines still know connections.
  std::unique_ptr<HttpServer> http_;
  const std::vector<std::unique_ptr<ModelHost>> models_;
  RateLimiter limiter_;
  std::vector<std::unique_ptr<SimulatedUsers>> users_;  // one per model
  std::atomic<int> n_signals_{0};

  std::mutex calls_mutex_;
  std::vector<std::weak_ptr<RunningCall>> calls_;
  std::mutex log_mutex_;
  std::mutex counts_mutex_;
  std::map<std::pair<std::string, int>, int64_t> http_counts_;  // (path, status)
};

}  // namespace dspark
