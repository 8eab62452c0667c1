// Routes about tokens and vectors.

#include <cstring>
#include <limits>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <utility>

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

std::string base64(std::string_view bytes) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t word = 0;
    const size_t n = std::min<size_t>(3, bytes.size() - i);
    for (size_t k = 0; k < 3; ++k) word = word << 8 | (k < n ? static_cast<unsigned char>(bytes[i + k]) : 0u);
    for (size_t k = 0; k < 4; ++k) out += k <= n ? kDigits[word >> (18 - 6 * k) & 63u] : '=';
  }
  return out;
}

// One request for vectors: they come one by one, in any order.
struct EmbeddingCall {
  std::shared_ptr<Exchange> exchange;
  std::string model;
  bool as_base64 = false;
  std::mutex mutex;
  std::vector<std::vector<float>> vectors;
  std::vector<RequestId> ids;
  size_t n_left = 0;
  int64_t n_tokens = 0;
  bool failed = false;

  void take(size_t index, const EmbedResult& result);
  std::string body() const;
};

std::string EmbeddingCall::body() const {
  Json data = Json::array();
  for (size_t i = 0; i < vectors.size(); ++i) {
    Json entry = {{"object", "embedding"}, {"index", i}};
    if (as_base64) {
      std::string bytes(vectors[i].size() * sizeof(float), '\0');
      std::memcpy(bytes.data(), vectors[i].data(), bytes.size());
      entry["embedding"] = base64(bytes);
    } else {
      entry["embedding"] = vectors[i];
    }
    data.push_back(std::move(entry));
  }
  return dump({{"object", "list"},
               {"data", std::move(data)},
               {"model", model},
               {"usage", {{"prompt_tokens", n_tokens}, {"total_tokens", n_tokens}}}});
}

void EmbeddingCall::take(size_t index, const EmbedResult& result) {
  const std::lock_guard lock(mutex);
  --n_left;
  if (failed) return;
  if (result.finish_reason != FinishReason::kStop) {
    failed = true;
    ApiError error = api_error(
        503, {},
        std::string("input ") + std::to_string(index) + ": " + finish_reason_name(result.finish_reason));
    error.retry_after = 1;
    return exchange->fail(error);
  }
  vectors[index].assign(result.embedding.begin(), result.embedding.end());
  if (n_left > 0) return;
  HttpResponse response;
  response.body = body();
  exchange->respond(std::move(response));
}

struct EmbeddingBody {
  std::string model;
  std::vector<std::variant<std::string, std::vector<int32_t>>> inputs;
  Pooling pooling = Pooling::kMean;
  bool as_base64 = false;
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
  if (!fields.ok()) return fields.error();
  return read_inputs(fields.find("input"), out);
}

}  // namespace

void Server::post_embeddings(const ExchangePtr& exchange) {
  EmbeddingBody body;
  ApiError error = read_embedding(exchange->request().body, body);
  ModelHost* model = error.ok() ? find_model(body.model, error) : nullptr;
  if (!error.ok()) return exchange->fail(error);
  auto call = std::make_shared<EmbeddingCall>();
  call->exchange = exchange;
  call->model = model->name();
  call->as_base64 = body.as_base64;
  std::vector<EmbedRequest> requests;
  for (const auto& input : body.inputs) {
    EmbedRequest request;
    const auto* text = std::get_if<std::string>(&input);
    request.tokens = text != nullptr ? model->tokenizer().encode(*text, true, true)
                                     : std::get<std::vector<int32_t>>(input);
    request.pooling = body.pooling;
    request.queue.client = client_of(exchange->request());
    if (request.tokens.empty())
      return exchange->fail(bad_field("input", "want at least one token, found an empty text"));
    if (static_cast<int64_t>(request.tokens.size()) > model->context_length()) {
      error =
          bad_field("input", std::to_string(request.tokens.size()) + " tokens do not fit the context of " +
                                 std::to_string(model->context_length()) + " tokens");
      error.code = "context_length_exceeded";
      return exchange->fail(error);
    }
    call->n_tokens += static_cast<int64_t>(request.tokens.size());
    requests.push_back(std::move(request));
  }
  const std::lock_guard lock(call->mutex);
  call->vectors.resize(requests.size());
  call->n_left = requests.size();
  for (size_t i = 0; i < requests.size(); ++i) {
    const auto id = model->submit_embedding(std::move(requests[i]),
                                            [call, i](const EmbedResult& result) { call->take(i, result); });
    if (id.ok()) {
      call->ids.push_back(*id);
      continue;
    }
    call->failed = true;
    for (const RequestId other : call->ids) model->cancel(other);
    return exchange->fail(from_status(id.status()));
  }
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
  for (const int32_t id : ids) {
    if (error.ok() && id >= model->tokenizer().vocab_size()) {
      error = bad_field("tokens", "the vocabulary has " + std::to_string(model->tokenizer().vocab_size()) +
                                      " tokens, found " + std::to_string(id));
    }
  }
  if (!error.ok()) return exchange->fail(error);
  const std::string text = model->tokenizer().decode(ids, false);
  HttpResponse response;
  response.body = dump({{"content", text}, {"prompt", text}});
  exchange->respond(std::move(response));
}

}  // namespace dspark
