#include "engine/evaluation.h"

#include <algorithm>
#include <string>

#include "speculate/confidence.h"

namespace dspark {
namespace {

/// Collects one request and ends it when its anchor has reached the limit.
struct Collector {
  Engine* engine;
  EvalAnswer* answer;
  EvalProgress* progress;
  int32_t max_tokens;
  int32_t end_position;  // of the first anchor that gets no round

  void take(const StreamUpdate& update) {
    for (const TokenEvent& event : update.tokens) {
      if (static_cast<int32_t>(answer->tokens.size()) < max_tokens) {
        answer->tokens.push_back(event.token);
        ++progress->tokens;
      }
    }
    if (update.round != nullptr) take_round(*update.round);
    if (update.finish_reason != FinishReason::kNone) {
      if (answer->finish_reason == FinishReason::kNone) answer->finish_reason = update.finish_reason;
      ++progress->answers;
    } else if (!update.tokens.empty() && update.tokens.back().position >= end_position) {
      answer->finish_reason = FinishReason::kLength;
      engine->cancel(update.id);
    }
  }

  void take_round(const RoundView& round) {
    const auto n = static_cast<size_t>(round.counts.proposal_length);
    answer->rounds.push_back(round.counts);
    if (round.confidence.size() < n) return;
    const auto append = [n](std::span<const float> from, std::vector<float>& to) {
      to.insert(to.end(), from.begin(), from.begin() + static_cast<std::ptrdiff_t>(n));
    };
    append(round.confidence, answer->confidence);
    append(round.confidence_logits, answer->confidence_logits);
  }
};

}  // namespace

Result<std::vector<EvalAnswer>> evaluate(Engine& engine, std::span<const EvalPrompt> prompts,
                                         const EvalOptions& options,
                                         const std::function<void(const EvalProgress&)>& on_step,
                                         const std::atomic<bool>* cancel) {
  std::vector<EvalAnswer> answers(prompts.size());
  std::vector<RequestId> ids;
  EvalProgress progress;
  for (size_t i = 0; i < prompts.size(); ++i) {
    const auto n_prompt = static_cast<int32_t>(prompts[i].tokens.size());
    Collector collector{&engine, &answers[i], &progress, options.max_tokens, n_prompt + options.max_tokens};
    GenerateRequest request;
    request.prompt = prompts[i].tokens;
    request.sampling = options.sampling;
    request.sampling.seed = prompts[i].seed;
    const auto id = engine.submit(
        std::move(request), [collector](const StreamUpdate& update) mutable { collector.take(update); });
    if (!id.ok()) {
      for (RequestId submitted : ids) engine.cancel(submitted);
      while (engine.has_work()) engine.step();
      return Status(id.status().code(), "prompt " + std::to_string(i + 1) + ": " + id.status().message());
    }
    ids.push_back(*id);
  }
  bool cancelling = false;
  while (engine.has_work()) {
    if (!cancelling && cancel != nullptr && cancel->load(std::memory_order_relaxed)) {
      for (RequestId id : ids) engine.cancel(id);
      cancelling = true;
    }
    engine.step();
    if (on_step) on_step(progress);
  }
  if (cancelling) return cancelled("stopped");
  for (const EvalAnswer& answer : answers) {
    if (answer.finish_reason == FinishReason::kError) {
      return out_of_memory("forward pass: no memory for its buffers");
    }
  }
  return answers;
}

void add_rounds(const EvalAnswer& answer, SpeculationStats& stats) {
  for (const RoundRecord& round : answer.rounds) stats.add(round);
}

void add_calibration(const EvalAnswer& answer, CalibrationStats& stats) {
  if (!answer.has_confidence()) return;
  std::vector<double> products;
  size_t begin = 0;
  for (const RoundRecord& round : answer.rounds) {
    products.resize(static_cast<size_t>(round.proposal_length));
    survival(std::span(answer.confidence).subspan(begin, products.size()), std::span(products));
    stats.add(products, round.accepted);
    begin += products.size();
  }
}

void add_calibration(const EvalAnswer& answer, CalibrationData& data) {
  if (!answer.has_confidence()) return;
  size_t begin = 0;
  for (const RoundRecord& round : answer.rounds) {
    const auto n = static_cast<size_t>(round.proposal_length);
    data.add(std::span(answer.confidence_logits).subspan(begin, n), round.accepted);
    begin += n;
  }
}

}  // namespace dspark
