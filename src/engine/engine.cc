// Making an engine and checking it. Requests come in through submit.cc, the step is step.cc.

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
  DSPARK_RETURN_IF_ERROR(want_at_least("max_waiting", max_waiting, 0));
  if (kv_tokens > int64_t{kKvPageSize} * (std::numeric_limits<int32_t>::max() - 1)) {
    return invalid_argument("kv_tokens: " + std::to_string(kv_tokens) + " are more than page numbers reach");
  }
  if (const Status status = policy.validate(); !status.ok()) {
    return invalid_argument("policy: " + status.message());
  }
  return ok_status();
}

int32_t suitable_prefill_rows(const ModelConfig& config) {
  constexpr int32_t kDense = 128, kMixture = 512;
  return config.moe.n_experts > 0 ? kMixture : kDense;
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
  engine->make_page_cache();
  return engine;
}

Engine::Engine(TargetModel& model, EngineOptions options, std::unique_ptr<Drafter> drafter, KvPool pool)
    : model_(model),
      options_(std::move(options)),
      drafter_(std::move(drafter)),
      pool_(std::move(pool)),
      pages_({.n_pages = pool_.n_pages, .shares = false}) {
  for (int32_t slot = options_.max_sequences; slot-- > 0;) free_slots_.push_back(slot);
  const ThreadPool* threads = model_.pool();
  const bool in_parallel = threads != nullptr && options_.max_sequences > 1;
  scratches_.resize(in_parallel ? static_cast<size_t>(threads->n_threads()) : 1);
  judged_.reserve(static_cast<size_t>(options_.max_sequences));
}

Engine::~Engine() {
  if (options_.on_close) options_.on_close(*this);
}

/// Most rows of a step that decoding sequences may have, anchors and drafts: each needs logits.
int64_t Engine::max_decode_rows() const {
  const int64_t row_bytes = int64_t{4} * model_.config().vocab_size;
  const int64_t least = 2 * int64_t{options_.max_sequences} + 16;
  return std::min(int64_t{options_.max_batch_rows}, std::max(least, options_.logit_bytes / row_bytes));
}

/// Makes the batch and the buffers of the model as large as steps under the engine's own policy can need; a
/// request with a longer policy of its own may grow them once.
Status Engine::reserve() {
  const int64_t most_drafts =
      drafter_ == nullptr ? 0 : std::min(options_.policy.draft_tokens(), drafter_->max_block());
  const int64_t decode_rows =
      std::min(max_decode_rows(), int64_t{options_.max_sequences} * (1 + std::max<int64_t>(most_drafts, 0)));
  const int64_t most_rows = std::min(int64_t{options_.max_batch_rows}, decode_rows + options_.prefill_rows);
  DSPARK_RETURN_IF_ERROR(model_.reserve(most_rows, decode_rows, options_.context_length));
  batch_.reserve(most_rows, options_.max_sequences);
  return ok_status();
}

/// After the measurements of make_planner, in which the drafter still has pages of its own.
void Engine::make_page_cache() {
  if (!options_.prefix_cache) return;
  PageCacheOptions cache{.n_pages = pool_.n_pages};
  if (drafter_ != nullptr) {
    drafter_reuse_ = drafter_->prefix_reuse();
    if (drafter_reuse_ == PrefixReuse::kFromPages && !drafter_->use_pages(pool_.n_pages).ok()) {
      drafter_reuse_ = PrefixReuse::kNever;  // no memory: its sequences compute their prompts
    }
    if (drafter_reuse_ == PrefixReuse::kFromPages) cache.lookahead = drafter_->page_lookahead();
  }
  pages_ = PageCache(cache);
}

/// Rows of the largest pass that the places can fill with decoding sequences, as far as the probe may go: no
/// more than 16 drafts each, and logits, which nobody else may need soon, of 256 MiB.
int32_t Engine::most_probed_rows() const {
  constexpr int64_t kMostDrafts = 16, kMostLogits = int64_t{1} << 26, kLeastRows = 8;
  const int64_t rows = options_.max_sequences * (1 + std::min<int64_t>(drafter_->max_block(), kMostDrafts));
  const int64_t by_memory = std::max<int64_t>(kSmallProbeRows, kMostLogits / model_.config().vocab_size);
  return static_cast<int32_t>(
      std::min<int64_t>(options_.max_batch_rows, std::clamp(rows, kLeastRows, by_memory)));
}

/// Measures what passes cost unless the options say it or nobody asks, up to the largest pass that the
/// engine's places can fill.
Status Engine::make_planner() {
  constexpr int32_t kMostContext = 8192;
  const bool wanted = options_.policy.needs_costs() || options_.always_costs || options_.costs.has_value();
  if (drafter_ == nullptr || !wanted) return ok_status();
  if (!options_.costs) {
    CostProbeOptions probe;
    probe.max_sequences = options_.max_sequences;
    probe.max_rows = most_probed_rows();
    probe.kv_dtype = options_.kv_dtype;
    probe.context = std::min(probe.context, options_.context_length / 2);
    probe.most_context = std::min(kMostContext, options_.context_length - probe.max_rows);
    probe.budget_s = options_.cost_probe_s * (probe.max_rows > kSmallProbeRows ? 2.0 : 1.0);
    probe.clock = options_.clock;
    DSPARK_ASSIGN_OR_RETURN(options_.costs, measure_costs(model_, drafter_.get(), probe));
  }
  DSPARK_RETURN_IF_ERROR(options_.costs->validate());
  planner_ = std::make_unique<AdaptivePlanner>(*options_.costs, options_.planner_memory);
  return ok_status();
}

EngineLoad Engine::load() const {
  EngineLoad load;
  load.n_running = static_cast<int32_t>(running_.size());
  for (const auto& sequence : running_) load.n_prefilling += sequence->prefilling() ? 1 : 0;
  load.n_waiting = static_cast<int32_t>(waiting_.size());
  for (const auto& sequence : waiting_) load.n_preempted += sequence->has_run ? 1 : 0;
  load.n_pages = pages_.n_pages();
  load.n_pages_idle = pages_.n_idle();
  load.n_pages_used = pages_.n_pages() - pages_.n_available();
  for (const auto* list : {&waiting_, &running_}) {
    for (const auto& sequence : *list) load.n_held += sequence->held ? 1 : 0;
  }
  return load;
}

std::chrono::steady_clock::time_point Engine::next_expiry() const {
  Clock::time_point next = Clock::time_point::max();
  for (const auto& sequence : running_) next = std::min(next, sequence->deadline);
  for (const auto& sequence : waiting_) {
    next = std::min(next, sequence->deadline);
    if (!sequence->has_run) next = std::min(next, sequence->queue_end);
  }
  return next;
}

Status Engine::check_integrity() const {
  std::vector<std::span<const int32_t>> tables;
  for (const auto& sequence : running_) {
    tables.emplace_back(sequence->pages);
    if (static_cast<int32_t>(sequence->pages.size()) != PageAllocator::pages_for(sequence->n_cached)) {
      return internal_error("engine: request " + std::to_string(sequence->id) + " holds " +
                            std::to_string(sequence->pages.size()) + " pages for " +
                            std::to_string(sequence->n_cached) + " tokens");
    }
  }
  DSPARK_RETURN_IF_ERROR(pages_.check_integrity(tables));
  const auto senior = [](const auto& a, const auto& b) { return a->rank < b->rank; };
  if (!std::is_sorted(running_.begin(), running_.end(), senior) ||
      !std::is_sorted(waiting_.rbegin(), waiting_.rend(), senior)) {
    return internal_error("engine: requests are not in the order of their ranks");
  }
  for (const auto& sequence : waiting_) {
    if (sequence->slot < 0 && sequence->pages.empty() && sequence->n_cached == 0) continue;
    return internal_error("engine: request " + std::to_string(sequence->id) + " waits and holds pages");
  }
  if (running_.size() + free_slots_.size() != static_cast<size_t>(options_.max_sequences)) {
    return internal_error("engine: " + std::to_string(running_.size()) + " running requests and " +
                          std::to_string(free_slots_.size()) + " free slots of " +
                          std::to_string(options_.max_sequences));
  }
  return ok_status();
}

}  // namespace dspark
