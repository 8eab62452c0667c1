// dspark-train: the program behind `dspark train`. On its own because it links libtorch, which the engine
// never does.

#include <fmt/format.h>
#include <malloc.h>
#include <sys/ioctl.h>
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
#include "cli/train/progress.h"
#include "cli/train_plot.h"
#include "train/trainer.h"

namespace {

std::atomic<bool> g_stop{false};  // set by Ctrl-C: the state is written before the end

void on_signal(int) {
  g_stop.store(true);
}

/// Options of the target that computes features while the trainer works.
void add_live_options(CLI::App& app, dspark::TrainOptions& o, int& threads) {
  app.add_option(
         "--taps", o.taps,
         "with a corpus as data: layers whose outputs are features, -1: the embedding (default: five)")
      ->delimiter(',');
  app.add_flag("--log-sum-exp", o.log_sum_exp,
               "with a corpus as data: the target computes the log-sum-exp of its logits too");
  app.add_option("--max-length", o.max_length, "with a corpus as data: cut longer samples to so many tokens")
      ->capture_default_str();
  app.add_option("--target-threads", threads, "with a corpus as data: threads of the target")
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
  app.add_option("--kv-heads", o.kv_heads, "kv heads, a multiple of those there are; 0: as they are")
      ->capture_default_str();
  app.add_option("--add-layers", o.add_layers, "layers behind those of --init, at first without effect")
      ->capture_default_str();
  app.add_flag("--step-scale", o.step_scale,
               "weights move by their own size and that of their features: for targets unlike SmolLM2");
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

  app.add_option("--first-stage", o.first_stage, "share of the budget that trains slot 1 only");
  app.add_option("--first-anchors", o.first_anchors,
                 "anchors per sequence meanwhile (default: --block times)");
  app.add_option("--short-blocks", o.short_blocks,
                 "share of the later steps with blocks of --short-block slots");
  app.add_option("--short-block", o.short_block_size, "their slots")->capture_default_str();
  app.add_flag("--curriculum", o.curriculum, "the decay rises from 1 to --decay");
  app.add_flag("--loss-slide", o.loss_slide, "end with the factors of the reference: .1 / 0 / .9");

  app.add_option("--lr", o.learning_rate, "peak learning rate")->capture_default_str();
  app.add_option("--warmup", o.warmup, "share of the budget")->capture_default_str();
  app.add_option("--beta1", o.beta1, "AdamW")->capture_default_str();
  app.add_option("--beta2", o.beta2, "AdamW")->capture_default_str();
  app.add_option("--weight-decay", o.weight_decay, "AdamW")->capture_default_str();
  app.add_option("--clip", o.clip, "largest gradient norm")->capture_default_str();
  app.add_option("--average", o.average, "decay of averaged weights, 0: none")->capture_default_str();

  app.add_option("--seed", o.seed, "of data order, anchors and first weights")->capture_default_str();
  app.add_option("--holdout", o.holdout, "share of the prompts whose answers are never trained on")
      ->capture_default_str();
  app.add_option("--checkpoint-minutes", o.checkpoint_minutes, "how often the state is written")
      ->capture_default_str();
  app.add_option("--checkpoint-steps", o.checkpoint_steps, "also every so many steps");
  app.add_option("-t,--threads", o.threads, "threads")->capture_default_str();
  app.add_option("--world", o.processes.world, "processes that train together")->capture_default_str();
  app.add_option("--process", o.processes.rank, "which of them this is, from 0")->capture_default_str();
  app.add_option("--store", o.processes.store,
                 "where they meet: a file that does not exist yet, or HOST:PORT of process 0");
  app.add_option("--interface", o.processes.interface, "network interface to use between machines");
  CLI::Option* float32 = app.add_flag("--float32", o.float32, "no bf16 products");
  app.add_flag("--bf16", o.bf16, "bf16 products even where the CPU emulates them")->excludes(float32);
  app.add_option("--device", o.device, "cpu or cuda")->capture_default_str();
}

/// Prints progress and remarks to stderr.
class Screen {
 public:
  explicit Screen(const dspark::TrainOptions& options)
      : progress_(options), terminal_(isatty(STDERR_FILENO) != 0) {}

  void show(const dspark::TrainRecord& record) {
    progress_.add(record);
    const auto now = std::chrono::steady_clock::now();
    const double interval = terminal_ ? 0.5 : 60.0;
    if (shown_once_ && std::chrono::duration<double>(now - shown_).count() < interval) return;
    shown_once_ = true;
    shown_ = now;
    std::string line = progress_.line();
    if (terminal_) {
      // A wrapped line could not be written over.
      line.resize(std::min(line.size(), width() - 1));
      fmt::print(stderr, "\r\x1b[K{}", line);
    } else {
      fmt::print(stderr, "{}\n", line);
    }
    std::fflush(stderr);
  }

  void note(const std::string& text) {
    fmt::print(stderr, "{}{}\n", terminal_ ? "\r\x1b[K" : "", text);
    std::fflush(stderr);
  }

 private:
  static size_t width() {
    winsize size{};
    const bool known = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1;
    return known ? size.ws_col : 80;
  }

  dspark::cli::TrainProgress progress_;
  bool terminal_;
  bool shown_once_ = false;
  std::chrono::steady_clock::time_point shown_;
};

/// The sources that --data names: corpora, or none for cache folders, which the trainer opens itself.
dspark::Result<dspark::SampleSources> open_sources(const dspark::TrainOptions& options, int threads) {
  const auto is_corpus = [](const std::string& path) { return path.ends_with(".jsonl"); };
  const auto n = std::count_if(options.caches.begin(), options.caches.end(), is_corpus);
  dspark::SampleSources sources;
  if (n == 0) return sources;
  if (n < std::ssize(options.caches)) {
    return dspark::invalid_argument("--data: expected either cache folders or .jsonl files, found both");
  }
  dspark::cli::LiveOptions live;
  live.model = options.target;
  live.corpora = options.caches;
  live.layers = options.taps;
  live.max_length = options.max_length;
  live.log_sum_exp = options.log_sum_exp;
  live.threads = threads;
  DSPARK_ASSIGN_OR_RETURN(std::unique_ptr<dspark::SampleSource> source, dspark::cli::open_live_source(live));
  sources.push_back(std::move(source));
  return sources;
}

dspark::Status train(const dspark::TrainOptions& options, int target_threads,
                     const dspark::TrainCallbacks& callbacks) {
  DSPARK_RETURN_IF_ERROR(options.validate());
  DSPARK_ASSIGN_OR_RETURN(dspark::SampleSources sources, open_sources(options, target_threads));
  return dspark::train_drafter(options, callbacks, std::move(sources));
}

}  // namespace

int main(int argc, char** argv) {
  dspark::TrainOptions options;
  CLI::App app("Trains a drafter from target caches or corpora.", "dspark train");
  add_options(app, options);
  int target_threads = 1;
  add_live_options(app, options, target_threads);
  CLI11_PARSE(app, argc, argv);
  // Every step takes and frees the same large blocks: keep them, instead of asking the system each time.
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
  Screen screen(options);
  dspark::TrainCallbacks callbacks;
  callbacks.on_step = [&](const dspark::TrainRecord& record) {
    if (options.processes.rank == 0) screen.show(record);
    return !g_stop.load();
  };
  callbacks.on_note = [&](const std::string& text) { screen.note(text); };
  const dspark::Status status = train(options, target_threads, callbacks);
  if (status.ok() && options.processes.rank > 0) return 0;
  if (status.ok()) {
    // The drafter is there; a picture that could not be drawn is no failure of the run.
    const dspark::Status drawn = dspark::cli::write_train_plots(options.out);
    screen.note(drawn.ok() ? "curves: " + options.out + "/tau.svg, loss.svg" : drawn.to_string());
    return 0;
  }
  fmt::print(stderr, "dspark: error: {}\n", status.message());
  return status.code() == dspark::StatusCode::kInvalidArgument ? 2 : 1;
}
