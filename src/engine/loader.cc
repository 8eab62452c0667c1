#include "engine/loader.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <string>
#include <utility>

#include "draft/factory.h"
#include "engine/calibration_file.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace dspark {
namespace {

/// Ids that end a turn, of tokenizer and model configuration together, ascending, each once.
std::vector<int32_t> end_ids(const ModelConfig& config, const Tokenizer* tokenizer) {
  std::vector<int32_t> ids = config.eos_ids;
  if (tokenizer != nullptr) {
    ids.insert(ids.end(), tokenizer->stop_ids().begin(), tokenizer->stop_ids().end());
  }
  std::erase_if(ids, [&config](int32_t id) { return id < 0 || id >= config.vocab_size; });
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

/// What make_drafter reads: with lookup behind a learned drafter if that is asked for and not there yet.
std::string joined_spec(const DrafterOptions& options) {
  const bool learned = !options.spec.empty() && options.spec != "none" && !names_lookup(options.spec);
  const bool joins = options.hybrid && learned && split_drafter_spec(options.spec).lookup.empty();
  return joins ? options.spec + "+ngram" : options.spec;
}

}  // namespace

LoadedModel::LoadedModel() = default;
LoadedModel::LoadedModel(LoadedModel&&) noexcept = default;
LoadedModel& LoadedModel::operator=(LoadedModel&& other) noexcept {
  if (this == &other) return *this;
  model.reset();  // before the pool and the checkpoint it uses
  path = std::move(other.path);
  options = std::move(other.options);
  pool = std::move(other.pool);
  checkpoint = std::move(other.checkpoint);
  tokenizer = std::move(other.tokenizer);
  chat_template = std::move(other.chat_template);
  chat_template_status = std::move(other.chat_template_status);
  model = std::move(other.model);
  eos_ids = std::move(other.eos_ids);
  load_s = other.load_s;
  return *this;
}
LoadedModel::~LoadedModel() = default;

Result<LoadedModel> load_model(const std::string& path, const LoadOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  const auto stage = [&options](std::string_view name) {
    if (options.on_stage) options.on_stage(name);
  };
  if (options.n_threads < 0) {
    return invalid_argument("threads: want 0 (one per processor) or more, found " +
                            std::to_string(options.n_threads));
  }
  LoadedModel loaded;
  loaded.path = path;
  loaded.options = options;
  stage("reading");
  DSPARK_ASSIGN_OR_RETURN(Checkpoint checkpoint, Checkpoint::open(path));
  loaded.checkpoint = std::make_shared<const Checkpoint>(std::move(checkpoint));
  stage("tokenizer");
  auto tokenizer = Tokenizer::load(*loaded.checkpoint);
  if (tokenizer.ok()) {
    loaded.tokenizer = std::make_shared<const Tokenizer>(std::move(tokenizer).value());
  } else if (tokenizer.status().code() != StatusCode::kNotFound) {
    return tokenizer.status();
  }
  if (loaded.tokenizer != nullptr && !loaded.tokenizer->chat_template().empty()) {
    auto chat_template = ChatTemplate::parse(loaded.tokenizer->chat_template());
    loaded.chat_template_status = chat_template.status();
    if (chat_template.ok()) {
      loaded.chat_template = std::make_shared<const ChatTemplate>(std::move(chat_template).value());
    }
  }
  stage("packing weights");
  loaded.pool =
      std::make_unique<ThreadPool>(options.n_threads > 0 ? options.n_threads : default_thread_count());
  DSPARK_ASSIGN_OR_RETURN(loaded.model,
                          TargetModel::load(loaded.checkpoint, *loaded.pool,
                                            ModelOptions{.float_activations = options.float_activations}));
  loaded.eos_ids = end_ids(loaded.model->config(), loaded.tokenizer.get());
  loaded.load_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return loaded;
}

Result<std::unique_ptr<Drafter>> load_drafter(LoadedModel& loaded, const EngineOptions& engine,
                                              const DrafterOptions& options) {
  DrafterContext context;
  context.target = loaded.model.get();
  context.pool = loaded.pool.get();
  context.max_sequences = engine.max_sequences;
  context.context_length =
      engine.context_length > 0 ? engine.context_length : loaded.model->config().context_length;
  context.cache_tokens = engine.kv_tokens;
  // The drafter's cache is small, and a rougher one only costs acceptance: Q8_0 is the target's affair.
  context.kv_dtype = engine.kv_dtype == KvDType::kF32 ? KvDType::kF32 : KvDType::kBF16;
  context.float_activations = loaded.options.float_activations;
  context.shortlist = options.shortlist;
  context.random_weights = options.random_weights;
  DSPARK_ASSIGN_OR_RETURN(std::unique_ptr<Drafter> drafter, make_drafter(joined_spec(options), context));
  if (options.calibration == "none") return drafter;
  const std::string path =
      options.calibration.empty() ? calibration_beside(options.spec) : options.calibration;
  if (path.empty()) return drafter;
  if (drafter == nullptr) return invalid_argument(path + ": there is no drafter to calibrate");
  DSPARK_ASSIGN_OR_RETURN(const std::vector<Calibration> tables, read_calibrations(path));
  const std::string target = std::filesystem::path(loaded.path).filename().string();
  const Calibration& calibration =
      tables[best_calibration(tables, options.rule, options.temperature, target)];
  if (const Status set = drafter->set_calibration(calibration.temperatures, calibration.biases); !set.ok()) {
    return Status(set.code(), path + ": " + set.message());
  }
  return drafter;
}

std::string calibration_beside(const std::string& drafter) {
  std::error_code ec;
  const std::string path = calibration_path(drafter);
  return std::filesystem::is_regular_file(path, ec) ? path : "";
}

VerifyPolicy default_policy(const Drafter* drafter) {
  return drafter == nullptr ? VerifyPolicy::off() : VerifyPolicy::adaptive();
}

Result<std::unique_ptr<Engine>> make_engine(LoadedModel& loaded, EngineOptions options,
                                            std::unique_ptr<Drafter> drafter) {
  if (options.eos_ids.empty()) options.eos_ids = loaded.eos_ids;
  if (!options.token_bytes && loaded.tokenizer != nullptr) {
    options.token_bytes = [tokenizer = loaded.tokenizer.get()](int32_t token, std::string& out) {
      if (!tokenizer->is_special(token)) out.append(tokenizer->token_bytes(token));
    };
  }
  return Engine::create(*loaded.model, std::move(options), std::move(drafter));
}

}  // namespace dspark
