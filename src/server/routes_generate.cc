// Routes that make text.

#include <nlohmann/json.hpp>
#include <random>
#include <utility>

#include "server/generation_call.h"
#include "server/json_fields.h"
#include "server/server.h"

namespace dspark {
namespace {

uint64_t random_seed() {
  std::random_device random;
  return (static_cast<uint64_t>(random()) << 31) ^ random();
}

OutputParser::Options parsing_of(const ModelHost& model, const CompletionRequest& request,
                                 ReasoningStart reasoning) {
  OutputParser::Options options;
  if (request.kind == ApiKind::kCompletion) return options;
  options.format = model.output_format();
  options.in_reasoning = reasoning == ReasoningStart::kOpen;
  const bool calls = request.tools != nullptr && request.tool_choice != "none";
  if (!calls) options.format.tools = ToolFormat::kNone;
  if (calls) options.tools = described_tools(request);
  if (!request.parallel_tool_calls) options.max_calls = 1;
  return options;
}

}  // namespace

void Server::complete(const ExchangePtr& exchange, ApiKind kind) {
  CompletionRequest request;
  const std::string& body = exchange->request().body;
  ApiError error;
  if (kind == ApiKind::kResponses) {
    error = parse_responses(body, options_.sampling, request);
  } else if (kind == ApiKind::kMessages) {
    error = parse_messages(body, options_.sampling, request);
  } else {
    error = parse_completion(body, kind, options_.sampling, request);
  }
  if (!error.ok()) return exchange->fail(error);
  start_call(exchange, std::move(request));
}

void Server::post_chat(const ExchangePtr& exchange) {
  complete(exchange, ApiKind::kChat);
}

void Server::post_completions(const ExchangePtr& exchange) {
  complete(exchange, ApiKind::kCompletion);
}

void Server::post_responses(const ExchangePtr& exchange) {
  complete(exchange, ApiKind::kResponses);
}

void Server::post_messages(const ExchangePtr& exchange) {
  complete(exchange, ApiKind::kMessages);
}

void Server::start_call(const ExchangePtr& exchange, CompletionRequest request) {
  ApiError error;
  ModelHost* model = find_model(request.model, error);
  if (model == nullptr) return exchange->fail(error);
  std::vector<std::vector<int32_t>> prompts;
  ReasoningStart reasoning = ReasoningStart::kNone;
  error = model->encode_prompts(request, prompts, &reasoning);
  if (error.ok()) error = model->constrain(request, reasoning);
  if (!error.ok()) return exchange->fail(error);
  if (!request.has_seed) request.generate.sampling.seed = random_seed();
  request.generate.queue.queue_timeout_s = options_.queue_timeout_s;
  const std::string client = client_of(exchange->request());
  OutputParser::Options parsing = parsing_of(*model, request, reasoning);
  exchange->add_log(" model=" + model->name());
  const auto call =
      std::make_shared<GenerationCall>(*model, std::move(request), exchange, std::move(parsing));
  add_call(call);
  call->start(prompts, client);
}

// How many tokens a body of /v1/messages would begin with.
void Server::post_count_tokens(const ExchangePtr& exchange) {
  CompletionRequest request;
  ApiError error = parse_token_count(exchange->request().body, options_.sampling, request);
  ModelHost* model = error.ok() ? find_model(request.model, error) : nullptr;
  std::vector<std::vector<int32_t>> prompts;
  ReasoningStart reasoning = ReasoningStart::kNone;
  if (error.ok()) error = model->encode_prompts(request, prompts, &reasoning);
  if (!error.ok()) return exchange->fail(error);
  HttpResponse response;
  response.body = "{\"input_tokens\":" + std::to_string(prompts.front().size()) + "}";
  exchange->respond(std::move(response));
}

}  // namespace dspark
