// dspark perplexity: how well a model predicts a text.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "cli/sequence_runner.h"
#include "text/tokenizer.h"

namespace dspark::cli {
namespace {

constexpr int32_t kDefaultContext = 2048;
constexpr int32_t kMinContext = 2;

struct PerplexityFlags {
  ModelFlags model;
  std::string file;
  std::string dtype = "auto";
  int32_t context = 0;  // 0: kDefaultContext, or what the model was trained for if that is less
  int32_t stride = 0;   // 0: the context
  bool json = false;
};

/// Negative log likelihoods (nats) of the tokens scored so far.
struct Score {
  int64_t n = 0;
  double sum = 0.0;
  double sum_of_squares = 0.0;
  int64_t n_processed = 0;  // rows run, scored or not
  double seconds = 0.0;

  void add(double nll) {
    ++n;
    sum += nll;
    sum_of_squares += nll * nll;
  }
  double mean() const { return sum / static_cast<double>(n); }
  /// Of the mean, from the spread of the single tokens.
  double standard_error() const {
    if (n < 2) return 0.0;
    const auto count = static_cast<double>(n);
    const double variance = std::max(0.0, sum_of_squares / count - mean() * mean()) * count / (count - 1.0);
    return std::sqrt(variance / count);
  }
};

Result<std::string> read_text(const std::string& path) {
  if (path == "-") return std::string(std::istreambuf_iterator<char>(std::cin), {});
  std::ifstream in(path, std::ios::binary);
  if (!in) return not_found(path + ": cannot open the text");
  std::string text(std::istreambuf_iterator<char>(in), {});
  if (in.bad()) return invalid_argument(path + ": cannot read the text");
  return text;
}

double negative_log_likelihood(std::span<const float> logits, int32_t token) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0.0;
  for (float logit : logits) sum += std::exp(static_cast<double>(logit) - top);
  return top + std::log(sum) - static_cast<double>(logits[static_cast<size_t>(token)]);
}

/// Runs one window and scores its tokens from index `first_scored` (>= 1) on.
Status score_window(OpenedModel& opened, SequenceRunner& runner, std::span<const int32_t> window,
                    size_t first_scored, Score& score) {
  const auto vocab = static_cast<size_t>(opened.model->config().vocab_size);
  const auto chunk = static_cast<size_t>(runner.chunk_rows());
  std::vector<double> nll;
  runner.restart();
  for (size_t begin = 0; begin < window.size(); begin += chunk) {
    const size_t n = std::min(chunk, window.size() - begin);
    DSPARK_ASSIGN_OR_RETURN(const ForwardResult rows, runner.forward(window.subspan(begin, n)));
    nll.assign(n, 0.0);
    opened.pool->parallel_for(static_cast<int64_t>(n), [&](int64_t row, int) {
      const auto r = static_cast<size_t>(row);
      const size_t predicted = begin + r + 1;
      if (predicted < first_scored || predicted >= window.size()) return;
      nll[r] = negative_log_likelihood(rows.logits.subspan(r * vocab, vocab), window[predicted]);
    });
    for (size_t r = 0; r < n; ++r) {  // in order, whatever the threads did
      const size_t predicted = begin + r + 1;
      if (predicted >= first_scored && predicted < window.size()) score.add(nll[r]);
    }
  }
  score.n_processed += static_cast<int64_t>(window.size());
  return ok_status();
}

/// Windows of `context` tokens (with BOS where the model wants it) that advance by `stride`; every token is
/// scored once, in the first window that holds it with something before it.
Result<Score> score_text(OpenedModel& opened, const Tokenizer& tokenizer, const std::vector<int32_t>& text,
                         int32_t context, int32_t stride) {
  DSPARK_ASSIGN_OR_RETURN(SequenceRunner runner,
                          SequenceRunner::create(*opened.model, opened.kv_dtype, context));
  ProgressLine progress;
  Score score;
  const auto start = std::chrono::steady_clock::now();
  const size_t n_prefix = tokenizer.add_bos() ? 1 : 0;
  const size_t window_text = static_cast<size_t>(context) - n_prefix;
  size_t n_scored_to = 0;  // text tokens before this index are done
  for (size_t begin = 0; n_scored_to < text.size(); begin += static_cast<size_t>(stride)) {
    const size_t end = std::min(text.size(), begin + window_text);
    std::vector<int32_t> window;
    if (n_prefix > 0) window.push_back(tokenizer.bos_id());
    window.insert(window.end(), text.begin() + static_cast<ptrdiff_t>(begin),
                  text.begin() + static_cast<ptrdiff_t>(end));
    const size_t first_scored = std::max<size_t>(1, n_scored_to - begin + n_prefix);
    DSPARK_RETURN_IF_ERROR(score_window(opened, runner, window, first_scored, score));
    n_scored_to = end;
    progress.show(
        fmt::format("{} of {} tokens, perplexity {:.4f}", end, text.size(), std::exp(score.mean())));
  }
  score.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return score;
}

void print_result(const PerplexityFlags& flags, const Score& score, int32_t context, int32_t stride) {
  const double perplexity = std::exp(score.mean());
  const double error = score.standard_error();
  const double rate = static_cast<double>(score.n_processed) / std::max(score.seconds, 1e-9);
  if (flags.json) {
    const nlohmann::ordered_json result = {{"perplexity", perplexity},
                                           {"mean_nll", score.mean()},
                                           {"standard_error", error},
                                           {"tokens_scored", score.n},
                                           {"tokens_processed", score.n_processed},
                                           {"tokens_per_s", rate},
                                           {"seconds", score.seconds},
                                           {"ctx", context},
                                           {"stride", stride},
                                           {"dtype", flags.dtype},
                                           {"kv_type", flags.dtype == "f32" ? "f32" : flags.model.kv_type}};
    fmt::print("{}\n", result.dump());
    return;
  }
  fmt::print("perplexity {:.4f} +/- {:.4f}  (mean nll {:.6f} +/- {:.6f} over {} tokens)\n", perplexity,
             perplexity * error, score.mean(), error, score.n);
  fmt::print("{} tokens in {:.2f} s, {:.1f} tok/s; windows of {} every {}\n", score.n_processed,
             score.seconds, rate, context, stride);
}

Status measure(const PerplexityFlags& flags) {
  DSPARK_ASSIGN_OR_RETURN(const std::string text, read_text(flags.file));
  DSPARK_ASSIGN_OR_RETURN(OpenedModel opened, open_model(flags.model, flags.dtype));
  DSPARK_ASSIGN_OR_RETURN(const Tokenizer tokenizer, Tokenizer::load(opened.model->checkpoint()));
  const std::vector<int32_t> tokens = tokenizer.encode(text, false, false);
  if (tokens.size() < 2) {
    return invalid_argument(fmt::format("{}: {} token(s), expected at least 2", flags.file, tokens.size()));
  }
  const int32_t trained = opened.model->config().context_length;
  if (flags.context != 0 && (flags.context < kMinContext || flags.context > trained)) {
    return invalid_argument(fmt::format("--ctx: {} is not between {} and {} (what the model was trained for)",
                                        flags.context, kMinContext, trained));
  }
  const int32_t prefix = tokenizer.add_bos() ? 1 : 0;
  int32_t context = flags.context != 0 ? flags.context : std::min(kDefaultContext, trained);
  context = static_cast<int32_t>(std::min<size_t>(static_cast<size_t>(context), tokens.size() + 1));
  context = std::max(context, kMinContext);
  const int32_t stride = flags.stride != 0 ? std::min(flags.stride, context - prefix) : context - prefix;
  if (stride < 1) return invalid_argument(fmt::format("--stride: {} is not positive", flags.stride));
  DSPARK_ASSIGN_OR_RETURN(const Score score, score_text(opened, tokenizer, tokens, context, stride));
  if (score.n == 0) return invalid_argument(flags.file + ": no token has another before it");
  print_result(flags, score, context, stride);
  return ok_status();
}

}  // namespace

void register_perplexity(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<PerplexityFlags>();
  CLI::App* command = app.add_subcommand("perplexity", "measure how well a model predicts a text");
  add_model_flags(*command, flags->model);
  command->add_option("-f,--file", flags->file, "text file (-: standard input)")->required();
  command
      ->add_option("-c,--ctx,--ctx-size", flags->context,
                   "tokens of a window, BOS included (0: 2048, or the model's own limit if that is less)")
      ->capture_default_str();
  command
      ->add_option("--stride", flags->stride,
                   "tokens from window to window (0: the whole window); smaller: more context, slower")
      ->capture_default_str();
  command
      ->add_option("--dtype", flags->dtype,
                   "auto: as the model is served; f32: exact float arithmetic and cache")
      ->capture_default_str();
  command->add_flag("--json", flags->json, "print one JSON object");
  command->callback([flags, &exit_code] {
    const Status status = measure(*flags);
    if (!status.ok()) exit_code = report_failure(status);
  });
}

}  // namespace dspark::cli
