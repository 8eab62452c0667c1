#pragma once
// Options of `dspark bench load`.

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "cli/model_flags.h"
#include "cli/spec_flags.h"
#include "load/arrivals.h"

namespace CLI {
class App;
}

namespace dspark::cli {

struct LoadFlags {
  ModelFlags model;
  SpecFlags spec;                  // without --spec
  std::vector<std::string> files;  // prompt files, one source each
  std::vector<double> weights;     // of the files and then of the synthetic lengths; empty: all the same
  std::vector<int32_t> synthetic;  // lengths of random prompts
  int32_t limit = 0;               // prompts of each file; 0: all
  bool raw = false;
  std::string answer_tokens = "64";  // "N" or "A-B"
  float temperature = 0.0f;
  uint64_t seed = 1;
  bool ignore_eos = false;

  std::vector<int32_t> concurrency = {1, 2, 4, 8, 16, 32};
  std::vector<std::string> policies;  // empty: default_policies()
  int32_t rounds = 3;
  int32_t requests = 0;  // measured per run; 0: three times the clients, at least 12
  int32_t warmup = 32;   // tokens
  double seconds = 60;   // most of one run
  double slice_s = 0.4;  // turns of policies that run together; 0: one after the other
  std::string arrivals = "closed";
  std::vector<double> rates = {1, 2, 4};
  int32_t max_sequences = 0;  // 0: the largest concurrency; 32 for open arrivals
  int64_t kv_tokens = 0;      // see EngineOptions
  std::vector<int32_t> burst;
  double phase_seconds = 3;
  bool random_drafter = false;
  bool remember = false;
  bool reference = false;

  std::string json;
  std::string plot;
  std::string record;
  bool strict = false;
  bool verbose = false;
};

void add_load_flags(CLI::App& command, LoadFlags& flags);

/// What the flags say, checked before a model is loaded.
struct LoadChoice {
  ArrivalProcess arrivals;
  AcceptRule rule = AcceptRule::kCoupled;
  std::vector<std::string> policies;  // as VerifyPolicy spells them
  std::vector<double> loads;          // clients or requests per second
  int32_t least_tokens = 0, most_tokens = 0;
  int32_t max_sequences = 0;
  bool has_drafter = false;
};
/// errors: invalid_argument or not_found naming the flag.
Result<LoadChoice> check_load_flags(const LoadFlags& flags);

}  // namespace dspark::cli
