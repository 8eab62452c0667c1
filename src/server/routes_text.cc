// Routes about tokens and vectors.

#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>
#include <variant>

#include "server/embedding_call.h"
#include "server/json_fields.h"
#include "server/server.h"
#include "text/tokenizer.h"

namespace dspark {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kMaxInputs = 2048;
constexpr int64_t kMaxId = std::numeric_limits<int32_t>::max();

std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

ApiError read_token_ids(const Json& list, const char* field, std::vector<int32_t>& out) {
  for (const Json& id : list) {
    if (!id.is_number_integer() || id < 0 || id > kMaxId) return bad_field(field, "want token ids from 0");
    out.push_back(id.get<int32_t>());
  }
  return {};
}

struct EmbeddingBody {
  std::string model;
  std::vector<std::variant<std::string, std::vector<int32_t>>> inputs;
  Pooling pooling = Pooling::kMean;
  bool as_base64 = false;
  std::optional<int64_t> dimensions;
};

ApiError read_inputs(const Json* input, EmbeddingBody& out) {
  const std::string wanted = "want a string, an array of strings, or token ids";
  if (input == nullptr) return bad_field("input", wanted + ", found none");
  Json list = Json::array();
  const bool one = input->is_string() || (input->is_array() && !input->empty() && input->front().is_number());
  if (one) list.push_back(*input);
  if (!one && !input->is_array()) return bad_field("input", wanted + ", found " + json_kind(*input));
  const Json& items = one ? list : *input;
  if (items.empty() || items.size() > kMaxInputs) {
    return bad_field("input", "want 1 to " + std::to_string(kMaxInputs) + " inputs, found " +
                                  std::to_string(items.size()));
  }
  for (const Json& item : items) {
    if (item.is_string()) {
      out.inputs.emplace_back(item.get<std::string>());
    } else if (item.is_array() && !item.empty()) {
      std::vector<int32_t> ids;
      if (ApiError error = read_token_ids(item, "input", ids); !error.ok()) return error;
      out.inputs.emplace_back(std::move(ids));
    } else {
      return bad_field("input", wanted + ", found " + json_kind(item) + " in an array");
    }
  }
  return {};
}

ApiError read_embedding(const std::string& text, EmbeddingBody& out) {
  Json body;
  if (ApiError error = parse_body(text, body); !error.ok()) return error;
  JsonFields fields(body);
  out.model = fields.string("model").value_or("");
  const std::string format = fields.string("encoding_format").value_or("float");
  if (format != "float" && format != "base64")
    fields.fail("encoding_format", "want float or base64, found '" + format + "'");
  out.as_base64 = format == "base64";
  const std::string pooling = fields.string("pooling").value_or("mean");
  if (pooling != "mean" && pooling != "last")
    fields.fail("pooling", "want mean or last, found '" + pooling + "'");
  out.pooling = pooling == "last" ? Pooling::kLast : Pooling::kMean;
  out.dimensions = fields.integer("dimensions", 1, kMaxId);
  if (!fields.ok()) return fields.error();
  return read_inputs(fields.find("input"), out);
}

// errors: 400: ids that the vocabulary does not have.
ApiError check_vocabulary(const std::vector<int32_t>& ids, const char* field, int32_t vocab_size) {
  for (const int32_t id : ids) {
    if (id >= vocab_size) {
      return bad_field(
          field, "the vocabulary has " + std::to_string(vocab_size) + " tokens, found " + std::to_string(id));
    }
  }
  return {};
}

// The texts as ids that fit the model.
ApiError encode_inputs(const EmbeddingBody& body, const ModelHost& model, std::vector<EmbedRequest>& out) {
  const auto& config = model.loaded().model->config();
  const int32_t vocab_size = config.vocab_size;
  if (body.dimensions.value_or(config.dim) != config.dim) {
    return bad_field("dimensions", "vectors are not cut; want none or the model's " +
                                       std::to_string(config.dim) + ", found " +
                                       std::to_string(*body.dimensions));
  }
  for (const auto& input : body.inputs) {
    EmbedRequest request;
    const auto* text = std::get_if<std::string>(&input);
    request.tokens =
        text != nullptr ? model.tokenizer().encode(*text, true, true) : std::get<std::vector<int32_t>>(input);
    request.pooling = body.pooling;
    if (request.tokens.empty()) return bad_field("input", "want at least one token, found an empty text");
    if (ApiError error = check_vocabulary(request.tokens, "input", vocab_size); !error.ok()) return error;
    if (static_cast<int64_t>(request.tokens.size()) >= model.context_length()) {
      ApiError error =
          bad_field("input", std::to_string(request.tokens.size()) + " tokens do not fit the context of " +
                                 std::to_string(model.context_length()) + " tokens");
      error.code = "context_length_exceeded";
      return error;
    }
    out.push_back(std::move(request));
  }
  return {};
}

}  // namespace

void Server::post_embeddings(const ExchangePtr& exchange) {
  EmbeddingBody body;
  ApiError error = read_embedding(exchange->request().body, body);
  ModelHost* model = error.ok() ? find_model(body.model, error) : nullptr;
  std::vector<EmbedRequest> requests;
  if (error.ok()) error = encode_inputs(body, *model, requests);
  if (!error.ok()) return exchange->fail(error);
  const std::string client = client_of(exchange->request());
  for (EmbedRequest& request : requests) {
    request.queue.client = client;
    request.queue.queue_timeout_s = options_.queue_timeout_s;
  }
  exchange->add_log(" model=" + model->name());
  const auto call = std::make_shared<EmbeddingCall>(*model, exchange, body.as_base64);
  add_call(call);
  call->start(std::move(requests));
}

void Server::post_tokenize(const ExchangePtr& exchange) {
  Json body;
  ApiError error = parse_body(exchange->request().body, body);
  if (!error.ok()) return exchange->fail(error);
  JsonFields fields(body);
  // llama.cpp says content, vLLM prompt.
  std::optional<std::string> text = fields.string("content");
  if (!text) text = fields.string("prompt");
  if (!text) fields.fail("content", "want a string, found none");
  const bool add_special =
      fields.boolean("add_special").value_or(fields.boolean("add_special_tokens").value_or(false));
  const bool parse_special = fields.boolean("parse_special").value_or(true);
  const bool with_pieces = fields.boolean("with_pieces").value_or(false);
  const std::string name = fields.string("model").value_or("");
  if (!fields.ok()) return exchange->fail(fields.error());
  ModelHost* model = find_model(name, error);
  if (model == nullptr) return exchange->fail(error);
  const std::vector<int32_t> ids = model->tokenizer().encode(*text, add_special, parse_special);
  Json tokens = Json::array();
  for (const int32_t id : ids) {
    if (with_pieces) {
      tokens.push_back({{"id", id}, {"piece", std::string(model->tokenizer().token_bytes(id))}});
    } else {
      tokens.push_back(id);
    }
  }
  HttpResponse response;
  response.body = dump(
      {{"tokens", std::move(tokens)}, {"count", ids.size()}, {"max_model_len", model->context_length()}});
  exchange->respond(std::move(response));
}

void Server::post_detokenize(const ExchangePtr& exchange) {
  Json body;
  ApiError error = parse_body(exchange->request().body, body);
  if (!error.ok()) return exchange->fail(error);
  JsonFields fields(body);
  const Json* tokens = fields.array("tokens");
  if (tokens == nullptr) fields.fail("tokens", "want an array of token ids, found none");
  const std::string name = fields.string("model").value_or("");
  if (!fields.ok()) return exchange->fail(fields.error());
  ModelHost* model = find_model(name, error);
  if (model == nullptr) return exchange->fail(error);
  std::vector<int32_t> ids;
  error = read_token_ids(*tokens, "tokens", ids);
  if (error.ok()) error = check_vocabulary(ids, "tokens", model->tokenizer().vocab_size());
  if (!error.ok()) return exchange->fail(error);
  const std::string text = model->tokenizer().decode(ids, false);
  HttpResponse response;
  response.body = dump({{"content", text}, {"prompt", text}});
  exchange->respond(std::move(response));
}

}  // namespace dspark
