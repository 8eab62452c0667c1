// The way in: requests and cancellations from any thread.

#include <algorithm>
#include <string>
#include <utility>

#include "engine/engine.h"

namespace dspark {
namespace {

std::chrono::steady_clock::time_point end_of(std::chrono::steady_clock::time_point start, double seconds) {
  using Clock = std::chrono::steady_clock;
  constexpr double kForever = 1e9;  // longer than any clock of nanoseconds should be asked to count
  if (seconds <= 0.0 || seconds > kForever) return Clock::time_point::max();
  return start + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

}  // namespace

/// Everything of a sequence that follows from its request.
Status Engine::fill_sequence(Sequence& sequence, GenerateRequest request) {
  const auto n_prompt = static_cast<int32_t>(request.prompt.size());
  // The last token of a text is never processed, so it needs no place in the cache.
  const int64_t cache_limit = int64_t{pool_.n_pages} * kKvPageSize + 1;
  int64_t limit = std::min<int64_t>(options_.context_length, cache_limit);
  if (n_prompt >= limit) {
    return resource_exhausted("prompt: " + std::to_string(n_prompt) + " tokens do not fit a cache of " +
                              std::to_string(cache_limit - 1) + " tokens");
  }
  if (request.max_tokens > 0) limit = std::min<int64_t>(limit, int64_t{n_prompt} + request.max_tokens);
  sequence.n_prompt = n_prompt;
  sequence.token_limit = static_cast<int32_t>(limit);
  sequence.policy = request.speculation.value_or(options_.policy);
  if (drafter_ != nullptr && sequence.policy.needs_costs() && planner_ == nullptr) {
    return invalid_argument("speculation: " + sequence.policy.to_string() +
                            " needs to know what steps cost, and this engine, whose own policy is " +
                            options_.policy.to_string() +
                            ", has no cost table; want off, fixed:K or threshold:T");
  }
  if (!request.sampling.greedy()) sequence.rule = request.accept_rule.value_or(options_.accept_rule);
  sequence.drafts =
      drafter_ != nullptr && sequence.policy.draft_tokens() > 0 && request.max_drafts.value_or(1) > 0;
  sequence.stop_ids = request.stop_token_ids;
  if (!request.ignore_eos) {
    sequence.stop_ids.insert(sequence.stop_ids.end(), options_.eos_ids.begin(), options_.eos_ids.end());
  }
  if (request.constraint != nullptr) {
    sequence.constraint = request.constraint->start(sequence.stop_ids);
    if (sequence.constraint == nullptr) return invalid_argument("constraint: has no start");
  }
  sequence.text = StopMatcher(request.stop_strings);
  sequence.stats.prompt_tokens = n_prompt;
  sequence.request = std::move(request);
  return ok_status();
}

Result<RequestId> Engine::submit(GenerateRequest request, StreamCallback on_update) {
  DSPARK_RETURN_IF_ERROR(request.validate(model_.config().vocab_size, options_.context_length));
  if (!request.stop_strings.empty() && !options_.token_bytes) {
    return invalid_argument("stop_strings: this engine has no tokenizer to compare them with");
  }
  auto sequence = std::make_unique<Sequence>();
  DSPARK_RETURN_IF_ERROR(fill_sequence(*sequence, std::move(request)));
  sequence->on_update = std::move(on_update);
  const QueueParams queue = sequence->request.queue;
  return enqueue(std::move(sequence), queue);
}

Result<RequestId> Engine::submit_embedding(EmbedRequest request, EmbedCallback on_result) {
  GenerateRequest prompt;
  prompt.prompt = std::move(request.tokens);
  prompt.max_tokens = 1;
  prompt.speculation = VerifyPolicy::off();
  prompt.queue = std::move(request.queue);
  DSPARK_RETURN_IF_ERROR(prompt.validate(model_.config().vocab_size, options_.context_length));
  auto sequence = std::make_unique<Sequence>();
  DSPARK_RETURN_IF_ERROR(fill_sequence(*sequence, std::move(prompt)));
  sequence->embedding = std::make_unique<SequenceEmbedding>();
  sequence->embedding->pooling = request.pooling;
  sequence->embedding->normalize = request.normalize;
  sequence->embedding->on_result = std::move(on_result);
  sequence->embedding->sum.assign(static_cast<size_t>(model_.config().dim), 0.0);
  const QueueParams queue = sequence->request.queue;
  return enqueue(std::move(sequence), queue);
}

Result<RequestId> Engine::enqueue(std::unique_ptr<Sequence> sequence, const QueueParams& queue) {
  sequence->submitted_at = now();
  sequence->queue_end = end_of(sequence->submitted_at, queue.queue_timeout_s);
  sequence->deadline = end_of(sequence->submitted_at, queue.deadline_s);
  const std::lock_guard lock(inbox_mutex_);
  const int64_t n_waiting = n_waiting_.load(std::memory_order_relaxed);
  if (options_.max_waiting > 0 && !queue.follows && n_waiting >= options_.max_waiting) {
    return resource_exhausted("queue: " + std::to_string(n_waiting) + " requests wait already");
  }
  const RequestId id = next_id_++;
  sequence->id = id;
  submitted_.push_back(std::move(sequence));
  n_waiting_.fetch_add(1, std::memory_order_relaxed);
  n_open_.fetch_add(1, std::memory_order_relaxed);
  return id;
}

void Engine::cancel(RequestId id) {
  const std::lock_guard lock(inbox_mutex_);
  cancelled_.push_back(id);
}

void Engine::hold(RequestId id) {
  const std::lock_guard lock(inbox_mutex_);
  holds_.emplace_back(id, true);
}

void Engine::release(RequestId id) {
  const std::lock_guard lock(inbox_mutex_);
  holds_.emplace_back(id, false);
}

bool Engine::has_work() const {
  return n_open_.load(std::memory_order_relaxed) > 0;
}

}  // namespace dspark
