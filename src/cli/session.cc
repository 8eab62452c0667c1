#include "cli/session.h"

#include <utility>

#include "cli/progress.h"
#include "text/tokenizer.h"

namespace dspark::cli {
namespace {

EngineOptions engine_options(const RunFlags& flags, const ModelConfig& config, KvDType kv_dtype) {
  EngineOptions options;
  options.max_sequences = 1;
  const int32_t most = config.context_length;
  options.context_length = flags.context > 0 && (most <= 0 || flags.context < most) ? flags.context : most;
  options.kv_dtype = kv_dtype;
  options.prefix_cache = !flags.no_prefix_cache;
  options.prefill_rows = suitable_prefill_rows(config);
  options.max_batch_rows = options.prefill_rows + kMaxDraftTokens + 1;
  return options;
}

}  // namespace

Result<Session> Session::open(const RunFlags& flags) {
  Session session;
  session.flags_ = flags;
  session.seed_ = choose_seed(flags);
  DSPARK_RETURN_IF_ERROR(check_run_flags(flags));
  DSPARK_ASSIGN_OR_RETURN(const std::optional<Grammar> grammar, read_grammar(flags.grammar));
  DSPARK_ASSIGN_OR_RETURN(const KvDType kv_dtype, parse_kv_type(flags.model.kv_type));
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
  if (grammar) session.constraint_ = make_constraint(*grammar, *session.loaded_, flags.n_predict);
  const ModelConfig& config = session.loaded_->model->config();
  EngineOptions options = engine_options(flags, config, kv_dtype);
  SpecFlags spec = flags.spec;
  spec.temperature = flags.temperature;
  DSPARK_ASSIGN_OR_RETURN(session.engine_, make_spec_engine(*session.loaded_, options, spec));
  return session;
}

PrinterOptions Session::printer_options() const {
  PrinterOptions options;
  options.silent = flags_.json;
  options.color =
      flags_.color == "always" || (flags_.color == "auto" && flags_.show_drafts && stdout_is_terminal());
  if (flags_.show_drafts) options.draft_view = loaded_->tokenizer.get();
  return options;
}

Result<std::vector<int32_t>> Session::encode(const std::vector<ChatMessage>& turns) const {
  if (!is_chat_) return loaded_->tokenizer->encode(turns.back().content, true, true);
  DSPARK_ASSIGN_OR_RETURN(const std::string text,
                          render_chat(*loaded_->chat_template, *loaded_->tokenizer, turns, true));
  return encode_rendered(*loaded_->tokenizer, text);
}

Result<GenerateResult> Session::answer(std::vector<int32_t> prompt, const StreamCallback& on_update,
                                       const std::atomic<bool>* cancel) {
  GenerateRequest request = request_from(flags_, seed_);
  request.prompt = std::move(prompt);
  request.constraint = constraint_;
  return generate(*engine_, std::move(request), on_update, cancel);
}

}  // namespace dspark::cli
