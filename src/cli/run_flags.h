#pragma once
// Options of `dspark run`.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "cli/answer_grammar.h"
#include "cli/model_flags.h"
#include "cli/spec_flags.h"
#include "engine/request.h"

namespace CLI {
class App;
}

namespace dspark::cli {

struct RunFlags {
  ModelFlags model;
  std::optional<std::string> prompt;       // -p
  std::optional<std::string> prompt_file;  // -f
  std::string system;
  bool raw = false;  // complete the text as it is, without the chat template
  int32_t n_predict = -1;
  int32_t context = 4096;  // 0: the model's
  bool no_prefix_cache = false;

  float temperature = 0.8f;
  int32_t top_k = 40;
  float top_p = 0.95f;
  float min_p = 0.05f;
  float repeat_penalty = 1.0f;
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  int64_t seed = -1;  // negative: choose one

  bool ignore_eos = false;
  std::vector<std::string> stop;
  GrammarFlags grammar;
  SpecFlags spec;

  bool json = false;
  bool show_drafts = false;
  std::string color = "auto";  // "auto", "always", "never"
  bool verbose = false;
};

void add_run_flags(CLI::App& command, RunFlags& flags);

/// errors: invalid_argument naming the flag.
Status check_run_flags(const RunFlags& flags);

/// Everything of a request but the prompt. `seed` is the one to use (see RunFlags::seed).
GenerateRequest request_from(const RunFlags& flags, uint64_t seed);

/// flags.seed, or a new one when it is negative. Small enough to be typed again.
uint64_t choose_seed(const RunFlags& flags);

}  // namespace dspark::cli
