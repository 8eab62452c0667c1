#include "server/model_host.h"

#include <chrono>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/thread_name.h"
#include "constrain/grammar_constraint.h"
#include "text/chat_prompt.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace dspark {
namespace {

std::optional<std::string> special_text(const Tokenizer& tokenizer, int32_t id) {
  if (id < 0) return std::nullopt;
  return std::string(tokenizer.token_text(id));
}

int64_t seconds_since_1970() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::seconds>(now).count();
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

ModelHost::ModelHost(std::string name, std::unique_ptr<LoadedModel> loaded, std::unique_ptr<Engine> engine,
                     std::string drafter, std::string drafter_error)
    : name_(std::move(name)),
      drafter_(std::move(drafter)),
      drafter_error_(std::move(drafter_error)),
      created_(seconds_since_1970()),
      loaded_(std::move(loaded)),
      engine_(std::move(engine)) {
  if (loaded_->chat_template != nullptr)
    output_format_ = detect_output_format(loaded_->chat_template->source());
  publish();
}

ModelHost::~ModelHost() {
  stop();
}

void ModelHost::start() {
  thread_ = std::thread([this] {
    name_this_thread("dspark-engine");
    run();
  });
}

void ModelHost::stop() {
  stopping_ = true;
  wake();
  if (thread_.joinable()) thread_.join();
}

void ModelHost::wake() {
  {
    const std::lock_guard lock(mutex_);
    woken_ = true;
  }
  wakeup_.notify_one();
}

void ModelHost::run() {
  while (!stopping_) {
    if (engine_->has_work()) {
      engine_->step();
      publish();
      continue;
    }
    wait_for_work();
  }
}

void ModelHost::wait_for_work() {
  {
    const std::lock_guard lock(snapshot_mutex_);
    idle_since_ = Clock::now();
  }
  {
    std::unique_lock lock(mutex_);
    // A request may have come between has_work() and the lock; then woken_ is set.
    wakeup_.wait(lock, [this] { return woken_ || stopping_; });
    woken_ = false;
  }
  const std::lock_guard lock(snapshot_mutex_);
  snapshot_.idle_s += seconds_since(*idle_since_);
  idle_since_.reset();
}

void ModelHost::publish() {
  const std::lock_guard lock(snapshot_mutex_);
  snapshot_.stats = engine_->stats();
  snapshot_.load = engine_->load();
  snapshot_.last_step = engine_->last_step();
  if (snapshot_.verify_costs.empty() && engine_->costs() != nullptr) {
    snapshot_.verify_costs = engine_->costs()->table().verify;
  }
}

EngineSnapshot ModelHost::snapshot() const {
  const std::lock_guard lock(snapshot_mutex_);
  EngineSnapshot copy = snapshot_;
  if (idle_since_) copy.idle_s += seconds_since(*idle_since_);
  // Newer than the last step: what waits while a long step runs.
  copy.load.n_waiting = std::max(copy.load.n_waiting, static_cast<int32_t>(engine_->n_waiting()));
  return copy;
}

Result<RequestId> ModelHost::submit(GenerateRequest request, StreamCallback on_update) {
  Result<RequestId> id = engine_->submit(std::move(request), std::move(on_update));
  if (id.ok()) wake();
  return id;
}

Result<RequestId> ModelHost::submit_embedding(EmbedRequest request, EmbedCallback on_result) {
  Result<RequestId> id = engine_->submit_embedding(std::move(request), std::move(on_result));
  if (id.ok()) wake();
  return id;
}

void ModelHost::cancel(RequestId id) {
  engine_->cancel(id);
  wake();
}

ApiError ModelHost::encode_prompts(const CompletionRequest& request, std::vector<std::vector<int32_t>>& out,
                                   bool* opens_reasoning) const {
  const Tokenizer& tokens = tokenizer();
  for (const auto& prompt : request.prompts) {
    const auto* text = std::get_if<std::string>(&prompt);
    out.push_back(text != nullptr ? tokens.encode(*text, true, true)
                                  : std::get<std::vector<int32_t>>(prompt));
    if (out.back().empty()) return bad_field("prompt", "want at least one token, found an empty text");
  }
  if (request.kind == ApiKind::kCompletion) return {};
  if (loaded_->chat_template == nullptr) {
    const Status& why = loaded_->chat_template_status;
    const std::string reason = why.ok() ? "it has no chat template" : "its chat template: " + why.message();
    return bad_field("model", "'" + name_ + "' cannot chat: " + reason + "; /v1/completions can be used");
  }
  ChatInputs inputs;
  inputs.messages = request.messages.get();
  inputs.tools = request.tool_choice == "none" ? nullptr : request.tools.get();
  inputs.extra = request.template_fields.get();
  inputs.bos_token = special_text(tokens, tokens.bos_id());
  inputs.eos_token = special_text(tokens, tokens.eos_id());
  const Result<std::string> text = loaded_->chat_template->render(inputs);
  if (!text.ok())
    return bad_field("messages", "the model's chat template refuses them: " + text.status().message());
  *opens_reasoning = output_format_.has_reasoning && prompt_opens_reasoning(*text);
  out.push_back(encode_rendered(tokens, *text));
  return {};
}

std::vector<ToolDescription> described_tools(const CompletionRequest& request) {
  std::vector<ToolDescription> tools;
  if (request.tools == nullptr) return tools;
  for (const auto& tool : *request.tools) {
    const auto& function = tool["function"];
    const auto parameters = function.find("parameters");
    const bool has = parameters != function.end() && parameters->is_object();
    tools.push_back({function["name"].get<std::string>(), has ? parameters->dump() : std::string()});
  }
  return tools;
}

namespace {

std::vector<ToolDescription> forced_tools(const CompletionRequest& request) {
  std::vector<ToolDescription> tools = described_tools(request);
  if (request.tool_choice[0] == '=')
    std::erase_if(tools, [&](const auto& tool) { return request.tool_choice.substr(1) != tool.name; });
  return tools;
}

bool forces_tools(const CompletionRequest& request) {
  return request.tool_choice == "required" || request.tool_choice[0] == '=';
}

Result<Grammar> grammar_of(const CompletionRequest& request, const OutputFormat& format, bool in_reasoning) {
  if (forces_tools(request)) {
    return make_tool_grammar(format.tools, forced_tools(request),
                             {.max_calls = 1, .in_reasoning = in_reasoning});
  }
  if (request.format.kind == ResponseFormat::Kind::kJsonObject) return Grammar::json_object();
  if (request.format.kind == ResponseFormat::Kind::kJsonSchema) {
    return Grammar::from_json_schema(request.format.source);
  }
  return Grammar::from_gbnf(request.format.source);
}

// Requests with the same key have the same grammar.
std::string grammar_key(const CompletionRequest& request, bool in_reasoning) {
  if (!forces_tools(request)) {
    return std::to_string(static_cast<int>(request.format.kind)) + request.format.source;
  }
  return (in_reasoning ? "R" : "T") + request.tool_choice + request.tools->dump();
}

constexpr size_t kMaxConstraints = 64;

}  // namespace

Result<std::shared_ptr<const GrammarConstraint>> ModelHost::compile(const CompletionRequest& request,
                                                                    bool in_reasoning) {
  const std::string key = grammar_key(request, in_reasoning);
  {
    const std::lock_guard lock(constraints_mutex_);
    for (const auto& [known, constraint] : constraints_) {
      if (known == key) return constraint;
    }
    if (trie_ == nullptr) trie_ = make_token_trie(tokenizer(), loaded_->model->config().vocab_size);
  }
  DSPARK_ASSIGN_OR_RETURN(Grammar grammar, grammar_of(request, output_format_, in_reasoning));
  auto made = std::make_shared<const GrammarConstraint>(std::move(grammar), trie_);
  const std::lock_guard lock(constraints_mutex_);
  if (constraints_.size() >= kMaxConstraints) constraints_.erase(constraints_.begin());
  constraints_.emplace_back(key, made);
  return std::shared_ptr<const GrammarConstraint>(made);
}

ApiError ModelHost::constrain(CompletionRequest& request, bool in_reasoning) {
  const bool tools = forces_tools(request);
  if (tools && (request.tools == nullptr || forced_tools(request).empty())) {
    return bad_field("tool_choice", "names a tool that is not in tools");
  }
  if (!tools && request.format.kind == ResponseFormat::Kind::kText) return {};
  if (tools && request.format.kind != ResponseFormat::Kind::kText) {
    return bad_field("tool_choice", "a forced tool call excludes response_format and grammar");
  }
  const Result<std::shared_ptr<const GrammarConstraint>> made = compile(request, in_reasoning);
  if (!made.ok()) {
    const bool grammar = request.format.kind == ResponseFormat::Kind::kGrammar;
    return bad_field(tools ? "tools" : grammar ? "grammar" : "response_format", made.status().message());
  }
  request.generate.constraint = request.generate.max_tokens > 0
                                    ? (*made)->with_options({.max_tokens = request.generate.max_tokens})
                                    : *made;
  return {};
}

}  // namespace dspark
