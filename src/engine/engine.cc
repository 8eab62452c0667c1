// Everything around the step: making an engine, the queue, the checks. The step itself is step.cc.

#include "engine/engine.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "engine/cost_probe.h"

namespace dspark {
namespace {

Status want_at_least(const char* option, int64_t value, int64_t least) {
  if (value >= least) return ok_status();
  return invalid_argument(std::string(option) + ": want at least " + std::to_string(least) + ", found " +
                          std::to_string(value));
}

}  // namespace

Status EngineOptions::validate() const {
  DSPARK_RETURN_IF_ERROR(want_at_least("max_sequences", max_sequences, 1));
  DSPARK_RETURN_IF_ERROR(want_at_least("context_length", context_length, 2));
  DSPARK_RETURN_IF_ERROR(want_at_least("kv_tokens", kv_tokens, 1));
  DSPARK_RETURN_IF_ERROR(want_at_least("prefill_rows", prefill_rows, 1));
  DSPARK_RETURN_IF_ERROR(want_at_least("max_batch_rows", max_batch_rows, int64_t{max_sequences} + 1));
  if (kv_tokens > int64_t{kKvPageSize} * (std::numeric_limits<int32_t>::max() - 1)) {
    return invalid_argument("kv_tokens: " + std::to_string(kv_tokens) + " are more than page numbers reach");
  }
  if (const Status status = policy.validate(); !status.ok()) {
    return invalid_argument("policy: " + status.message());
  }
  return ok_status();
}

Result<std::unique_ptr<Engine>> Engine::create(TargetModel& model, EngineOptions options,
                                               std::unique_ptr<Drafter> drafter) {
  if (options.context_length == 0) options.context_length = model.config().context_length;
  if (options.kv_tokens == 0) {
    options.kv_tokens = int64_t{options.max_sequences} * options.context_length;
  }
  DSPARK_RETURN_IF_ERROR(options.validate());
  // Every sequence starts on a page of its own, so the last page of each may be partly empty.
  const int64_t n_pages = int64_t{PageAllocator::pages_for(options.kv_tokens)} + options.max_sequences - 1;
  if (n_pages > std::numeric_limits<int32_t>::max()) {
    return invalid_argument("kv_tokens: " + std::to_string(options.kv_tokens) +
                            " are more than page numbers reach");
  }
  DSPARK_ASSIGN_OR_RETURN(KvPool pool,
                          KvPool::create(options.kv_dtype, model.kv_shapes(), static_cast<int32_t>(n_pages)));
  if (drafter != nullptr) {
    const std::span<const int32_t> taps = drafter->tap_layers();
    for (int32_t tap : taps) {
      if (tap < 0 || tap > model.config().n_layers) {
        return invalid_argument("drafter " + std::string(drafter->name()) + ": reads layer " +
                                std::to_string(tap) + ", the target has " +
                                std::to_string(model.config().n_layers));
      }
    }
    model.set_capture_layers(std::vector<int32_t>(taps.begin(), taps.end()));
  } else {
    model.set_capture_layers({});
  }
  std::unique_ptr<Engine> engine(new Engine(model, std::move(options), std::move(drafter), std::move(pool)));
  DSPARK_RETURN_IF_ERROR(engine->reserve());
  DSPARK_RETURN_IF_ERROR(engine->make_planner());
  return engine;
}

Engine::Engine(TargetModel& model, EngineOptions options, std::unique_ptr<Drafter> drafter, KvPool pool)
    : model_(model),
      options_(std::move(options)),
      drafter_(std::move(drafter)),
      pool_(std::move(pool)),
      pages_(pool_.n_pages) {
  for (int32_t slot = options_.max_sequences; slot-- > 0;) free_slots_.push_back(slot);
  picks_.reserve(kMaxDraftTokens + 1);
}

Engine::~Engine() = default;

/// Makes the buffers of the model as large as steps under the engine's own policy can need; a request with a
/// longer policy of its own may grow them once.
Status Engine::reserve() {
  const int64_t most_drafts =
      drafter_ == nullptr ? 0 : std::min(options_.policy.draft_tokens(), drafter_->max_block());
  const int64_t most_rows = options_.max_batch_rows;
  const int64_t decode_rows =
      std::min(most_rows, int64_t{options_.max_sequences} * (1 + std::max<int64_t>(most_drafts, 0)));
  return model_.reserve(std::min(most_rows, decode_rows + options_.prefill_rows), decode_rows);
}

/// Measures what passes cost unless the options say it or nobody asks.
Status Engine::make_planner() {
  if (drafter_ == nullptr || (!options_.policy.needs_costs() && !options_.costs)) return ok_status();
  if (!options_.costs) {
    CostProbeOptions probe;
    probe.max_sequences = std::min(options_.max_sequences, 8);
    const int32_t most_rows = options_.max_sequences * (1 + std::min(drafter_->max_block(), 16));
    probe.max_rows = std::clamp(most_rows, 8, std::min(options_.max_batch_rows, 64));
    probe.context = std::min(probe.context, options_.context_length / 2);
    probe.budget_s = options_.cost_probe_s;
    DSPARK_ASSIGN_OR_RETURN(options_.costs, measure_costs(model_, drafter_.get(), probe));
  }
  DSPARK_RETURN_IF_ERROR(options_.costs->validate());
  planner_ = std::make_unique<AdaptivePlanner>(*options_.costs);
  return ok_status();
}

Result<RequestId> Engine::submit(GenerateRequest request, StreamCallback on_update) {
  DSPARK_RETURN_IF_ERROR(request.validate(model_.config().vocab_size, options_.context_length));
  if (!request.stop_strings.empty() && !options_.token_bytes) {
    return invalid_argument("stop_strings: this engine has no tokenizer to compare them with");
  }
  auto sequence = std::make_unique<Sequence>();
  const auto n_prompt = static_cast<int32_t>(request.prompt.size());
  // The last token of a text is never processed, so it needs no place in the cache.
  const int64_t cache_limit = int64_t{pages_.n_pages()} * kKvPageSize + 1;
  int64_t limit = std::min<int64_t>(options_.context_length, cache_limit);
  if (n_prompt >= limit) {
    return resource_exhausted("prompt: " + std::to_string(n_prompt) + " tokens do not fit a cache of " +
                              std::to_string(cache_limit - 1) + " tokens");
  }
  if (request.max_tokens > 0) limit = std::min<int64_t>(limit, int64_t{n_prompt} + request.max_tokens);
  sequence->n_prompt = n_prompt;
  sequence->token_limit = static_cast<int32_t>(limit);
  sequence->reserved_pages = PageAllocator::pages_for(limit - 1);
  sequence->policy = request.speculation.value_or(options_.policy);
  if (drafter_ != nullptr && sequence->policy.needs_costs() && planner_ == nullptr) {
    return invalid_argument("speculation: " + sequence->policy.to_string() +
                            " needs measured costs, which this engine was made without");
  }
  if (!request.sampling.greedy()) sequence->rule = request.accept_rule.value_or(options_.accept_rule);
  sequence->drafts = drafter_ != nullptr && sequence->policy.draft_tokens() > 0;
  sequence->stop_ids = request.stop_token_ids;
  if (!request.ignore_eos) {
    sequence->stop_ids.insert(sequence->stop_ids.end(), options_.eos_ids.begin(), options_.eos_ids.end());
  }
  sequence->text = StopMatcher(request.stop_strings);
  sequence->stats.prompt_tokens = n_prompt;
  sequence->request = std::move(request);
  sequence->on_update = std::move(on_update);
  sequence->submitted_at = Clock::now();
  const std::lock_guard lock(inbox_mutex_);
  const RequestId id = next_id_++;
  sequence->id = id;
  submitted_.push_back(std::move(sequence));
  n_open_.fetch_add(1, std::memory_order_relaxed);
  return id;
}

void Engine::cancel(RequestId id) {
  const std::lock_guard lock(inbox_mutex_);
  cancelled_.push_back(id);
}

bool Engine::has_work() const {
  return n_open_.load(std::memory_order_relaxed) > 0;
}

void Engine::take_inbox() {
  const std::lock_guard lock(inbox_mutex_);
  for (auto& sequence : submitted_) waiting_.push_back(std::move(sequence));
  submitted_.clear();
  for (const RequestId id : cancelled_) {
    for (const auto* queue : {&waiting_, &running_}) {
      for (const auto& sequence : *queue) sequence->cancel_requested |= sequence->id == id;
    }
  }
  cancelled_.clear();
}

Status Engine::check_integrity() const {
  std::vector<std::span<const int32_t>> tables;
  int64_t reserved = 0;
  for (const auto& sequence : running_) {
    tables.emplace_back(sequence->pages);
    reserved += sequence->reserved_pages;
    if (static_cast<int32_t>(sequence->pages.size()) != PageAllocator::pages_for(sequence->n_cached)) {
      return internal_error("engine: request " + std::to_string(sequence->id) + " holds " +
                            std::to_string(sequence->pages.size()) + " pages for " +
                            std::to_string(sequence->n_cached) + " tokens");
    }
  }
  DSPARK_RETURN_IF_ERROR(pages_.check_integrity(tables));
  if (reserved != reserved_pages_ || reserved > pages_.n_pages()) {
    return internal_error("engine: " + std::to_string(reserved_pages_) + " pages reserved, requests sum to " +
                          std::to_string(reserved));
  }
  if (running_.size() + free_slots_.size() != static_cast<size_t>(options_.max_sequences)) {
    return internal_error("engine: " + std::to_string(running_.size()) + " running requests and " +
                          std::to_string(free_slots_.size()) + " free slots of " +
                          std::to_string(options_.max_sequences));
  }
  return ok_status();
}

}  // namespace dspark
