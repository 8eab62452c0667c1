#include "train_data/jobs.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <tuple>

namespace dspark {
namespace {

constexpr double kMaxTemperature = 10.0;
constexpr int32_t kMaxSamples = 1'000'000;

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (true) {
    const size_t at = text.find(separator);
    parts.push_back(text.substr(0, at));
    if (at == std::string_view::npos) return parts;
    text.remove_prefix(at + 1);
  }
}

template <typename T>
bool read_number(std::string_view text, T& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

Result<TemperatureMix> TemperatureMix::parse(std::string_view text) {
  TemperatureMix mix;
  for (const std::string_view item : split(text, ',')) {
    Part part;
    const std::vector<std::string_view> fields = split(item, ':');
    const bool fine = fields.size() <= 2 && read_number(fields[0], part.temperature) &&
                      (fields.size() == 1 || read_number(fields[1], part.weight));
    if (!fine || !(part.temperature >= 0.0 && part.temperature <= kMaxTemperature) ||
        !(part.weight > 0.0 && std::isfinite(part.weight))) {
      return invalid_argument("temps: want T or T:share, joined by commas, found '" + std::string(text) +
                              "'");
    }
    mix.parts.push_back(part);
  }
  return mix;
}

double TemperatureMix::at(double point) const {
  double total = 0.0;
  for (const Part& part : parts) total += part.weight;
  double left = point * total;
  for (const Part& part : parts) {
    if (left < part.weight) return part.temperature;
    left -= part.weight;
  }
  return parts.back().temperature;
}

Result<std::map<std::string, int32_t>> parse_task_samples(std::string_view text) {
  std::map<std::string, int32_t> samples;
  if (text.empty()) return samples;
  for (const std::string_view item : split(text, ',')) {
    const size_t at = item.rfind('=');
    int32_t n = 0;
    if (at == std::string_view::npos || at == 0 || !read_number(item.substr(at + 1), n) || n < 0 ||
        n > kMaxSamples) {
      return invalid_argument("task-samples: want TASK=N, joined by commas, found '" + std::string(text) +
                              "'");
    }
    samples[std::string(item.substr(0, at))] = n;
  }
  return samples;
}

uint64_t hash_of(uint64_t seed, std::string_view text, std::string_view purpose) {
  // FNV-1a over everything, then the finaliser of MurmurHash3, whose every bit depends on every other.
  uint64_t hash = 0xCBF29CE484222325u;
  const auto add = [&hash](uint8_t byte) { hash = (hash ^ byte) * 0x100000001B3u; };
  for (int shift = 0; shift < 64; shift += 8) add(static_cast<uint8_t>(seed >> shift));
  for (const char c : purpose) add(static_cast<uint8_t>(c));
  add(0);
  for (const char c : text) add(static_cast<uint8_t>(c));
  hash = (hash ^ (hash >> 33)) * 0xFF51AFD7ED558CCDu;
  hash = (hash ^ (hash >> 33)) * 0xC4CEB9FE1A85EC53u;
  return (hash ^ (hash >> 33)) >> 11;
}

std::vector<Job> make_jobs(std::span<const PromptRecord> prompts, const JobOptions& options) {
  std::vector<Job> jobs;
  const auto add = [&](const std::string& prompt_id, const std::string& task, const PromptRecord* prompt,
                       int32_t sample) {
    Job job;
    job.id = prompt_id + "#" + std::to_string(sample);
    job.task = task;
    job.prompt = prompt;
    job.seed = hash_of(options.seed, job.id, "answer");
    job.user_seed = hash_of(options.seed, job.id, "user");
    job.temperature =
        options.temperatures.at(static_cast<double>(hash_of(options.seed, job.id, "temperature")) * 0x1p-53);
    jobs.push_back(std::move(job));
  };
  for (const PromptRecord& prompt : prompts) {
    const auto own = options.task_samples.find(prompt.task);
    const int32_t n = own != options.task_samples.end() ? own->second : options.samples;
    for (int32_t sample = 0; sample < n; ++sample) add(prompt.id, prompt.task, &prompt, sample);
  }
  for (int32_t i = 0; i < options.n_self_prompts; ++i) {
    add(std::string(kSelfTask) + "/" + std::to_string(i), kSelfTask, nullptr, 0);
  }
  std::vector<std::tuple<uint64_t, size_t>> order;
  for (size_t i = 0; i < jobs.size(); ++i) order.emplace_back(hash_of(options.seed, jobs[i].id, "order"), i);
  std::sort(order.begin(), order.end());
  std::vector<Job> sorted;
  sorted.reserve(jobs.size());
  for (const auto& [hash, idx] : order) sorted.push_back(std::move(jobs[idx]));
  return sorted;
}

}  // namespace dspark
