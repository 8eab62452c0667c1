// dspark-train: the program behind `dspark train`. On its own because it links libtorch, which the engine
// never does.

#include <fmt/format.h>
#include <malloc.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <string>
#include <utility>

#include "cli/train/live_source.h"
#include "cli/train_plot.h"
#include "train/trainer.h"

namespace {

std::atomic<bool> g_stop{false};  // set by Ctrl-C: the state is written before the end

void on_signal(int) {
  g_stop.store(true);
}

/// Options of the target that computes features while the trainer works.
void add_live_options(CLI::App& app, dspark::cli::LiveOptions& o) {
  app.add_option(
         "--taps", o.layers,
         "with a corpus as data: layers whose outputs are features, -1: the embedding (default: five)")
      ->delimiter(',');
  app.add_flag("--log-sum-exp", o.log_sum_exp,
               "with a corpus as data: the target computes the log-sum-exp of its logits too");
  app.add_option("--max-length", o.max_length, "with a corpus as data: cut longer samples to so many tokens")
      ->capture_default_str();
  app.add_option("--target-threads", o.threads, "with a corpus as data: threads of the target")
      ->capture_default_str();
}

void add_options(CLI::App& app, dspark::TrainOptions& o) {
  app.add_option("-m,--model", o.target, "target: a .gguf file or a Hugging Face folder")->required();
  app.add_option("--data", o.caches,
                 "target cache folders, or corpus files (.jsonl) whose features are computed now")
      ->required();
  app.add_option("-o,--out", o.out, "run folder: state, log.csv, draft/")->required();
  app.add_option("--init", o.init, "start from this drafter instead of the target's own layers");
  app.add_flag("--resume", o.resume, "continue the run in the run folder");
  app.add_option("--steps", o.steps, "optimiser steps in all");
  app.add_option("--minutes", o.minutes, "time in all, earlier parts of the run included");

  app.add_option("--kind", o.kind, "drafter: dspark, dflash, eagle3, mtp")->capture_default_str();
  app.add_flag_callback(
      "--dflash", [&o] { o.kind = "dflash"; }, "the same as --kind dflash");
  app.add_option("--layers", o.layers, "draft layers")->capture_default_str();
  app.add_option("--block", o.block_size, "drafts per round; of eagle3 the steps of the unroll")
      ->capture_default_str();
  app.add_option("--rank", o.markov_rank, "rank of the sequential head")->capture_default_str();
  app.add_option("--head", o.head, "sequential head: vanilla, gated, rnn")->capture_default_str();
  app.add_option("--draft-vocab", o.draft_vocab, "ids the drafter can propose, 0: all")
      ->capture_default_str();
  app.add_option("--draft-vocab-file", o.draft_vocab_file, "those ids, from 'dspark data vocab'");
  app.add_option("--mask-token", o.mask_token, "id fed at undrafted slots (default: lowest unused)");
  app.add_flag("!--no-warm-start", o.warm_start, "random layers instead of the target's last ones");

  app.add_option("--sequences", o.sequences, "sequences per micro-step")->capture_default_str();
  app.add_option("--anchors", o.anchors, "anchors per sequence")->capture_default_str();
  app.add_option("--accumulate", o.accumulate, "micro-steps per step")->capture_default_str();
  app.add_option("--max-context", o.max_context, "context rows before the first anchor, 0: all");
  app.add_option("--ce", o.ce, "factor of the cross-entropy with labels")->capture_default_str();
  app.add_option("--soft-ce", o.soft_ce, "factor of the cross-entropy with the target")
      ->capture_default_str();
  app.add_option("--l1", o.l1, "factor of the distance to the target")->capture_default_str();
  app.add_option("--confidence", o.confidence, "factor of the confidence loss")->capture_default_str();
  app.add_option("--decay", o.decay, "slot j weighs exp(-j / decay)")->capture_default_str();

  app.add_option("--lr", o.learning_rate, "peak learning rate")->capture_default_str();
  app.add_option("--warmup", o.warmup, "share of the budget")->capture_default_str();
  app.add_option("--beta1", o.beta1, "AdamW")->capture_default_str();
  app.add_option("--beta2", o.beta2, "AdamW")->capture_default_str();
  app.add_option("--weight-decay", o.weight_decay, "AdamW")->capture_default_str();
  app.add_option("--clip", o.clip, "largest gradient norm")->capture_default_str();
  app.add_option("--average", o.average, "decay of averaged weights, 0: none")->capture_default_str();

  app.add_option("--seed", o.seed, "of data order, anchors and first weights")->capture_default_str();
  app.add_option("--holdout", o.holdout, "share of the samples never trained on")->capture_default_str();
  app.add_option("--checkpoint-minutes", o.checkpoint_minutes, "how often the state is written")
      ->capture_default_str();
  app.add_option("--checkpoint-steps", o.checkpoint_steps, "also every so many steps");
  app.add_option("-t,--threads", o.threads, "threads")->capture_default_str();
  app.add_option("--world", o.processes.world, "processes that train together")->capture_default_str();
  app.add_option("--process", o.processes.rank, "which of them this is, from 0")->capture_default_str();
  app.add_option("--store", o.processes.store,
                 "where they meet: a file that does not exist yet, or HOST:PORT of process 0");
  app.add_option("--interface", o.processes.interface, "network interface to use between machines");
  app.add_flag("--float32", o.float32, "no bf16 products");
  app.add_option("--device", o.device, "cpu or cuda")->capture_default_str();
}

/// Smoothed state of the progress line.
class Progress {
 public:
  explicit Progress(const dspark::TrainOptions& options)
      : options_(options), terminal_(isatty(STDERR_FILENO) != 0) {}

  void show(const dspark::TrainRecord& r) {
    const double keep = n_ == 0 ? 0.0 : 0.95;
    if (n_++ == 0) first_ = r;
    loss_ = keep * loss_ + (1 - keep) * r.loss;
    tau_ = keep * tau_ + (1 - keep) * r.tau;
    const auto now = std::chrono::steady_clock::now();
    const double interval = terminal_ ? 0.5 : 60.0;
    if (n_ > 1 && std::chrono::duration<double>(now - shown_).count() < interval) return;
    shown_ = now;
    const double seconds = r.elapsed_s - first_.elapsed_s;
    const double rate = seconds > 0 ? static_cast<double>(r.anchors - first_.anchors) / seconds : 0.0;
    double left = options_.minutes * 60 - r.elapsed_s;
    if (options_.steps > 0) {
      const auto done = static_cast<double>(r.step - first_.step);
      left = done > 0 ? seconds / done * static_cast<double>(options_.steps - r.step) : 0.0;
    }
    const auto minutes = static_cast<int64_t>(left / 60);
    fmt::print(stderr,
               "{}step {}  {:.0f} anchors/s  epoch {:.2f}  lr {:.2e}  loss {:.4f}  tau {:.3f}  norm {:.2f}  "
               "left {}:{:02d} h{}",
               terminal_ ? "\r\x1b[K" : "", r.step, rate, r.epoch, r.learning_rate, loss_, tau_,
               r.gradient_norm, minutes / 60, minutes % 60, terminal_ ? "" : "\n");
    std::fflush(stderr);
  }

  void note(const std::string& text) {
    fmt::print(stderr, "{}{}\n", terminal_ ? "\r\x1b[K" : "", text);
    std::fflush(stderr);
  }

 private:
  const dspark::TrainOptions& options_;
  bool terminal_;
  int64_t n_ = 0;
  double loss_ = 0;
  double tau_ = 0;
  dspark::TrainRecord first_;
  std::chrono::steady_clock::time_point shown_;
};

/// The sources that --data names: corpora, or none for cache folders, which the trainer opens itself.
dspark::Result<dspark::SampleSources> open_sources(const dspark::TrainOptions& options,
                                                   dspark::cli::LiveOptions live) {
  const auto is_corpus = [](const std::string& path) { return path.ends_with(".jsonl"); };
  const auto n = std::count_if(options.caches.begin(), options.caches.end(), is_corpus);
  dspark::SampleSources sources;
  if (n == 0) return sources;
  if (n < std::ssize(options.caches)) {
    return dspark::invalid_argument("--data: expected either cache folders or .jsonl files, found both");
  }
  live.model = options.target;
  live.corpora = options.caches;
  DSPARK_ASSIGN_OR_RETURN(std::unique_ptr<dspark::SampleSource> source, dspark::cli::open_live_source(live));
  sources.push_back(std::move(source));
  return sources;
}

dspark::Status train(const dspark::TrainOptions& options, const dspark::cli::LiveOptions& live,
                     const dspark::TrainCallbacks& callbacks) {
  DSPARK_RETURN_IF_ERROR(options.validate());
  DSPARK_ASSIGN_OR_RETURN(dspark::SampleSources sources, open_sources(options, live));
  return dspark::train_drafter(options, callbacks, std::move(sources));
}

}  // namespace

int main(int argc, char** argv) {
  dspark::TrainOptions options;
  CLI::App app("Trains a drafter from target caches or corpora.", "dspark train");
  add_options(app, options);
  dspark::cli::LiveOptions live;
  add_live_options(app, live);
  CLI11_PARSE(app, argc, argv);
  // Every step takes and frees the same large blocks: keep them, instead of asking the system each time.
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
  Progress progress(options);
  dspark::TrainCallbacks callbacks;
  callbacks.on_step = [&](const dspark::TrainRecord& record) {
    if (options.processes.rank == 0) progress.show(record);
    return !g_stop.load();
  };
  callbacks.on_note = [&](const std::string& text) { progress.note(text); };
  const dspark::Status status = train(options, live, callbacks);
  if (status.ok() && options.processes.rank > 0) return 0;
  if (status.ok()) {
    // The drafter is there; a picture that could not be drawn is no failure of the run.
    const dspark::Status drawn = dspark::cli::write_train_plots(options.out);
    progress.note(drawn.ok() ? "curves: " + options.out + "/tau.svg, loss.svg" : drawn.to_string());
    return 0;
  }
  fmt::print(stderr, "dspark: error: {}\n", status.message());
  return status.code() == dspark::StatusCode::kInvalidArgument ? 2 : 1;
}
