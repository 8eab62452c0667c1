#pragma once
// What `dspark eval` and `dspark calibrate` share: options, prompts, and running them.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "cli/model_flags.h"
#include "cli/spec_flags.h"
#include "engine/evaluation.h"

namespace CLI {
class App;
}

namespace dspark::cli {

struct EvalFlags {
  ModelFlags model;
  SpecFlags spec = {.hybrid = false};  // the drafter itself is measured unless somebody asks
  std::vector<std::string> files;      // prompt files, one task each
  float temperature = 0.0f;
  int32_t max_tokens = 256;
  int32_t limit = 0;  // prompts of each file; 0: all
  int32_t batch = 8;  // sequences at the same time
  uint64_t seed = 980406;
  bool raw = false;
};

void add_eval_flags(CLI::App& command, EvalFlags& flags);

/// The prompts of one file.
struct EvalTask {
  std::string name;  // of the file, without folder and extension
  std::vector<EvalPrompt> prompts;
};

/// Reads the first `limit` prompts of a file (0: all) and encodes them, through the model's chat template
/// unless `raw`. The first prompt gets `seed`, the next one 1 more. requires: a tokenizer.
/// errors: the file, a prompt that gives no tokens; named with the file.
Result<EvalTask> read_eval_task(const std::string& path, const LoadedModel& loaded, int32_t limit, bool raw,
                                uint64_t seed);

/// Answers of one task, in the order of its prompts.
struct TaskAnswers {
  std::string name;
  std::vector<EvalAnswer> answers;
};

/// A model and its prompts, ready to be run with one drafter after the other.
class EvalSetup {
 public:
  /// Loads model and prompts. errors: flags, files, prompts that do not fit the model.
  static Result<EvalSetup> open(const EvalFlags& flags);

  const LoadedModel& loaded() const { return *loaded_; }
  const std::vector<EvalTask>& tasks() const { return tasks_; }

  /// An engine that speculates as `spec` says, with room for every prompt.
  Result<std::unique_ptr<Engine>> make_engine(const SpecFlags& spec);
  /// All tasks through `engine`, with progress on a terminal and Ctrl-C to stop.
  Result<std::vector<TaskAnswers>> run(Engine& engine, const std::string& label) const;

 private:
  EvalFlags flags_;
  KvDType kv_dtype_ = KvDType::kBF16;
  std::unique_ptr<LoadedModel> loaded_;
  std::vector<EvalTask> tasks_;
};

}  // namespace dspark::cli
