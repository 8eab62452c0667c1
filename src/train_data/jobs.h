#pragma once
// What is to be generated: which prompt, how often, with which seed and temperature. All of it is a function
// of the settings and of the prompt's id alone, so a run can be cut, continued, and enlarged.

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "train_data/corpus.h"

namespace dspark {

/// Temperatures and how often each is used.
struct TemperatureMix {
  struct Part {
    double temperature = 0.0;
    double weight = 1.0;
  };
  std::vector<Part> parts;

  /// "0.8", "0,0.7,0.8" (equal shares) or "0:0.1,0.8:0.9" (shares). errors: invalid_argument.
  static Result<TemperatureMix> parse(std::string_view text);
  /// The part whose share of [0, 1) holds `point`.
  double at(double point) const;
};

/// "gsm8k=1,mbpp=6" -> a count per prompt of these tasks. errors: invalid_argument, naming the option `name`.
Result<std::map<std::string, int32_t>> parse_task_counts(std::string_view text, std::string_view name);

struct JobOptions {
  int32_t samples = 1;                             // answers per prompt
  std::map<std::string, int32_t> task_samples;     // for these tasks instead
  std::map<std::string, int32_t> task_variations;  // other prompts per prompt of these tasks, one answer each
  int32_t n_self_prompts = 0;                      // prompts that the target writes itself
  TemperatureMix temperatures;
  uint64_t seed = 0;
};

/// Task name of self-written prompts.
inline constexpr char kSelfTask[] = "self";
/// Stands between the id of a prompt and the number of its variation.
inline constexpr char kVariationMark = '~';

/// One answer to be generated.
struct Job {
  std::string id;  // "task/prompt#sample", of a variation "task/prompt~variation#0"
  std::string task;
  const PromptRecord* prompt = nullptr;  // null: the target writes its prompt
  std::string beginning;                 // not empty: the target writes its prompt from here on, a variation
  std::string ending;                    // ... and this comes behind, unless what it wrote has it
  double temperature = 0.0;
  uint64_t seed = 0;       // of the answer
  uint64_t user_seed = 0;  // of the prompt, when the target writes it
};

/// All jobs, in an order that mixes tasks evenly and depends on ids and seed only, so that every first part
/// of it is a fair sample. requires: `prompts` outlive the jobs.
std::vector<Job> make_jobs(std::span<const PromptRecord> prompts, const JobOptions& options);

/// What all prompts of a task have in common: whole lines at their beginning and at their end (instructions,
/// fences).
struct PromptFrame {
  std::string head;  // ends with a line break, or is empty
  std::string tail;  // begins with a line break, or is empty
};
/// Of fewer than two different prompts the frame is empty.
PromptFrame frame_of(std::span<const std::string_view> prompts);

/// The beginning of a prompt for a variation: up to a white space that `point` of [0, 1) chooses, behind a
/// fifth and before seven tenths of what is inside the frame. Empty: there is none.
std::string beginning_of(std::string_view prompt, const PromptFrame& frame, double point);

/// A number below 2^53 (exact in any JSON reader) from a seed and a text.
uint64_t hash_of(uint64_t seed, std::string_view text, std::string_view purpose);

}  // namespace dspark
