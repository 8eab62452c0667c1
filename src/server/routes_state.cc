// Routes about the server itself.

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "server/http_text.h"
#include "server/json_fields.h"
#include "server/running_call.h"
#include "server/server.h"
#include "server/simulated_users.h"
#include "server/static_files.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace dspark {
namespace {

using Json = nlohmann::ordered_json;

HttpResponse json_response(const Json& json) {
  HttpResponse response;
  response.body = json.dump(-1, ' ', false, Json::error_handler_t::replace);
  return response;
}

Json usage_json(const UsageCounts& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"drafted", usage.drafted},
          {"verified", usage.verified},
          {"trimmed", usage.trimmed},
          {"accepted", usage.accepted},
          {"rounds", usage.rounds}};
}

Json model_json(const ModelHost& model) {
  const EngineOptions& options = model.options();
  Json drafter = nullptr;
  if (!model.drafter().empty()) drafter = {{"kind", model.drafter()}};
  const ChatTemplate* chat = model.loaded().chat_template.get();
  return {{"model", model.name()},
          {"arch", model.loaded().model->config().arch},
          {"drafter", std::move(drafter)},
          {"drafter_error", model.drafter_error().empty() ? Json(nullptr) : Json(model.drafter_error())},
          {"policy", options.policy.to_string()},
          {"accept", std::string(accept_rule_name(options.accept_rule))},
          {"n_ctx", model.context_length()},
          {"total_slots", options.max_sequences},
          {"max_waiting", options.max_waiting},
          {"n_vocab", model.loaded().model->config().vocab_size},
          {"tool_format", tool_format_name(model.output_format().tools)},
          {"has_reasoning", model.output_format().has_reasoning},
          {"chat_template", chat != nullptr ? Json(chat->source()) : Json(nullptr)}};
}

// A model as OpenAI's API lists it.
Json card_of(const ModelHost& model) {
  return {{"id", model.name()},
          {"object", "model"},
          {"created", model.created()},
          {"owned_by", "dspark"},
          {"max_model_len", model.context_length()}};
}

}  // namespace

void Server::get_models(const ExchangePtr& exchange) {
  Json data = Json::array();
  for (const auto& model : models_) data.push_back(card_of(*model));
  exchange->respond(json_response({{"object", "list"}, {"data", std::move(data)}}));
}

void Server::get_model(const ExchangePtr& exchange) {
  constexpr std::string_view kPrefix = "/v1/models/";
  const std::string name = path_decoded(std::string_view(exchange->request().path).substr(kPrefix.size()));
  if (name.empty()) return get_models(exchange);
  ApiError error;
  const ModelHost* model = find_model(name, error);
  if (model == nullptr) return exchange->fail(error);
  exchange->respond(json_response(card_of(*model)));
}

void Server::get_health(const ExchangePtr& exchange) {
  if (n_signals_ == 0) return exchange->respond(json_response({{"status", "ok"}}));
  ApiError error = api_error(503, {}, "the server is shutting down", "shutting_down");
  error.retry_after = 5;
  exchange->fail(error);
}

void Server::get_live(const ExchangePtr& exchange) {
  exchange->respond(json_response({{"status", "ok"}}));
}

void Server::get_metrics(const ExchangePtr& exchange) {
  PrometheusText text;
  for (const auto& model : models_)
    add_model_metrics(text, model->name(), model->snapshot(), model->metrics().snapshot());
  text.add("dspark_http_connections", "gauge", "Open connections.", {},
           static_cast<double>(http_->n_connections()));
  text.add("dspark_http_busy_connections", "gauge", "Connections with a request in hand.", {},
           static_cast<double>(http_->n_busy()));
  {
    const std::lock_guard lock(counts_mutex_);
    for (const auto& [key, count] : http_counts_) {
      text.add("dspark_http_requests_total", "counter", "Answered requests.",
               {{"handler", key.first}, {"status", std::to_string(key.second)}}, static_cast<double>(count));
    }
  }
  HttpResponse response;
  response.content_type = "text/plain; version=0.0.4; charset=utf-8";
  response.body = text.text();
  exchange->respond(std::move(response));
}

void Server::get_props(const ExchangePtr& exchange) {
  ApiError error;
  const ModelHost* model = find_model(query_value(exchange->request().query, "model"), error);
  if (model == nullptr) return exchange->fail(error);
  Json json = model_json(*model);
  json["version"] = options_.version;
  json["default_generation_settings"] = {{"temperature", options_.sampling.temperature},
                                         {"top_k", options_.sampling.top_k},
                                         {"top_p", options_.sampling.top_p},
                                         {"min_p", options_.sampling.min_p}};
  Json names = Json::array();
  for (const auto& other : models_) names.push_back(other->name());
  json["models"] = std::move(names);
  exchange->respond(json_response(json));
}

void Server::get_slots(const ExchangePtr& exchange) {
  std::vector<std::shared_ptr<RunningCall>> calls;
  {
    const std::lock_guard lock(calls_mutex_);
    for (const auto& call : calls_) {
      if (auto alive = call.lock()) calls.push_back(std::move(alive));
    }
  }
  Json list = Json::array();
  for (const auto& call : calls) {
    const RunningCall::View view = call->view();
    list.push_back({{"request_id", view.request_id},
                    {"model", view.model},
                    {"choices", view.n_choices},
                    {"choices_done", view.n_done},
                    {"stream", view.streamed},
                    {"age_s", view.age_s},
                    {"usage", usage_json(view.usage)}});
  }
  exchange->respond(json_response(list));
}

void Server::get_openapi(const ExchangePtr& exchange) {
  HttpResponse response;
  response.body = std::string(find_static_file("openapi.json")->content);
  exchange->respond(std::move(response));
}

void Server::get_page(const ExchangePtr& exchange) {
  const std::string& path = exchange->request().path;
  const std::string_view name = path == "/" ? "index.html" : std::string_view(path).substr(6);
  const StaticFile* file = options_.page ? find_static_file(name) : nullptr;
  if (file == nullptr)
    return exchange->fail(api_error(404, {}, path.substr(0, 128) + ": no such path; see /openapi.json"));
  HttpResponse response;
  response.content_type = content_type_of(name);
  response.body = std::string(file->content);
  response.headers = {{"Cache-Control", "no-cache"},
                      {"Content-Security-Policy",
                       "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:"},
                      {"X-Content-Type-Options", "nosniff"}};
  exchange->respond(std::move(response));
}

void Server::put_load(const ExchangePtr& exchange) {
  if (!options_.simulated_load) {
    return exchange->fail(
        api_error(403, {}, "simulated users are off; start the server with --simulated-load"));
  }
  Json body;
  ApiError error = parse_body(exchange->request().body, body);
  if (!error.ok()) return exchange->fail(error);
  JsonFields fields(body);
  const std::string name = fields.string("model").value_or("");
  const auto users = fields.integer("users", 0, kMaxSimulatedUsers);
  if (!users) fields.fail("users", "want a number of users, found none");
  if (!fields.ok()) return exchange->fail(fields.error());
  if (find_model(name, error) == nullptr) return exchange->fail(error);
  for (size_t i = 0; i < models_.size(); ++i) {
    if (name.empty() ? i == 0 : models_[i]->name() == name) users_[i]->set(static_cast<int>(*users));
  }
  exchange->respond(json_response({{"users", *users}}));
}

}  // namespace dspark
