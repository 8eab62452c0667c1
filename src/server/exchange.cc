#include "server/exchange.h"

namespace dspark {

std::string_view HttpRequest::header(std::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (key == name) return value;
  }
  return {};
}

// Notifies outside the lock: the connection may take at once.
void Exchange::wake(std::unique_lock<std::mutex>& lock) {
  if (notified_ || notify_ == nullptr) return;
  notified_ = true;
  const std::function<void()> notify = notify_;
  lock.unlock();
  notify();
}

void Exchange::respond(HttpResponse response) {
  std::function<void()> unused;  // let go outside the lock: it may own the producer
  std::unique_lock lock(mutex_);
  if (ended_ || streamed_) return;
  unused = std::exchange(on_abort_, nullptr);
  head_ = std::move(response);
  has_head_ = ended_ = true;
  wake(lock);
}

void Exchange::fail(const ApiError& error) {
  HttpResponse response;
  response.status = error.http;
  response.body = error.to_json();
  if (error.retry_after >= 0) response.headers.emplace_back("Retry-After", std::to_string(error.retry_after));
  respond(std::move(response));
}

void Exchange::begin_stream(HttpResponse head) {
  std::unique_lock lock(mutex_);
  if (ended_ || streamed_) return;
  head_ = std::move(head);
  has_head_ = streamed_ = true;
  wake(lock);
}

bool Exchange::write(std::string_view data) {
  std::unique_lock lock(mutex_);
  if (aborted_ || ended_) return false;
  data_.append(data);
  full_ = data_.size() > max_buffered_ / 2;
  wake(lock);
  return true;
}

bool Exchange::full() const {
  const std::lock_guard lock(mutex_);
  return full_;
}

void Exchange::on_drained(std::function<void()> callback) {
  const std::lock_guard lock(mutex_);
  on_drained_ = std::move(callback);
}

void Exchange::end() {
  std::function<void()> unused;
  std::unique_lock lock(mutex_);
  if (ended_) return;
  unused = std::exchange(on_abort_, nullptr);
  ended_ = true;
  wake(lock);
}

void Exchange::break_off() {
  std::function<void()> unused;
  std::unique_lock lock(mutex_);
  if (ended_) return;
  unused = std::exchange(on_abort_, nullptr);
  ended_ = broken_ = true;
  data_.clear();
  wake(lock);
}

void Exchange::add_log(std::string_view words) {
  const std::lock_guard lock(mutex_);
  log_words_.append(words);
}

std::string Exchange::log_words() const {
  const std::lock_guard lock(mutex_);
  return log_words_;
}

void Exchange::on_abort(std::function<void()> callback) {
  {
    const std::lock_guard lock(mutex_);
    if (ended_) return;
    if (!aborted_) {
      on_abort_ = std::move(callback);
      return;
    }
  }
  callback();
}

void Exchange::set_notify(std::function<void()> notify) {
  std::unique_lock lock(mutex_);
  notify_ = std::move(notify);
  notified_ = false;
  if (has_head_ || ended_ || !data_.empty()) wake(lock);
}

Exchange::Taken Exchange::take() {
  Taken taken;
  std::function<void()> drained;
  {
    const std::lock_guard lock(mutex_);
    taken.has_head = std::exchange(has_head_, false);
    taken.streamed = streamed_;
    if (taken.has_head) taken.head = std::move(head_);
    taken.data = std::exchange(data_, {});
    taken.done = ended_;
    taken.broken = broken_;
    notified_ = false;
    if (std::exchange(full_, false)) drained = on_drained_;
  }
  // Outside the lock: the producer may hold its own while it writes.
  if (drained) drained();
  if (taken.head.write_body) taken.head.body = std::exchange(taken.head.write_body, nullptr)();
  return taken;
}

void Exchange::hang_up() {
  std::function<void()> callback;
  {
    const std::lock_guard lock(mutex_);
    if (aborted_ || ended_) return;
    aborted_ = true;
    callback = std::exchange(on_abort_, nullptr);
  }
  if (callback) callback();
}

bool Exchange::ended() const {
  const std::lock_guard lock(mutex_);
  return ended_;
}

}  // namespace dspark
