// dspark draft: what a drafter computes in its first rounds, as a safetensors file, to compare engines.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cli/commands.h"
#include "cli/model_flags.h"
#include "cli/report.h"
#include "cli/sequence_runner.h"
#include "cli/tensor_file.h"
#include "draft/draft_checkpoint.h"
#include "draft/draft_trace.h"
#include "engine/loader.h"
#include "speculate/accept.h"
#include "speculate/logits_processor.h"
#include "text/tokenizer.h"

namespace dspark::cli {
namespace {

struct DraftFlags {
  ModelFlags model;
  std::string drafter;
  std::vector<int32_t> tokens;
  std::string prompt;
  int32_t rounds = 1;
  std::string output;
  std::string dtype = "auto";
  std::string calibration;
  int32_t shortlist = 0;
};

Status check_flags(const DraftFlags& flags) {
  if (flags.tokens.empty() == flags.prompt.empty()) {
    return invalid_argument("want either --tokens or --prompt");
  }
  if (flags.dtype != "auto" && flags.dtype != "f32") {
    return invalid_argument("--dtype: expected auto or f32, found '" + flags.dtype + "'");
  }
  std::error_code ec;
  if (!std::filesystem::exists(flags.drafter, ec)) {
    return not_found("--drafter: want the path of a learned drafter, found '" + flags.drafter +
                     "', which does not exist");
  }
  return ok_status();
}

/// One sequence: target and drafter, greedy.
class DraftDump {
 public:
  DraftDump(LoadedModel& loaded, std::unique_ptr<Drafter> drafter, SequenceRunner runner, TensorFile& file)
      : drafter_(std::move(drafter)), runner_(std::move(runner)), file_(file) {
    const ModelConfig& config = loaded.model->config();
    vocab_ = config.vocab_size;
    dim_ = config.dim;
    sampling_.temperature = 0.0f;
  }

  bool start_trace() { return drafter_->set_trace(&trace_); }

  Status prefill(std::span<const int32_t> prompt) {
    const auto chunk = static_cast<size_t>(runner_.chunk_rows());
    for (size_t begin = 0; begin < prompt.size(); begin += chunk) {
      const std::span<const int32_t> part = prompt.subspan(begin, std::min(chunk, prompt.size() - begin));
      DSPARK_ASSIGN_OR_RETURN(const ForwardResult rows, runner_.forward(part));
      std::vector<int32_t> known(part.begin(), part.end());
      if (begin + part.size() == prompt.size()) {
        anchor_ = argmax(logits_row(rows, static_cast<int32_t>(part.size()) - 1));
        known.push_back(anchor_);
      }
      tell(rows, static_cast<int32_t>(begin), static_cast<int32_t>(part.size()), static_cast<int32_t>(begin),
           known);
    }
    position_ = static_cast<int32_t>(prompt.size());
    return ok_status();
  }

  /// Drafts, verifies, writes tensors "r<index>.*" and commits.
  Status round(int32_t index) {
    const std::string prefix = fmt::format("r{}.", index);
    const int32_t n_drafts = drafter_->max_block();
    DraftRequest request;
    request.anchor = anchor_;
    request.position = position_;
    request.max_tokens = n_drafts;
    request.sampling = &sampling_;
    block_.reset(1, n_drafts);
    add_rows(prefix + "context_rows", trace_.context_rows, last_features_);
    DSPARK_RETURN_IF_ERROR(drafter_->propose({&request, 1}, block_));
    const std::span<const int32_t> drafts = block_.drafts(0);
    add_proposal(prefix, drafts);

    std::vector<int32_t> run = {anchor_};
    run.insert(run.end(), drafts.begin(), drafts.end());
    DSPARK_ASSIGN_OR_RETURN(const ForwardResult rows, runner_.forward(run));
    const auto n_rows = static_cast<int64_t>(run.size());
    file_.add(prefix + "target_logits", rows.logits, {n_rows, vocab_});
    const AcceptResult result = accept_run(drafts, [&](int32_t i) { return argmax(logits_row(rows, i)); });
    file_.add(prefix + "accepted", std::span(&result.accepted, 1), {1});
    file_.add(prefix + "next_token", std::span(&result.last_pick, 1), {1});
    run.erase(run.begin());
    run.resize(static_cast<size_t>(result.accepted));
    run.push_back(result.last_pick);
    tell(rows, position_, result.accepted + 1, position_ + 1, run);
    position_ += result.accepted + 1;
    anchor_ = result.last_pick;
    runner_.truncate(position_);
    fmt::print("round {}: {} drafted, {} accepted, tokens", index, drafts.size(), result.accepted);
    for (int32_t token : run) fmt::print(" {}", token);
    fmt::print("\n");
    return ok_status();
  }

 private:
  std::span<const float> logits_row(const ForwardResult& rows, int32_t row) const {
    return rows.logits.subspan(static_cast<size_t>(row) * static_cast<size_t>(vocab_),
                               static_cast<size_t>(vocab_));
  }

  /// A matrix of `n_rows` rows, when the drafter recorded it.
  void add_rows(const std::string& name, const std::vector<float>& values, int64_t n_rows) {
    if (values.empty() || n_rows == 0) return;
    file_.add(name, values, {n_rows, static_cast<int64_t>(values.size()) / n_rows});
  }

  void add_proposal(const std::string& prefix, std::span<const int32_t> drafts) {
    const auto n = static_cast<int64_t>(drafts.size());
    file_.add(prefix + "anchor", std::span(&anchor_, 1), {1});
    file_.add(prefix + "position", std::span(&position_, 1), {1});
    file_.add(prefix + "drafts", drafts, {n});
    add_rows(prefix + "hidden", trace_.hidden, trace_.n_slots);
    add_rows(prefix + "U", trace_.base_logits, trace_.n_slots);
    add_rows(prefix + "Z", trace_.step_logits, trace_.n_slots);
    if (!block_.has_confidence) return;
    file_.add(prefix + "confidence_logits", std::span(block_.confidence_logits).first(drafts.size()), {n});
    file_.add(prefix + "confidence", std::span(block_.confidence).first(drafts.size()), {n});
  }

  void tell(const ForwardResult& rows, int32_t first_row, int32_t n_rows, int32_t first_token,
            std::span<const int32_t> tokens) {
    const auto n_taps = static_cast<int64_t>(drafter_->tap_layers().size());
    CommitEvent event;
    event.token_position = first_token;
    event.tokens = tokens;
    event.feature_position = first_row;
    event.n_features = n_rows;
    if (n_taps > 0) {
      event.features = rows.captured.data();
      event.tap_stride = static_cast<int64_t>(rows.captured.size()) / n_taps;
    }
    event.dim = dim_;
    drafter_->commit({&event, 1});
    last_features_ = n_rows;
  }

  std::unique_ptr<Drafter> drafter_;
  SequenceRunner runner_;
  TensorFile& file_;
  int32_t vocab_ = 0;
  int32_t dim_ = 0;
  SamplingParams sampling_;
  DraftTrace trace_;
  DraftBlock block_;
  int32_t anchor_ = 0;
  int32_t position_ = 0;       // of the anchor
  int64_t last_features_ = 0;  // rows of the newest commit
};

Result<std::vector<int32_t>> prompt_tokens(const DraftFlags& flags, const LoadedModel& loaded) {
  std::vector<int32_t> tokens = flags.tokens;
  if (tokens.empty()) {
    if (loaded.tokenizer == nullptr) return unsupported(loaded.path + ": has no tokenizer; use --tokens");
    tokens = loaded.tokenizer->encode(flags.prompt, true, true);
  }
  if (tokens.empty()) return invalid_argument("--prompt: has no tokens");
  return tokens;
}

Status dump(const DraftFlags& flags) {
  DSPARK_RETURN_IF_ERROR(check_flags(flags));
  DSPARK_ASSIGN_OR_RETURN(const DraftCheckpoint checkpoint, open_draft_checkpoint(flags.drafter));
  const bool exact = flags.dtype == "f32";
  EngineOptions options;
  DSPARK_ASSIGN_OR_RETURN(options.kv_dtype, parse_kv_type(flags.model.kv_type));
  if (exact) options.kv_dtype = KvDType::kF32;
  DSPARK_ASSIGN_OR_RETURN(LoadedModel loaded, load_with_progress(flags.model, false, exact));
  DSPARK_ASSIGN_OR_RETURN(const std::vector<int32_t> tokens, prompt_tokens(flags, loaded));
  const int64_t n_positions =
      static_cast<int64_t>(tokens.size()) + int64_t{flags.rounds} * (checkpoint.config.n_drafts() + 1) + 1;
  if (n_positions > loaded.model->config().context_length) {
    return invalid_argument(
        fmt::format("--rounds: {} rounds need {} positions, the model has a context of {}", flags.rounds,
                    n_positions, loaded.model->config().context_length));
  }
  options.context_length = static_cast<int32_t>(n_positions);
  DSPARK_ASSIGN_OR_RETURN(std::unique_ptr<Drafter> drafter,
                          load_drafter(loaded, options, {flags.drafter, flags.calibration, flags.shortlist}));
  const std::span<const int32_t> taps = drafter->tap_layers();
  loaded.model->set_capture_layers({taps.begin(), taps.end()});
  DSPARK_ASSIGN_OR_RETURN(SequenceRunner runner,
                          SequenceRunner::create(*loaded.model, options.kv_dtype, options.context_length));
  TensorFile file;
  file.set_metadata("format", "dspark draft");
  file.set_metadata("drafter", draft_kind_name(checkpoint.config.kind));
  file.set_metadata("dtype", flags.dtype);
  file.add("input_ids", tokens, {static_cast<int64_t>(tokens.size())});
  const std::vector<int32_t>& ids = checkpoint.config.d2t;
  if (!ids.empty()) file.add("vocab_ids", ids, {static_cast<int64_t>(ids.size())});
  DraftDump rounds(loaded, std::move(drafter), std::move(runner), file);
  if (!rounds.start_trace()) {
    return unsupported(flags.drafter + ": drafters of kind " + draft_kind_name(checkpoint.config.kind) +
                       " record nothing");
  }
  DSPARK_RETURN_IF_ERROR(rounds.prefill(tokens));
  for (int32_t i = 0; i < flags.rounds; ++i) DSPARK_RETURN_IF_ERROR(rounds.round(i));
  return file.write(flags.output);
}

}  // namespace

void register_draft(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<DraftFlags>();
  CLI::App* command =
      app.add_subcommand("draft", "write what a drafter computes in its first rounds to a safetensors file");
  add_model_flags(*command, flags->model);
  command->add_option("-d,--drafter", flags->drafter, "learned drafter, file or folder")->required();
  command->add_option("--tokens", flags->tokens, "token ids of the prompt, e.g. 1,2,3 (no BOS is added)")
      ->delimiter(',');
  command->add_option("-p,--prompt", flags->prompt, "text of the prompt, without chat template");
  command->add_option("--rounds", flags->rounds, "greedy rounds to run")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->add_option("-o,--output", flags->output, "safetensors file to write")->required();
  command
      ->add_option("--dtype", flags->dtype,
                   "auto: as the models are served; f32: exact float arithmetic and cache")
      ->capture_default_str();
  command->add_option("--calibration", flags->calibration, "confidence temperatures from 'dspark calibrate'");
  command
      ->add_option("--shortlist", flags->shortlist,
                   "the drafter's sequential head looks at this many tokens per slot (0: all)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->footer(
      "Writes input_ids, vocab_ids (target ids of a reduced vocabulary), and per round i: r<i>.anchor, "
      ".position, .context_rows, .hidden, .U (base logits), .Z (step logits), .drafts, .confidence_logits, "
      ".confidence, .target_logits, .accepted, .next_token.");
  command->callback([flags, &exit_code] {
    const Status status = dump(*flags);
    if (!status.ok()) exit_code = report_failure(status);
  });
}

}  // namespace dspark::cli
