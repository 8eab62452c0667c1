#include "cli/session.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "draft/factory.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace dspark::cli {
namespace {

// One sequence at a time: a pass never has more rows than a piece of a prompt.
constexpr int32_t kPrefillRows = 512;

EngineOptions engine_options(const RunFlags& flags, const ModelConfig& config, KvDType kv_dtype,
                             const VerifyPolicy& policy) {
  EngineOptions options;
  options.max_sequences = 1;
  const int32_t most = config.context_length;
  options.context_length = flags.context > 0 && (most <= 0 || flags.context < most) ? flags.context : most;
  options.kv_dtype = kv_dtype;
  options.prefill_rows = kPrefillRows;
  options.max_batch_rows = kPrefillRows + kMaxDraftTokens + 1;
  options.policy = policy;
  return options;
}

}  // namespace

Result<Session> Session::open(const RunFlags& flags) {
  Session session;
  session.flags_ = flags;
  session.seed_ = choose_seed(flags);
  DSPARK_ASSIGN_OR_RETURN(session.policy_, policy_from(flags));
  DSPARK_ASSIGN_OR_RETURN(const KvDType kv_dtype, parse_kv_type(flags.model.kv_type));
  DSPARK_ASSIGN_OR_RETURN(std::unique_ptr<Drafter> drafter, make_drafter(flags.drafter));
  DSPARK_ASSIGN_OR_RETURN(LoadedModel loaded, load_with_progress(flags.model));
  if (loaded.tokenizer == nullptr) return unsupported(loaded.path + ": has no tokenizer");
  if (!flags.raw && !loaded.chat_template_status.ok()) {
    return Status(loaded.chat_template_status.code(),
                  loaded.path + ": chat template: " + loaded.chat_template_status.message() +
                      "; --raw does without it");
  }
  session.is_chat_ = loaded.chat_template != nullptr && !flags.raw;
  if (!session.is_chat_ && !flags.system.empty()) {
    return invalid_argument("--system needs a model with a chat template, and no --raw");
  }
  session.loaded_ = std::make_unique<LoadedModel>(std::move(loaded));
  const ModelConfig& config = session.loaded_->model->config();
  DSPARK_ASSIGN_OR_RETURN(
      session.engine_, make_engine(*session.loaded_, engine_options(flags, config, kv_dtype, session.policy_),
                                   std::move(drafter)));
  return session;
}

Result<std::vector<int32_t>> Session::encode(const std::vector<ChatTurn>& turns) const {
  const Tokenizer& tokenizer = *loaded_->tokenizer;
  if (!is_chat_) return tokenizer.encode(turns.back().content, true, true);
  nlohmann::ordered_json messages = nlohmann::ordered_json::array();
  for (const ChatTurn& turn : turns) messages.push_back({{"role", turn.role}, {"content", turn.content}});
  ChatInputs inputs;
  inputs.messages = &messages;
  const std::string bos(tokenizer.token_text(tokenizer.bos_id()));
  if (!bos.empty()) inputs.bos_token = bos;
  const std::string eos(tokenizer.token_text(tokenizer.eos_id()));
  if (!eos.empty()) inputs.eos_token = eos;
  Result<std::string> text = loaded_->chat_template->render(inputs);
  if (!text.ok()) return Status(text.status().code(), "chat template: " + text.status().message());
  const bool has_bos = !bos.empty() && text->starts_with(bos);
  return tokenizer.encode(*text, !has_bos, true);
}

Result<GenerateResult> Session::answer(std::vector<int32_t> prompt, const StreamCallback& on_update,
                                       const std::atomic<bool>* cancel) {
  GenerateRequest request = request_from(flags_, seed_);
  request.prompt = std::move(prompt);
  return generate(*engine_, std::move(request), on_update, cancel);
}

}  // namespace dspark::cli
