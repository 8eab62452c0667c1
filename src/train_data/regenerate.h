#pragma once
// Generates answers with the target itself, many at once.

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/engine.h"
#include "train_data/corpus.h"
#include "train_data/feature_tap.h"
#include "train_data/jobs.h"

namespace dspark {

struct LoadedModel;  // engine/loader.h

/// How texts become ids and back.
struct PromptCodec {
  /// Ids of a prompt, up to where the answer begins. errors: a template that refuses it.
  std::function<Result<std::vector<int32_t>>(const std::string& prompt)> encode;
  /// Ids of words alone, without anything in front or behind.
  std::function<std::vector<int32_t>(const std::string& words)> encode_words;
  /// Ids that make the target write a prompt; empty: it continues nothing, so it cannot.
  std::vector<int32_t> self_header;
  /// What it writes behind them is a prompt to be answered (instruct models), not the text itself (base).
  bool self_writes_prompt = true;
  /// Visible text of ids.
  std::function<std::string(std::span<const int32_t> ids)> decode;
};

/// The codec of a loaded model: its chat template, or with `raw` or without a template plain text.
/// requires: `loaded` outlives the codec. errors: unsupported (no tokenizer), a template that does not parse.
Result<PromptCodec> make_prompt_codec(const LoadedModel& loaded, bool raw);

struct RegenerateOptions {
  int32_t batch = 64;         // sequences that run at the same time
  int32_t max_tokens = 256;   // of an answer
  int32_t max_prompt = 1024;  // longer prompts are left out
  int32_t top_k = 0;
  float top_p = 1.0f;
  double user_temperature = 1.0;  // of self-written prompts
  float user_top_p = 0.95f;
  int32_t max_user_tokens = 200;   // a self-written prompt that does not end by then is left out
  int64_t max_answer_tokens = -1;  // end when the corpus has so many; -1: when all jobs are done

  /// Positions of one sequence: EngineOptions::context_length that suffices.
  int32_t context_length() const { return longest_text() + kTokensBehind; }
  int32_t longest_text() const { return max_prompt + max_tokens; }
  /// With features every answer goes on behind its end until the row of its last token was computed.
  static constexpr int32_t kTokensBehind = 2;
  /// errors: invalid_argument naming the option.
  Status validate() const;
};

/// Counts of a run.
struct RegenerateCounts {
  int64_t answers = 0;
  int64_t answer_tokens = 0;
  int64_t prompt_tokens = 0;
  int64_t jobs_done = 0;                    // with or without a record
  std::map<std::string, int64_t> left_out;  // reason -> jobs without a record
  bool finished = false;                    // all jobs done or max_answer_tokens reached; else cancelled
};

/// Where the features of the answers go.
struct FeatureSink {
  FeatureTap* tap = nullptr;  // the engine's drafter; the engine's policy is fixed:1
  /// Gets every record's features behind its `sink`: ids, mask, features, log-sum-exp of supervised tokens.
  std::function<Status(const CorpusRecord&, TargetCacheSample&&)> write;
};

/// Runs `jobs` and hands the records to `sink` in the order of the jobs, whatever the batch size. The answers
/// depend on job and options only, not on batch, threads or other jobs. `n_before`: answer tokens that the
/// corpus holds already. on_step, when given, is called after every step; `cancel` true ends the run. With
/// `features` the answers are the same, and each costs one row more.
/// requires: `engine` is idle, allows options.batch sequences of options.context_length() tokens.
/// errors: those of the codec, engine and sink; out_of_memory when a forward pass failed.
Result<RegenerateCounts> regenerate(Engine& engine, const PromptCodec& codec, std::span<const Job> jobs,
                                    const RegenerateOptions& options, int64_t n_before,
                                    const std::function<Status(CorpusRecord&&)>& sink,
                                    const std::function<void(const RegenerateCounts&)>& on_step = {},
                                    const std::atomic<bool>* cancel = nullptr,
                                    const FeatureSink* features = nullptr);

/// What a corpus says about the settings of one of its records.
struct ExistingRecord {
  uint64_t seed = 0;
  double temperature = 0.0;
};

/// Jobs that a corpus with `records` (by id) does not answer yet.
/// errors: invalid_argument when a record was made with another seed or temperature than its job has.
Result<std::vector<Job>> jobs_left(std::vector<Job> jobs,
                                   const std::map<std::string, ExistingRecord>& records);

}  // namespace dspark
