// Runs the tests of `dspark bench` on an engine with the C interface of ik_llama.cpp (llama.h), the same way
// as peer_llama.py does it on llama.cpp:
//
//   peer_driver MODEL --threads N --rows 1,8 --pass-depths 128 --prefill 512 --depths 0,4096 --repeats 3
//
// --flash-attn 0 or 1 turns the engine's flash attention off or on; without it the engine's default holds.
// Not part of the build: docs/benchmarks.md says how to compile it against a built ik_llama.cpp.

#include <llama.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

namespace {

constexpr int kPrefillRows = 512;
constexpr int kPassesPerRepeat = 3;
constexpr int kDecodeSteps = 16;

using Clock = std::chrono::steady_clock;

// Test, its size, and of a pass the tokens in the cache before it.
using Key = std::tuple<std::string, int, int>;
using Samples = std::map<Key, std::vector<double>>;

struct Plan {
  std::string model;
  int threads = 1;
  int prefill = 512;
  int repeats = 3;
  std::vector<int> rows = {1, 2, 4, 8, 16, 32};
  std::vector<int> pass_depths = {128};
  std::vector<int> depths = {0, 128, 4096};
  std::optional<bool> flash_attn;
};

void die(const char* message) {
  std::fprintf(stderr, "peer_driver: error: %s\n", message);
  std::exit(1);
}

std::vector<int> numbers(const char* text) {
  std::vector<int> values;
  for (const char* at = text; *at != '\0';) {
    char* end = nullptr;
    values.push_back(static_cast<int>(std::strtol(at, &end, 10)));
    if (end == at) die("expected numbers separated by commas");
    at = *end == ',' ? end + 1 : end;
  }
  return values;
}

Plan read_plan(int argc, char** argv) {
  if (argc < 2) die("no model given");
  Plan plan;
  plan.model = argv[1];
  for (int i = 2; i < argc; i += 2) {
    const std::string flag = argv[i];
    if (i + 1 == argc) die((flag + ": no value given").c_str());
    if (flag == "--threads")
      plan.threads = std::atoi(argv[i + 1]);
    else if (flag == "--prefill")
      plan.prefill = std::atoi(argv[i + 1]);
    else if (flag == "--repeats")
      plan.repeats = std::atoi(argv[i + 1]);
    else if (flag == "--rows")
      plan.rows = numbers(argv[i + 1]);
    else if (flag == "--pass-depths")
      plan.pass_depths = numbers(argv[i + 1]);
    else if (flag == "--flash-attn")
      plan.flash_attn = std::atoi(argv[i + 1]) != 0;
    else if (flag == "--depths")
      plan.depths = numbers(argv[i + 1]);
    else
      die(("unknown flag " + flag).c_str());
  }
  return plan;
}

int positions_of(const Plan& plan) {
  int most = std::max(plan.prefill, 1);
  for (int depth : plan.pass_depths) {
    for (int rows : plan.rows) most = std::max(most, depth + rows);
  }
  for (int depth : plan.depths) most = std::max(most, depth + kDecodeSteps);
  return most;
}

// One context with one sequence.
class Sequence {
 public:
  explicit Sequence(const Plan& plan) {
    llama_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
    llama_backend_init();
    const Clock::time_point start = Clock::now();
    model_ = llama_model_load_from_file(plan.model.c_str(), llama_model_default_params());
    if (model_ == nullptr) die("the model cannot be loaded");
    load_s = std::chrono::duration<double>(Clock::now() - start).count();
    llama_context_params params = llama_context_default_params();
    params.n_ctx = static_cast<uint32_t>(positions_of(plan));
    params.n_batch = params.n_ubatch = kPrefillRows;
    params.n_threads = params.n_threads_batch = static_cast<uint32_t>(plan.threads);
    if (plan.flash_attn) params.flash_attn = *plan.flash_attn;
    context_ = llama_init_from_model(model_, params);
    if (context_ == nullptr) die("no context");
    batch_ = llama_batch_init(kPrefillRows, 0, 1);
  }

  void forget_from(int position) { llama_kv_cache_seq_rm(context_, 0, position, -1); }

  // Seconds of one pass over `rows` rows from `position` on.
  double run(int position, int rows, bool all_logits) {
    batch_.n_tokens = rows;
    for (int i = 0; i < rows; ++i) {
      batch_.token[i] = next_token();
      batch_.pos[i] = position + i;
      batch_.n_seq_id[i] = 1;
      batch_.seq_id[i][0] = 0;
      batch_.logits[i] = all_logits || i + 1 == rows ? 1 : 0;
    }
    const Clock::time_point start = Clock::now();
    if (llama_decode(context_, batch_) != 0) die("llama_decode failed");
    llama_synchronize(context_);
    return std::chrono::duration<double>(Clock::now() - start).count();
  }

  double prefill(int tokens) {
    forget_from(0);
    double seconds = 0;
    for (int at = 0; at < tokens; at += kPrefillRows) {
      seconds += run(at, std::min(kPrefillRows, tokens - at), false);
    }
    return seconds;
  }

  double load_s = 0;

 private:
  llama_token next_token() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<llama_token>((state_ >> 33) % static_cast<uint64_t>(llama_n_vocab(model_)));
  }

  llama_model* model_ = nullptr;
  llama_context* context_ = nullptr;
  llama_batch batch_{};
  uint64_t state_ = 1;
};

void decode(Sequence& sequence, int depth, int steps, Samples& out) {
  sequence.forget_from(depth);
  for (int i = 0; i < steps; ++i) out[{"decode", depth, 0}].push_back(sequence.run(depth + i, 1, true));
}

void passes(Sequence& sequence, int depth, const std::vector<int>& sizes, Samples& out) {
  for (int i = 0; i < kPassesPerRepeat; ++i) {
    for (int rows : sizes) {
      sequence.forget_from(depth);
      out[{"pass", rows, depth}].push_back(sequence.run(depth, rows, true));
    }
  }
}

// Deep tests first, each cutting the cache back to its depth, so that it is filled once.
void one_repeat(Sequence& sequence, const Plan& plan, int steps, Samples& out) {
  const std::set<int> decodes(plan.depths.begin(), plan.depths.end());
  const std::set<int> pass_depths(plan.pass_depths.begin(), plan.pass_depths.end());
  std::set<int, std::greater<>> stops(decodes.begin(), decodes.end());
  stops.insert(pass_depths.begin(), pass_depths.end());
  sequence.prefill(stops.empty() ? 0 : *stops.begin());
  for (int depth : stops) {
    if (decodes.count(depth) != 0) decode(sequence, depth, steps, out);
    if (pass_depths.count(depth) != 0) passes(sequence, depth, plan.rows, out);
  }
  if (plan.prefill > 0) out[{"prefill", plan.prefill, 0}].push_back(sequence.prefill(plan.prefill));
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

void print_rows(const Samples& samples) {
  const char* separator = "";
  for (const auto& [key, seconds] : samples) {
    const auto& [test, size, depth] = key;
    const double middle = median(seconds);
    std::printf("%s{\"test\":\"%s\",", separator, test.c_str());
    if (test == "pass") std::printf("\"rows\":%d,\"ms\":%.6f,\"depth\":%d}", size, middle * 1e3, depth);
    if (test == "prefill") std::printf("\"tokens\":%d,\"tokens_per_s\":%.3f}", size, size / middle);
    if (test == "decode") std::printf("\"depth\":%d,\"tokens_per_s\":%.3f}", size, 1 / middle);
    separator = ",";
  }
}

}  // namespace

int main(int argc, char** argv) {
  const Plan plan = read_plan(argc, argv);
  Sequence sequence(plan);
  Samples samples;
  one_repeat(sequence, plan, 2, samples);  // warm-up
  samples.clear();
  for (int i = 0; i < plan.repeats; ++i) one_repeat(sequence, plan, kDecodeSteps, samples);
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  std::printf("{\"rows\":[");
  print_rows(samples);
  std::printf("],\"load_s\":%.3f,\"peak_rss_mb\":%.1f}\n", sequence.load_s,
              static_cast<double>(usage.ru_maxrss) / 1024);
  return 0;
}
