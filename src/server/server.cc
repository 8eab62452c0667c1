#include "server/server.h"

#include <algorithm>
#include <cstdio>
#include <thread>
#include <utility>

#include "server/http_text.h"
#include "server/running_call.h"
#include "server/simulated_users.h"

namespace dspark {
namespace {

// How long cancelled answers get to say so.
constexpr double kLastWordsSeconds = 3.0;
constexpr auto kPoll = std::chrono::milliseconds(10);

HttpResponse response_of(const ApiError& error) {
  HttpResponse response;
  response.status = error.http;
  response.body = error.to_json();
  if (error.retry_after >= 0) response.headers.emplace_back("Retry-After", std::to_string(error.retry_after));
  return response;
}

// What a client sent, as one harmless word. "-": nothing that could be read.
std::string log_word(const std::string& sent, size_t longest) {
  if (sent.empty()) return "-";
  std::string word = sent.substr(0, longest);
  for (char& c : word) {
    if (c <= ' ' || c == '"' || c == '=' || static_cast<unsigned char>(c) > 126) c = '?';
  }
  return word;
}

// What a preflight lets a browser send: the headers that it asks about. SDKs have many of their own, which
// differ from version to version. No list of names, or a very long one: the usual ones.
std::string allowed_headers(std::string_view asked) {
  constexpr std::string_view kUsual =
      "Authorization, Content-Type, X-Api-Key, X-Request-Id, Anthropic-Version, Anthropic-Beta";
  constexpr size_t kMostBytes = 4096;
  const auto in_list = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == ',' || c == ' ';
  };
  const bool is_list =
      !asked.empty() && asked.size() <= kMostBytes && std::all_of(asked.begin(), asked.end(), in_list);
  return std::string(is_list ? asked : kUsual);
}

// The last header with this name: proxies add theirs behind those that came. "" when absent.
std::string_view last_header(const HttpRequest& request, std::string_view name) {
  const auto& headers = request.headers;
  const auto found = std::find_if(headers.rbegin(), headers.rend(),
                                  [&](const auto& header) { return header.first == name; });
  return found == headers.rend() ? std::string_view() : std::string_view(found->second);
}

// The route of a path; a path with another method gives *known.
const Server::Route* find_route(const HttpRequest& request, bool* known) {
  const std::string& method = request.method == "HEAD" ? std::string("GET") : request.method;
  for (const Server::Route& route : Server::routes()) {
    const std::string_view path = route.path;
    const bool prefix = path.ends_with("/*");
    const bool matches = prefix ? std::string_view(request.path).starts_with(path.substr(0, path.size() - 1))
                                : request.path == path;
    if (!matches) continue;
    *known = true;
    if (method == route.method) return &route;
  }
  return nullptr;
}

}  // namespace

std::span<const Server::Route> Server::routes() {
  static constexpr Route kRoutes[] = {
      {"POST", "/v1/chat/completions", &Server::post_chat, true, true},
      {"POST", "/v1/completions", &Server::post_completions, true, true},
      {"POST", "/v1/responses", &Server::post_responses, true, true},
      {"POST", "/v1/messages", &Server::post_messages, true, true},
      {"POST", "/v1/messages/count_tokens", &Server::post_count_tokens, true, false},
      {"POST", "/v1/embeddings", &Server::post_embeddings, true, true},
      {"GET", "/v1/models", &Server::get_models, true, false},
      {"GET", "/v1/models/*", &Server::get_model, true, false},
      {"POST", "/tokenize", &Server::post_tokenize, true, false},
      {"POST", "/detokenize", &Server::post_detokenize, true, false},
      {"GET", "/health", &Server::get_health, false, false},
      {"GET", "/health/ready", &Server::get_health, false, false},
      {"GET", "/health/live", &Server::get_live, false, false},
      {"GET", "/metrics", &Server::get_metrics, false, false},
      {"GET", "/props", &Server::get_props, true, false},
      {"GET", "/slots", &Server::get_slots, true, false},
      {"GET", "/openapi.json", &Server::get_openapi, false, false},
      {"GET", "/", &Server::get_page, false, false},
      {"GET", "/page/*", &Server::get_page, false, false},
      {"PUT", "/dspark/load", &Server::put_load, true, false},
  };
  return kRoutes;
}

Server::Server(ServerOptions options, std::vector<std::unique_ptr<ModelHost>> models)
    : options_(std::move(options)), models_(std::move(models)), limiter_(options_.requests_per_minute) {
  for (const auto& model : models_) users_.push_back(std::make_unique<SimulatedUsers>(*model));
}

Server::~Server() {
  if (http_ != nullptr) http_->stop();
  users_.clear();
  for (const auto& model : models_) model->stop();
}

Status Server::listen() {
  HttpHandlers handlers;
  handlers.on_header = [this](const HttpRequest& request) { return check_header(request); };
  handlers.on_request = [this](const ExchangePtr& exchange) { dispatch(exchange); };
  handlers.on_done = [this](const Exchange& exchange, int status, int64_t bytes, double seconds) {
    log_request(exchange, status, bytes, seconds);
  };
  handlers.common_headers = [this](const HttpRequest& request) { return common_headers(request); };
  handlers.on_signal = [this](int) { shut_down(); };
  handlers.closing = [this] { return n_signals_ > 0; };
  DSPARK_ASSIGN_OR_RETURN(http_, HttpServer::open(options_.http, std::move(handlers)));
  return ok_status();
}

std::string Server::address() const {
  if (!options_.http.unix_path.empty()) return "unix:" + options_.http.unix_path;
  const std::string& host = options_.http.host;
  const bool is_v6 = host.find(':') != std::string::npos;
  return "http://" + (is_v6 ? "[" + host + "]" : host) + ":" + std::to_string(http_->port());
}

int Server::run() {
  for (const auto& model : models_) model->start();
  http_->start();
  while (n_signals_ == 0) {
    n_signals_.wait(0);
  }
  log_event("event=drain seconds=" + std::to_string(static_cast<int>(options_.drain_s)));
  const bool in_order = drain();
  log_event(in_order ? "event=stop" : "event=stop forced=1");
  http_->stop();
  users_.clear();
  for (const auto& model : models_) model->stop();
  return in_order ? 0 : 130;
}

void Server::shut_down() {
  ++n_signals_;
  n_signals_.notify_all();
}

// Waits for what runs, then tells it to end. returns: false when a second signal cut it short.
bool Server::drain() {
  for (const auto& users : users_) users->set(0);
  const auto seconds = [](double s) {
    return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(s));
  };
  const Clock::time_point deadline = Clock::now() + seconds(options_.drain_s);
  const Clock::time_point last = deadline + seconds(kLastWordsSeconds);
  bool cancelled = false;
  while (n_calls() > 0 || http_->n_busy() > 0) {
    if (n_signals_ > 1) return false;
    const Clock::time_point now = Clock::now();
    if (!cancelled && now >= deadline) {
      cancelled = true;
      cancel_calls("the server is shutting down");
    }
    if (now >= last) break;
    std::this_thread::sleep_for(kPoll);
  }
  return true;
}

void Server::cancel_calls(const std::string& message) {
  std::vector<std::weak_ptr<RunningCall>> calls;
  {
    const std::lock_guard lock(calls_mutex_);
    calls = calls_;
  }
  for (const auto& call : calls) {
    if (const auto alive = call.lock()) alive->cancel(message);
  }
}

void Server::add_call(const std::shared_ptr<RunningCall>& call) {
  const std::lock_guard lock(calls_mutex_);
  std::erase_if(calls_, [](const auto& other) { return other.expired(); });
  calls_.push_back(call);
}

int64_t Server::n_calls() {
  const std::lock_guard lock(calls_mutex_);
  std::erase_if(calls_, [](const auto& call) { return call.expired(); });
  return static_cast<int64_t>(calls_.size());
}

std::string Server::client_of(const HttpRequest& request) const {
  if (options_.keys.empty()) {
    return options_.proxies.client_of(request.peer, last_header(request, "x-forwarded-for"));
  }
  const int key = options_.keys.find(key_of(request.header("authorization"), request.header("x-api-key")));
  return key < 0 ? std::string() : "key" + std::to_string(key);
}

std::optional<HttpResponse> Server::check_header(const HttpRequest& request) {
  bool known = false;
  const Route* route = find_route(request, &known);
  if (route == nullptr || request.method == "OPTIONS") return std::nullopt;  // dispatch() answers
  if (route->needs_key && !options_.keys.empty() && client_of(request).empty()) {
    HttpResponse response = response_of(api_error(
        401, {}, "want a valid API key in the header Authorization: Bearer KEY", "invalid_api_key"));
    response.headers.emplace_back("WWW-Authenticate", "Bearer");
    return response;
  }
  if (!route->generates) return std::nullopt;
  if (n_signals_ > 0) {
    ApiError error = api_error(503, {}, "the server is shutting down", "shutting_down");
    error.retry_after = 5;
    return response_of(error);
  }
  if (const int wait_s = limiter_.take(client_of(request)); wait_s > 0) {
    ApiError error =
        api_error(429, {},
                  "too many requests: the limit is " +
                      std::to_string(static_cast<int64_t>(options_.requests_per_minute)) + " a minute",
                  "rate_limit_exceeded");
    error.retry_after = wait_s;
    return response_of(error);
  }
  return std::nullopt;
}

void Server::dispatch(const ExchangePtr& exchange) {
  const HttpRequest& request = exchange->request();
  if (request.method == "OPTIONS") {
    HttpResponse response;
    response.status = 204;
    return exchange->respond(std::move(response));
  }
  bool known = false;
  const Route* route = find_route(request, &known);
  if (route == nullptr) {
    const std::string place = request.method + " " + request.path.substr(0, 128);
    return exchange->fail(known ? api_error(405, {}, place + ": this path wants another method")
                                : api_error(404, {}, place + ": no such path; see /openapi.json"));
  }
  try {
    (this->*route->handle)(exchange);
  } catch (const std::exception& error) {
    // Out of memory, or a mistake here: this request only.
    exchange->fail(api_error(500, {}, std::string("unexpected failure: ") + error.what()));
  }
}

std::string Server::common_headers(const HttpRequest& request) const {
  if (options_.cors_origin.empty()) return {};
  std::string headers = "Access-Control-Allow-Origin: " + options_.cors_origin + "\r\nVary: Origin\r\n";
  if (request.method == "OPTIONS") {
    headers +=
        "Vary: Access-Control-Request-Headers\r\n"
        "Access-Control-Allow-Methods: GET, POST, PUT, OPTIONS\r\n"
        "Access-Control-Allow-Headers: " +
        allowed_headers(request.header("access-control-request-headers")) +
        "\r\n"
        "Access-Control-Max-Age: 86400\r\n";
  }
  return headers + "Access-Control-Expose-Headers: X-Request-Id, Retry-After\r\n";
}

ModelHost* Server::find_model(const std::string& name, ApiError& error) const {
  if (name.empty()) return models_.front().get();
  std::string names;
  for (const auto& model : models_) {
    if (model->name() == name) return model.get();
    names += (names.empty() ? "" : ", ") + model->name();
  }
  error =
      api_error(404, "invalid_request_error",
                "model: want one of " + names + ", found '" + name.substr(0, 128) + "'", "model_not_found");
  error.param = "model";
  return nullptr;
}

void Server::log_request(const Exchange& exchange, int status, int64_t bytes, double seconds) {
  const HttpRequest& request = exchange.request();
  bool known = false;
  const Route* route = find_route(request, &known);
  {
    const std::lock_guard lock(counts_mutex_);
    ++http_counts_[{route != nullptr ? route->path : "other", status}];
  }
  if (!options_.log) return;
  char numbers[96];
  std::snprintf(numbers, sizeof(numbers), " status=%d bytes=%lld seconds=%.4f", status,
                static_cast<long long>(bytes), seconds);
  const std::string client = client_of(request);
  log_event("event=request id=" + exchange.request_id + " client=" + (client.empty() ? "none" : client) +
            " method=" + log_word(request.method, 16) + " path=" + log_word(request.path, 128) + numbers +
            exchange.log_words());
}

void Server::log_event(std::string_view text) {
  if (!options_.log) return;
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
  char stamp[40];
  std::snprintf(stamp, sizeof(stamp), "ts=%lld.%03d ", static_cast<long long>(ms / 1000),
                static_cast<int>(ms % 1000));
  const std::lock_guard lock(log_mutex_);
  options_.log(stamp + std::string(text));
}

}  // namespace dspark
