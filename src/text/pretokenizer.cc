#include "text/pretokenizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>

#include "text/utf8.h"

namespace dspark {
namespace {

// The patterns as published in the tokenizer.json files of the model families.
constexpr const char* kGpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr const char* kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kQwen35 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kGpt4o =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kTekken =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kNumbers1to3 = R"(\p{N}{1,3})";
constexpr const char* kCjk = R"([\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+)";
constexpr const char* kDeepSeek3 =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kPunctuation = R"([\p{P}\$\+<=>\^~\|]+)";
constexpr const char* kDigits = "digits";  // not a pattern: every digit apart

struct Family {
  std::array<const char*, 4> steps;  // unused ones are nullptr
  bool ignore_merges;
  bool add_bos;
};

struct Name {
  std::string_view name;
  const Family* family;
};

constexpr Family kDefaultFamily{{kPunctuation, kGpt2, R"(\p{N}+)", "[0-9]{3}"}, false, false};
constexpr Family kGpt2Family{{kGpt2}, false, false};
constexpr Family kSmolFamily{{kDigits, kGpt2}, false, false};
constexpr Family kLlama3Family{{kLlama3}, true, true};
constexpr Family kDbrxFamily{{kLlama3}, false, false};
constexpr Family kQwen2Family{{kQwen2}, false, false};
constexpr Family kQwen35Family{{kQwen35}, false, false};
constexpr Family kGpt4oFamily{{kGpt4o}, false, false};
constexpr Family kTekkenFamily{{kTekken}, true, true};
constexpr Family kDeepSeek3Family{{kNumbers1to3, kCjk, kDeepSeek3}, false, false};

constexpr Name kNames[] = {
    {"default", &kDefaultFamily},     {"gpt-2", &kGpt2Family},
    {"phi-2", &kGpt2Family},          {"olmo", &kGpt2Family},
    {"smollm", &kSmolFamily},         {"starcoder", &kSmolFamily},
    {"refact", &kSmolFamily},         {"command-r", &kSmolFamily},
    {"llama-bpe", &kLlama3Family},    {"llama3", &kLlama3Family},
    {"llama-v3", &kLlama3Family},     {"falcon3", &kLlama3Family},
    {"dbrx", &kDbrxFamily},           {"smaug-bpe", &kDbrxFamily},
    {"qwen2", &kQwen2Family},         {"deepseek-r1-qwen", &kQwen2Family},
    {"qwen35", &kQwen35Family},       {"gpt-4o", &kGpt4oFamily},
    {"tekken", &kTekkenFamily},       {"deepseek-v3", &kDeepSeek3Family},
    {"joyai-llm", &kDeepSeek3Family},
};

const Family* find_family(std::string_view name) {
  if (name.empty()) name = "default";
  for (const Name& known : kNames) {
    if (known.name == name) return known.family;
  }
  return nullptr;
}

bool is_number(std::string_view rest, size_t& length) {
  const uint8_t lead = static_cast<uint8_t>(rest[0]);
  length = std::min(utf8_announced_length(lead), rest.size());
  if (lead < 0x80) return lead >= '0' && lead <= '9';
  utf8proc_int32_t code_point = -1;
  if (utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(rest.data()),
                       static_cast<utf8proc_ssize_t>(length), &code_point) <= 0) {
    return false;
  }
  const utf8proc_category_t category = utf8proc_category(code_point);
  return category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL ||
         category == UTF8PROC_CATEGORY_NO;
}

}  // namespace

Result<PreTokenizer> PreTokenizer::named(std::string_view name) {
  const Family* family = find_family(name);
  if (family == nullptr) {
    std::string message = "tokenizer.ggml.pre: unknown pre-tokenizer '" + std::string(name) + "'; known:";
    for (const Name& known : kNames) message += " " + std::string(known.name);
    return unsupported(std::move(message));
  }
  PreTokenizer out;
  for (const char* step : family->steps) {
    if (step == nullptr) break;
    if (step == kDigits) {
      out.add_digits(true);
      continue;
    }
    DSPARK_ASSIGN_OR_RETURN(Regex regex, Regex::compile(step));
    out.add_split(std::move(regex), Behavior::kIsolated, false);
  }
  return out;
}

bool PreTokenizer::ignores_merges(std::string_view name) {
  const Family* family = find_family(name);
  return family != nullptr && family->ignore_merges;
}

bool PreTokenizer::adds_bos(std::string_view name) {
  const Family* family = find_family(name);
  return family != nullptr && family->add_bos;
}

void PreTokenizer::add_split(Regex pattern, Behavior behavior, bool invert) {
  Step step;
  step.regex.push_back(std::move(pattern));
  step.behavior = behavior;
  step.invert = invert;
  steps_.push_back(std::move(step));
}

void PreTokenizer::add_digits(bool individual) {
  Step step;
  step.individual_digits = individual;
  steps_.push_back(std::move(step));
}

void PreTokenizer::append(PreTokenizer other) {
  for (Step& step : other.steps_) steps_.push_back(std::move(step));
}

// One pass over a text: each step hands its words to the next, the last one to `emit`.
struct PreTokenizer::Walk {
  const std::vector<Step>& steps;
  std::string_view text;
  Regex::Scratch& scratch;
  const std::function<void(size_t, size_t)>& emit;

  void run(size_t step_idx, size_t begin, size_t end) {
    if (begin == end) return;
    if (step_idx == steps.size()) return emit(begin, end);
    const Step& step = steps[step_idx];
    if (step.regex.empty()) return digits(step_idx, begin, end);
    if (step.behavior == Behavior::kIsolated) return isolate(step_idx, begin, end);
    return delimit(step_idx, begin, end);
  }

  void digits(size_t step_idx, size_t begin, size_t end) {
    const bool individual = steps[step_idx].individual_digits;
    size_t word = begin;
    bool word_is_number = false;
    for (size_t i = begin; i < end;) {
      size_t length = 1;
      const bool number = is_number(text.substr(i, end - i), length);
      if (number != word_is_number || (number && individual)) {
        run(step_idx + 1, word, i);
        word = i;
        word_is_number = number;
      }
      i += length;
    }
    run(step_idx + 1, word, end);
  }

  // The common case: matches and what lies between them are words. Inverting changes nothing.
  void isolate(size_t step_idx, size_t begin, size_t end) {
    const std::string_view part = text.substr(begin, end - begin);
    size_t done = 0;
    while (const auto match = steps[step_idx].regex.front().find(part, done, scratch)) {
      run(step_idx + 1, begin + done, begin + match->first);
      run(step_idx + 1, begin + match->first, begin + match->second);
      done = match->second;
    }
    run(step_idx + 1, begin + done, end);
  }

  struct Piece {
    size_t begin;
    size_t end;
    bool delimiter;
  };

  std::vector<Piece> pieces(const Step& step, size_t begin, size_t end) {
    const std::string_view part = text.substr(begin, end - begin);
    std::vector<Piece> out;
    size_t done = 0;
    while (const auto match = step.regex.front().find(part, done, scratch)) {
      if (match->first > done) out.push_back({begin + done, begin + match->first, step.invert});
      out.push_back({begin + match->first, begin + match->second, !step.invert});
      done = match->second;
    }
    if (begin + done < end) out.push_back({begin + done, end, step.invert});
    return out;
  }

  void delimit(size_t step_idx, size_t begin, size_t end) {
    const Step& step = steps[step_idx];
    std::vector<Piece> all = pieces(step, begin, end);
    size_t word = begin;
    for (size_t i = 0; i < all.size(); ++i) {
      const bool last = i + 1 == all.size();
      const bool joins_next =
          !last &&
          ((step.behavior == Behavior::kContiguous && all[i].delimiter == all[i + 1].delimiter) ||
           (step.behavior == Behavior::kMergedWithPrevious && !all[i].delimiter && all[i + 1].delimiter) ||
           (step.behavior == Behavior::kMergedWithNext && all[i].delimiter && !all[i + 1].delimiter));
      if (joins_next) continue;
      const bool removed = step.behavior == Behavior::kRemoved && all[i].delimiter;
      if (!removed) run(step_idx + 1, word, all[i].end);
      word = all[i].end;
    }
  }
};

void PreTokenizer::split(std::string_view text, Regex::Scratch& scratch,
                         const std::function<void(size_t, size_t)>& emit) const {
  Walk walk{steps_, text, scratch, emit};
  walk.run(0, 0, text.size());
}

}  // namespace dspark
