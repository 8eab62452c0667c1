#include "server/model_host.h"

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "base/thread_name.h"
#include "constrain/answer_grammar.h"
#include "constrain/gbnf.h"
#include "constrain/grammar_constraint.h"
#include "constrain/json_schema.h"
#include "constrain/tool_grammar.h"
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

bool is_strict(const nlohmann::ordered_json& function) {
  const auto strict = function.find("strict");
  return strict != function.end() && *strict == true;
}

// Control tokens that answers show as text (served_engine_options): grammars may ask for them.
std::vector<std::string> shown_markers(const LoadedModel& loaded, const OutputFormat& format) {
  if (loaded.chat_template == nullptr) return {};
  std::vector<std::string> markers = marker_texts(format.tools);
  std::erase_if(markers, [&](const std::string& text) {
    const int32_t id = loaded.tokenizer->find_token(text);
    return id < 0 || loaded.tokenizer->is_stop(id);
  });
  return markers;
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
    if (!engine_->has_work()) {
      wait_for_work(Clock::time_point::max());
      continue;
    }
    const bool went_on = engine_->step();
    metrics_.stepped(engine_->last_step());
    publish();
    // All of it is held: a release, somebody new or the next deadline changes that.
    if (!went_on) wait_for_work(engine_->next_expiry());
  }
}

void ModelHost::wait_for_work(Clock::time_point until) {
  {
    const std::lock_guard lock(snapshot_mutex_);
    idle_since_ = Clock::now();
  }
  {
    std::unique_lock lock(mutex_);
    // A request or a release may have come between the engine's word and the lock; then woken_ is set.
    const auto is_woken = [this] { return woken_ || stopping_; };
    if (until == Clock::time_point::max()) {
      wakeup_.wait(lock, is_woken);
    } else {
      wakeup_.wait_until(lock, until, is_woken);
    }
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

void ModelHost::hold(RequestId id) {
  engine_->hold(id);  // nothing that the engine has to be woken for
}

void ModelHost::release(RequestId id) {
  engine_->release(id);
  wake();
}

ApiError ModelHost::encode_prompts(const CompletionRequest& request, std::vector<std::vector<int32_t>>& out,
                                   ReasoningStart* reasoning) const {
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
  *reasoning = reasoning_start(output_format_, *text);
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
    tools.push_back(
        {function["name"].get<std::string>(), has ? parameters->dump() : std::string(), is_strict(function)});
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

bool lets_call(const CompletionRequest& request) {
  return request.tools != nullptr && request.tool_choice == "auto";
}

// requires: tools.
bool has_strict_tool(const CompletionRequest& request) {
  const nlohmann::ordered_json& tools = *request.tools;
  return std::any_of(tools.begin(), tools.end(),
                     [](const auto& tool) { return is_strict(tool["function"]); });
}

// What the text of an answer is held to.
enum class Held : char {
  kNothing = 'n',
  kCall = 'f',           // a call of a tool, and nothing else
  kContent = 'c',        // response_format or grammar
  kContentOrCall = 'o',  // response_format, unless a tool is called
  kStrictCalls = 's',    // free text; calls keep to their schemas
};

Held held_by(const CompletionRequest& request, const OutputFormat& format) {
  using Kind = ResponseFormat::Kind;
  if (forces_tools(request)) return Held::kCall;
  // A grammar can spell calls itself.
  if (request.format.kind == Kind::kGrammar) return Held::kContent;
  if (request.format.kind != Kind::kText) return lets_call(request) ? Held::kContentOrCall : Held::kContent;
  const bool watches = lets_call(request) && can_watch_calls(format.tools) && has_strict_tool(request);
  return watches ? Held::kStrictCalls : Held::kNothing;
}

constexpr std::string_view kAnyObject = R"({"type": "object"})";

Result<Grammar> content_alone(const ResponseFormat& format) {
  if (format.kind == ResponseFormat::Kind::kGrammar) return Grammar::from_gbnf(format.source);
  if (format.kind == ResponseFormat::Kind::kJsonObject) return Grammar::json_object();
  return Grammar::from_json_schema(format.source);
}

Result<GrammarIr> content_parts(const ResponseFormat& format) {
  if (format.kind == ResponseFormat::Kind::kGrammar) return parse_gbnf(format.source, "grammar");
  const bool is_object = format.kind == ResponseFormat::Kind::kJsonObject;
  return compile_json_schema(is_object ? kAnyObject : format.source, "json_schema");
}

Result<Grammar> content_grammar(const CompletionRequest& request, const OutputFormat& format, Held held,
                                const AnswerGrammarOptions& options) {
  // By itself first: what is wrong is then told of this field.
  DSPARK_ASSIGN_OR_RETURN(Grammar alone, content_alone(request.format));
  if (held == Held::kContent && options.reasoning == ReasoningStart::kNone) return alone;
  DSPARK_ASSIGN_OR_RETURN(const GrammarIr content, content_parts(request.format));
  std::vector<ToolDescription> tools;
  if (held == Held::kContentOrCall) tools = described_tools(request);
  return make_content_grammar(format, content, tools, options);
}

Result<Grammar> grammar_of(const CompletionRequest& request, const OutputFormat& format, Held held,
                           ReasoningStart reasoning) {
  AnswerGrammarOptions options;
  options.reasoning = reasoning;
  if (held == Held::kCall) return make_tool_grammar(format, forced_tools(request), options);
  if (request.parallel_tool_calls) options.max_calls = GrammarIr::kUnbounded;
  if (held == Held::kStrictCalls) return make_strict_grammar(format, described_tools(request), options);
  return content_grammar(request, format, held, options);
}

// Requests with the same key have the same grammar.
std::string grammar_key(const CompletionRequest& request, Held held, ReasoningStart reasoning) {
  std::string key{static_cast<char>(held), static_cast<char>('0' + static_cast<int>(reasoning))};
  if (held == Held::kContent || held == Held::kContentOrCall) {
    const std::string& source = request.format.source;
    key +=
        std::to_string(static_cast<int>(request.format.kind)) + std::to_string(source.size()) + ":" + source;
  }
  if (held == Held::kContent) return key;
  return key + (request.parallel_tool_calls ? "+" : "1") + request.tool_choice + request.tools->dump();
}

// What begins so, without it.
std::optional<std::string> behind(const std::string& message, std::string_view begin) {
  if (!message.starts_with(begin)) return std::nullopt;
  return message.substr(begin.size());
}

// A fault of a grammar, told of the field of the body that it comes from.
ApiError grammar_error(const CompletionRequest& request, Held held, const std::string& message) {
  if (const auto rest = behind(message, "tool_choice: ")) return bad_field("tool_choice", *rest);
  if (const auto rest = behind(message, "tools: ")) {
    for (size_t i = 0; request.tools != nullptr && i < request.tools->size(); ++i) {
      const auto name = (*request.tools)[i]["function"]["name"].get<std::string>();
      if (message.starts_with(schema_label(name))) return bad_field(request.schema_places[i], *rest);
    }
    return bad_field("tools", *rest);
  }
  if (held == Held::kCall || held == Held::kStrictCalls) return bad_field("tools", message);
  const ResponseFormat& format = request.format;
  if (format.kind == ResponseFormat::Kind::kGrammar) return bad_field("grammar", message);
  if (format.kind != ResponseFormat::Kind::kJsonSchema) return bad_field(format.field, message);
  const bool is_wrapped = request.kind == ApiKind::kChat || request.kind == ApiKind::kCompletion;
  return bad_field(format.field + (is_wrapped ? ".json_schema.schema" : ".schema"), message);
}

constexpr size_t kMaxConstraints = 64;

}  // namespace

Result<std::shared_ptr<const GrammarConstraint>> ModelHost::compile(const CompletionRequest& request,
                                                                    ReasoningStart reasoning) {
  const Held held = held_by(request, output_format_);
  const std::string key = grammar_key(request, held, reasoning);
  {
    const std::lock_guard lock(constraints_mutex_);
    for (const auto& [known, constraint] : constraints_) {
      if (known == key) return constraint;
    }
    if (trie_ == nullptr) {
      trie_ = make_token_trie(tokenizer(), loaded_->model->config().vocab_size,
                              shown_markers(*loaded_, output_format_));
    }
  }
  DSPARK_ASSIGN_OR_RETURN(Grammar grammar, grammar_of(request, output_format_, held, reasoning));
  auto made = std::make_shared<const GrammarConstraint>(std::move(grammar), trie_);
  const std::lock_guard lock(constraints_mutex_);
  if (constraints_.size() >= kMaxConstraints) constraints_.erase(constraints_.begin());
  constraints_.emplace_back(key, made);
  return std::shared_ptr<const GrammarConstraint>(made);
}

ApiError ModelHost::constrain(CompletionRequest& request, ReasoningStart reasoning) {
  const Held held = held_by(request, output_format_);
  if (held == Held::kNothing) return {};
  if (held == Held::kCall && (request.tools == nullptr || forced_tools(request).empty())) {
    return bad_field("tool_choice", "names a tool that is not in tools");
  }
  if (held == Held::kCall && request.format.kind != ResponseFormat::Kind::kText) {
    return bad_field("tool_choice", "a forced tool call excludes response_format and grammar");
  }
  if (held == Held::kContentOrCall && output_format_.tools == ToolFormat::kNone) {
    return bad_field(request.format.field,
                     "excludes tools here: how this model writes tool calls is not known, so they would have "
                     "to be content; leave out response_format or tools, or send tool_choice none");
  }
  if (request.format.whole_text) reasoning = ReasoningStart::kNone;
  const Result<std::shared_ptr<const GrammarConstraint>> made = compile(request, reasoning);
  if (!made.ok()) return grammar_error(request, held, made.status().message());
  request.generate.constraint = request.generate.max_tokens > 0
                                    ? (*made)->with_options({.max_tokens = request.generate.max_tokens})
                                    : *made;
  return {};
}

}  // namespace dspark
