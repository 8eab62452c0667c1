#pragma once
// dspark as a library, the short way: one model, one text at a time. Only standard headers.
//
//   std::string error;
//   auto generator = dspark::Generator::open("model.gguf", {}, &error);
//   if (!generator) { report(error); return; }
//   dspark::GenerationSummary summary;
//   generator->generate("Once upon a time", {.max_tokens = 64}, [](std::string_view piece) {
//     std::cout << piece << std::flush;
//     return true;
//   }, &summary, &error);
//
// For several sequences in one batch, token ids and per-token detail use dspark::Engine
// (src/engine/engine.h), whose interface is not stable yet.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace dspark {

/// How to load and run a model.
struct GeneratorOptions {
  int threads = 0;            // 0: physical cores
  int context_length = 4096;  // most tokens of prompt plus text; more memory, not more time, when unused
  /// Who proposes tokens: "none", "ngram", "ngram:MAX", "ngram:MIN-MAX", or the path of a learned drafter,
  /// which works together with prompt lookup: the better of the two proposes.
  std::string drafter = "none";
  /// Drafted tokens verified per step: "off", "fixed:K", "threshold:T" (up to the first confidence below T),
  /// "causal" or "adaptive" (what pays at the present load, by a measurement of half a second at the start).
  /// Empty: "off" without a drafter, "adaptive" with one.
  std::string policy = {};
  /// "coupled": same seed, same text, with and without a drafter; "rejection" and "block" accept more when
  /// sampling and keep the distribution of texts only. Greedy text never changes.
  std::string accept_rule = "coupled";
  /// Path of a file that 'dspark calibrate' wrote; "none": no calibration; empty: the one that lies beside
  /// the drafter ("NAME.calibration.json" for "NAME.gguf"), if any.
  std::string calibration = {};
};

/// How to write one text. Defaults are neutral: the model's own distribution.
struct GenerationOptions {
  int max_tokens = -1;       // -1: as many as the context holds
  float temperature = 1.0f;  // 0: greedy
  int top_k = 0;             // 0: off
  float top_p = 1.0f;        // 1: off
  float min_p = 0.0f;        // 0: off
  float repetition_penalty = 1.0f;
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  uint64_t seed = 0;                   // same seed, same text (see GeneratorOptions::accept_rule)
  std::vector<std::string> stop = {};  // end the text before the first of these
  bool ignore_eos = false;
  bool parse_special = false;  // the names of special tokens in the prompt stand for the tokens
};

/// What a text took.
struct GenerationSummary {
  std::string text;
  std::string finish_reason;  // "stop", "length", "cancelled"
  int64_t prompt_tokens = 0;
  int64_t output_tokens = 0;
  double prompt_s = 0;
  double decode_s = 0;
  int64_t rounds = 0;  // of verification; drafted >= verified >= accepted
  int64_t drafted = 0;
  int64_t verified = 0;
  int64_t accepted = 0;
};

/// A loaded model. thread: one call at a time.
class Generator {
 public:
  /// Loads a GGUF file, a safetensors file or a Hugging Face folder.
  /// returns: null on failure, with one line in *error (when given) that names the file or option.
  static std::unique_ptr<Generator> open(const std::string& path, const GeneratorOptions& options = {},
                                         std::string* error = nullptr);
  ~Generator();
  Generator(const Generator&) = delete;
  Generator& operator=(const Generator&) = delete;

  /// Continues `prompt`. on_text (may be empty) gets the text as it comes, whole characters only; returning
  /// false ends it ("cancelled"). returns: false on failure, with one line in *error.
  bool generate(const std::string& prompt, const GenerationOptions& options,
                const std::function<bool(std::string_view)>& on_text = {},
                GenerationSummary* summary = nullptr, std::string* error = nullptr);

 private:
  struct Impl;
  explicit Generator(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace dspark
