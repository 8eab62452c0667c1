// The public face, include/dspark/dspark.hpp, over loader and engine.

#include <atomic>
#include <optional>
#include <utility>

#include "dspark/dspark.hpp"
#include "engine/generation.h"
#include "engine/loader.h"
#include "text/tokenizer.h"

namespace dspark {
namespace {

GenerateRequest request_of(const GenerationOptions& options) {
  GenerateRequest request;
  request.max_tokens = options.max_tokens;
  request.stop_strings = options.stop;
  request.ignore_eos = options.ignore_eos;
  SamplingParams& sampling = request.sampling;
  sampling.temperature = options.temperature;
  sampling.top_k = options.top_k;
  sampling.top_p = options.top_p;
  sampling.min_p = options.min_p;
  sampling.repetition_penalty = options.repetition_penalty;
  sampling.presence_penalty = options.presence_penalty;
  sampling.frequency_penalty = options.frequency_penalty;
  sampling.seed = options.seed;
  return request;
}

GenerationSummary summary_of(const GenerateResult& result) {
  const SpeculationStats& speculation = result.stats.speculation;
  GenerationSummary summary;
  summary.text = result.text;
  summary.finish_reason = finish_reason_name(result.finish_reason);
  summary.prompt_tokens = result.stats.prompt_tokens;
  summary.output_tokens = result.stats.output_tokens;
  summary.prompt_s = result.stats.prompt_s;
  summary.decode_s = result.stats.decode_s;
  summary.rounds = speculation.rounds;
  summary.drafted = speculation.drafted;
  summary.verified = speculation.verified;
  summary.accepted = speculation.accepted;
  return summary;
}

void report(std::string* error, const Status& status) {
  if (error != nullptr) *error = status.message();
}

}  // namespace

struct Generator::Impl {
  LoadedModel model;
  std::unique_ptr<Engine> engine;  // after the model it refers to
};

Generator::Generator(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Generator::~Generator() = default;

std::unique_ptr<Generator> Generator::open(const std::string& path, const GeneratorOptions& options,
                                           std::string* error) {
  const auto load = [&]() -> Result<std::unique_ptr<Impl>> {
    EngineOptions engine_options;
    engine_options.context_length = options.context_length;
    // Before the model is loaded: a wrong word should not take seconds to be noticed.
    std::optional<VerifyPolicy> policy;
    if (!options.policy.empty()) {
      DSPARK_ASSIGN_OR_RETURN(policy, VerifyPolicy::parse(options.policy));
    }
    DSPARK_ASSIGN_OR_RETURN(engine_options.accept_rule, parse_accept_rule(options.accept_rule));
    auto impl = std::make_unique<Impl>();
    LoadOptions load_options;
    load_options.n_threads = options.threads;
    DSPARK_ASSIGN_OR_RETURN(impl->model, load_model(path, load_options));
    if (impl->model.tokenizer == nullptr) {
      return not_found(path + ": has no tokenizer, so it cannot continue a text");
    }
    DSPARK_ASSIGN_OR_RETURN(
        std::unique_ptr<Drafter> drafter,
        load_drafter(impl->model, engine_options,
                     {.spec = options.drafter, .calibration = options.calibration, .hybrid = true}));
    engine_options.policy = policy.value_or(default_policy(drafter.get()));
    DSPARK_ASSIGN_OR_RETURN(impl->engine,
                            make_engine(impl->model, std::move(engine_options), std::move(drafter)));
    return impl;
  };
  auto impl = load();
  if (impl.ok()) return std::unique_ptr<Generator>(new Generator(std::move(impl).value()));
  report(error, impl.status());
  return nullptr;
}

bool Generator::generate(const std::string& prompt, const GenerationOptions& options,
                         const std::function<bool(std::string_view)>& on_text, GenerationSummary* summary,
                         std::string* error) {
  GenerateRequest request = request_of(options);
  request.prompt = impl_->model.tokenizer->encode(prompt, true, options.parse_special);
  std::atomic<bool> cancel{false};
  const auto forward_text = [&](const StreamUpdate& update) {
    if (on_text && !update.text.empty() && !on_text(update.text)) cancel = true;
  };
  const auto result = ::dspark::generate(*impl_->engine, std::move(request), forward_text, &cancel);
  if (!result.ok()) {
    report(error, result.status());
    return false;
  }
  if (summary != nullptr) *summary = summary_of(*result);
  return true;
}

}  // namespace dspark
