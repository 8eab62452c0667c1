#pragma once
// Training of drafters (DSpark, DFlash, Eagle3, MTP) from target caches or other sources of samples. No
// header of the tensor library here.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/status.h"
#include "train/sample_source.h"

namespace dspark {

/// One of several processes that train a drafter together, each on its share of every step.
struct ProcessOptions {
  int32_t rank = 0;
  int32_t world = 1;
  /// Where they meet: a file that does not exist yet, on a disk that all see, or HOST:PORT, where rank 0
  /// listens.
  std::string store;
  std::string interface;  // of the network; empty: the one behind the machine's name

  /// errors: invalid_argument naming the option.
  Status validate() const;
};

/// Everything that decides a run. Defaults are the recipe for small budgets (docs/training.md).
struct TrainOptions {
  std::string target;               // .gguf file or Hugging Face folder
  std::vector<std::string> caches;  // target cache folders; unused with sources of the caller
  std::string out;                  // run folder: state, log, drafter
  std::string init;                 // a drafter to start from; empty: from the target's own layers
  bool resume = false;              // continue the run in `out`
  // How sources of the caller were made from `caches`; the trainer only sees that they stay the same.
  std::vector<int32_t> taps;
  int32_t max_length = 4096;
  bool log_sum_exp = false;

  // The drafter; but for the last two unused with `init`, all unused with `resume`.
  std::string kind = "dspark";  // dflash: no heads; eagle3; mtp
  int32_t layers = 1;           // of dspark and dflash; the others have one
  int32_t block_size = 7;       // of eagle3 the steps of the unroll; mtp drafts one token
  int32_t markov_rank = 64;
  std::string head = "vanilla";  // or gated, rnn
  int32_t draft_vocab = 8192;    // most frequent ids of the caches; 0: the whole vocabulary
  std::string draft_vocab_file;  // of `dspark data vocab`, instead of the choice above
  int32_t mask_token = -1;       // -1: the lowest id that the caches do not contain
  bool warm_start = true;        // layers from the target's last ones; false: random
  int32_t kv_heads = 0;          // 0: the target's, or those of `init`; more: src/train/draft_growth.h
  int32_t add_layers = 0;        // behind those of `init`, at first without effect; only with `init`

  // One step.
  int32_t sequences = 4;    // per micro-step and process
  int32_t anchors = 24;     // per sequence, at most; of dspark and dflash
  int32_t accumulate = 1;   // micro-steps whose gradients are averaged
  int64_t max_context = 0;  // context rows kept before a sequence's first anchor; 0: all
  // Terms of the loss of dspark and dflash; the others have the soft cross-entropy alone.
  double ce = 0.0;
  double soft_ce = 0.5;
  double l1 = 0.5;
  double confidence = 1.0;
  double decay = 4.0;

  // What changes on the way (src/train/step_plan.h).
  double first_stage = 0;        // share of the budget that trains slot 1 only; 0: none
  int32_t first_anchors = 0;     // per sequence in that stage; 0: block_size times `anchors`
  double short_blocks = 0;       // share of the other steps with blocks of short_block_size slots
  int32_t short_block_size = 3;  // then the drafter has such blocks when few drafts are asked for, too
  bool curriculum = false;       // the decay rises from 1
  bool loss_slide = false;       // the factors of the losses end at those of the reference

  // Optimiser.
  double learning_rate = 3e-3;
  double warmup = 0.04;  // share of the budget
  double beta1 = 0.9;
  double beta2 = 0.99;
  double weight_decay = 0.0;
  double clip = 1.0;
  bool step_scale = false;  // weights move by their size and that of their features (src/train/step_scale.h)
  double average = 0.0;     // decay of the averaged weights that are exported; 0: none

  // Budget: exactly one of the two. Both count what earlier parts of a resumed run used.
  int64_t steps = 0;
  double minutes = 0;

  uint64_t seed = 42;
  double holdout = 0.02;           // share of the prompts kept for evaluation
  double checkpoint_minutes = 10;  // state and drafter are written this often, and at the end
  int64_t checkpoint_steps = 0;    // and, if not 0, after every so many steps
  int32_t threads = 1;
  ProcessOptions processes;
  bool float32 = false;        // no bf16 products
  bool bf16 = false;           // bf16 products on a CPU that has to emulate them too
  std::string device = "cpu";  // or cuda

  /// errors: invalid_argument naming the option.
  Status validate() const;
};

/// One step as it goes to the log.
struct TrainRecord {
  int64_t step = 0;  // from 1
  double elapsed_s = 0;
  int64_t anchors = 0;  // blocks since the beginning
  double epoch = 0;
  double learning_rate = 0;
  double loss = 0, ce = 0, soft_ce = 0, l1 = 0, confidence = 0;
  double tau = 0;  // 1 + expected accepted drafts at temperature 1, teacher forced
  std::vector<double> accept_rate;
  double confidence_abs_error = 0, confidence_bias = 0;
  double gradient_norm = 0;
};

/// What a run tells while it works.
struct TrainCallbacks {
  /// After every step. returns: false to stop; the state is written first.
  std::function<bool(const TrainRecord&)> on_step;
  /// Remarks of one line: what was loaded, written, measured on held-out samples.
  std::function<void(const std::string&)> on_note;
};

/// Runs or continues a training run. Files in `out`: state.safetensors (all that resuming needs),
/// options.json (a run continues with the options that it began with, src/train/run_options.h), log.csv (one
/// line per step), eval.csv (held-out samples at every checkpoint), draft/ (the drafter, DeepSpec layout). A
/// run that was killed continues from its last state and gives the losses of an uninterrupted one, as long as
/// its budget is in steps. errors: whatever opening reports; invalid_argument when target, caches and drafter
/// do not fit.
/// With several processes rank 0 writes the files; its clock and its budget decide, and the loss of a step is
/// that of one process with all their sequences.
/// `sources`: where samples come from; none: options.caches.
Status train_drafter(const TrainOptions& options, const TrainCallbacks& callbacks,
                     SampleSources sources = {});

}  // namespace dspark
