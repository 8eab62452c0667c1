#include "server/embedding_call.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

namespace dspark {
namespace {

using Json = nlohmann::ordered_json;

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

std::string answer_text(const std::vector<std::vector<float>>& vectors, const std::string& model,
                        int64_t n_tokens, bool as_base64) {
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
  const Json answer = {{"object", "list"},
                       {"data", std::move(data)},
                       {"model", model},
                       {"usage", {{"prompt_tokens", n_tokens}, {"total_tokens", n_tokens}}}};
  return answer.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

EmbeddingCall::EmbeddingCall(ModelHost& host, std::shared_ptr<Exchange> exchange, bool as_base64)
    : host_(host), exchange_(std::move(exchange)), as_base64_(as_base64), arrived_(Clock::now()) {}

void EmbeddingCall::start(std::vector<EmbedRequest> requests) {
  ApiError error;
  {
    const std::lock_guard lock(mutex_);
    requests_ = std::move(requests);
    vectors_.resize(requests_.size());
    ids_.assign(requests_.size(), 0);
    n_left_ = requests_.size();
    for (const EmbedRequest& request : requests_) n_tokens_ += static_cast<int64_t>(request.tokens.size());
    error = submit_more();
    failed_ = !error.ok();
    if (failed_) cancel_all();
  }
  if (!error.ok()) return exchange_->fail(error);
  // Weak: the exchange is part of this call.
  exchange_->on_abort([weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->cancel({});
  });
}

// As many as the engine works on at a time: a text that is done is followed before the engine's next step, so
// more would only wait, in the way of others.
ApiError EmbeddingCall::submit_more() {
  if (n_submitted_ == requests_.size()) return {};
  if (cancelled_) return error_of_end(FinishReason::kCancelled, cancel_message_);
  const auto most = static_cast<size_t>(std::max(1, host_.options().max_sequences));
  while (n_submitted_ < requests_.size() && n_running_ < most) {
    const size_t i = n_submitted_;
    // Others may fill the queue in the moment in which the last text of this call is done.
    requests_[i].queue.follows = i > 0 && n_running_ == 0;
    const Result<RequestId> id = host_.submit_embedding(
        requests_[i], [self = shared_from_this(), i](const EmbedResult& result) { self->take(i, result); });
    if (!id.ok()) {
      // A full queue is tried again when one of those on their way is done.
      const bool tries_again = id.status().code() == StatusCode::kResourceExhausted && n_running_ > 0;
      return tries_again ? ApiError() : error_of_submit(id.status());
    }
    ids_[i] = *id;
    requests_[i] = EmbedRequest();
    ++n_submitted_;
    ++n_running_;
  }
  return {};
}

void EmbeddingCall::take(size_t index, const EmbedResult& result) {
  const std::lock_guard lock(mutex_);
  ids_[index] = 0;
  --n_running_;
  --n_left_;
  if (failed_) return;
  ApiError error = error_of_end(result.finish_reason, cancel_message_);
  if (error.ok() && result.finish_reason != FinishReason::kStop) {
    error = api_error(500, {}, std::string("no vector: ") + finish_reason_name(result.finish_reason));
  }
  if (error.ok()) {
    vectors_[index].assign(result.embedding.begin(), result.embedding.end());
    error = submit_more();
  }
  if (!error.ok()) {
    failed_ = true;
    cancel_all();
    return exchange_->fail(error);
  }
  if (n_left_ == 0) finish();
}

// Thousands of vectors as JSON take longer than a step of the engine, whose thread this is.
void EmbeddingCall::finish() {
  exchange_->add_log(" prompt_tokens=" + std::to_string(n_tokens_));
  HttpResponse response;
  response.write_body = [vectors = std::move(vectors_), model = host_.name(), n_tokens = n_tokens_,
                         as_base64 = as_base64_] { return answer_text(vectors, model, n_tokens, as_base64); };
  exchange_->respond(std::move(response));
}

void EmbeddingCall::cancel_all() {
  for (const RequestId id : ids_) {
    if (id != 0) host_.cancel(id);
  }
}

void EmbeddingCall::cancel(const std::string& message) {
  const std::lock_guard lock(mutex_);
  cancelled_ = true;
  cancel_message_ = message;
  cancel_all();
}

RunningCall::View EmbeddingCall::view() const {
  const std::lock_guard lock(mutex_);
  View view;
  view.request_id = exchange_->request_id;
  view.model = host_.name();
  view.n_choices = static_cast<int64_t>(ids_.size());
  view.n_done = view.n_choices - static_cast<int64_t>(n_left_);
  view.usage.prompt_tokens = n_tokens_;
  view.age_s = std::chrono::duration<double>(Clock::now() - arrived_).count();
  return view;
}

}  // namespace dspark
