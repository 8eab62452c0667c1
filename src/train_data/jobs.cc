#include "train_data/jobs.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>
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

std::map<std::string, PromptFrame> frames_of(std::span<const PromptRecord> prompts,
                                             const std::map<std::string, int32_t>& tasks) {
  std::map<std::string, std::vector<std::string_view>> texts;
  for (const PromptRecord& prompt : prompts) {
    if (tasks.contains(prompt.task)) texts[prompt.task].push_back(prompt.prompt);
  }
  std::map<std::string, PromptFrame> frames;
  for (const auto& [task, of_task] : texts) frames[task] = frame_of(of_task);
  return frames;
}

bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\r' || c == '\n';
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

Result<std::map<std::string, int32_t>> parse_task_counts(std::string_view text, std::string_view name) {
  std::map<std::string, int32_t> counts;
  if (text.empty()) return counts;
  for (const std::string_view item : split(text, ',')) {
    const size_t at = item.rfind('=');
    int32_t n = 0;
    if (at == std::string_view::npos || at == 0 || !read_number(item.substr(at + 1), n) || n < 0 ||
        n > kMaxSamples) {
      return invalid_argument(std::string(name) + ": want TASK=N, joined by commas, found '" +
                              std::string(text) + "'");
    }
    counts[std::string(item.substr(0, at))] = n;
  }
  return counts;
}

PromptFrame frame_of(std::span<const std::string_view> prompts) {
  const std::set<std::string_view> different(prompts.begin(), prompts.end());
  if (different.size() < 2) return {};
  std::string_view head = *different.begin(), tail = head;
  for (const std::string_view prompt : different) {
    const auto n_head = std::ranges::mismatch(head, prompt).in1 - head.begin();
    head = head.substr(0, static_cast<size_t>(n_head));
    const auto n_tail =
        std::mismatch(tail.rbegin(), tail.rend(), prompt.rbegin(), prompt.rend()).first - tail.rbegin();
    tail = tail.substr(tail.size() - static_cast<size_t>(n_tail));
  }
  const size_t head_end = head.rfind('\n'), tail_begin = tail.find('\n');
  PromptFrame frame;
  if (head_end != std::string_view::npos) frame.head = head.substr(0, head_end + 1);
  if (tail_begin != std::string_view::npos) frame.tail = tail.substr(tail_begin);
  return frame;
}

std::string beginning_of(std::string_view prompt, const PromptFrame& frame, double point) {
  if (prompt.size() <= frame.head.size() + frame.tail.size()) return {};
  const size_t n_inside = prompt.size() - frame.head.size() - frame.tail.size();
  const std::string_view inside = prompt.substr(frame.head.size(), n_inside);
  // Earlier cuts leave too little to tell the task, later ones hardly anything to invent.
  std::vector<size_t> cuts;
  for (size_t i = std::max<size_t>(n_inside / 5, 1); i < n_inside * 7 / 10; ++i) {
    if (is_space(inside[i]) && !is_space(inside[i - 1])) cuts.push_back(i);
  }
  if (cuts.empty()) return {};
  const size_t cut = cuts[static_cast<size_t>(point * static_cast<double>(cuts.size()))];
  return std::string(prompt.substr(0, frame.head.size() + cut));
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
  const auto share_of = [&](const std::string& id, std::string_view purpose) {
    return static_cast<double>(hash_of(options.seed, id, purpose)) * 0x1p-53;
  };
  const auto add = [&](const std::string& prompt_id, const std::string& task, const PromptRecord* prompt,
                       int32_t sample) -> Job& {
    Job job;
    job.id = prompt_id + "#" + std::to_string(sample);
    job.task = task;
    job.prompt = prompt;
    job.seed = hash_of(options.seed, job.id, "answer");
    job.user_seed = hash_of(options.seed, job.id, "user");
    job.temperature = options.temperatures.at(share_of(job.id, "temperature"));
    return jobs.emplace_back(std::move(job));
  };
  const std::map<std::string, PromptFrame> frames = frames_of(prompts, options.task_variations);
  for (const PromptRecord& prompt : prompts) {
    const auto own = options.task_samples.find(prompt.task);
    const int32_t n = own != options.task_samples.end() ? own->second : options.samples;
    for (int32_t sample = 0; sample < n; ++sample) add(prompt.id, prompt.task, &prompt, sample);
    const auto frame = frames.find(prompt.task);
    if (frame == frames.end()) continue;
    for (int32_t i = 0; i < options.task_variations.at(prompt.task); ++i) {
      const std::string id = prompt.id + kVariationMark + std::to_string(i);
      std::string beginning = beginning_of(prompt.prompt, frame->second, share_of(id, "cut"));
      if (beginning.empty()) continue;
      Job& job = add(id, prompt.task, &prompt, 0);
      job.beginning = std::move(beginning);
      job.ending = frame->second.tail;
    }
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
