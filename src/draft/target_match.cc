#include "draft/target_match.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "formats/error_text.h"

namespace dspark {
namespace {

constexpr int64_t kOrdinaryToken = 1;

/// Words that say nothing about which model it is: how it was tuned to talk, and how it is packed.
constexpr std::string_view kNoModel[] = {"instruct", "chat", "base", "it",   "hf",    "gguf", "awq",
                                         "gptq",     "bf16", "f16",  "fp16", "model", "int4", "int8"};
constexpr std::string_view kPurposes[] = {"coder", "code", "math", "guard", "distill", "thinking", "vl"};

template <size_t n>
bool contains(const std::string_view (&words)[n], const std::string& word) {
  return std::find(std::begin(words), std::end(words), word) != std::end(words);
}

const std::vector<std::string>* token_texts(const Checkpoint& file) {
  const MetaValue* tokens = file.meta("tokenizer.ggml.tokens");
  return tokens == nullptr ? nullptr : std::get_if<std::vector<std::string>>(tokens);
}

/// Kinds of the tokens, or nullptr where the file does not tell them.
const std::vector<int64_t>* token_kinds(const Checkpoint& file) {
  const MetaValue* kinds = file.meta("tokenizer.ggml.token_type");
  return kinds == nullptr ? nullptr : std::get_if<std::vector<int64_t>>(kinds);
}

bool is_ordinary(const std::vector<int64_t>* kinds, size_t id) {
  return kinds == nullptr || id >= kinds->size() || (*kinds)[id] == kOrdinaryToken;
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

/// Lower-case words of letters and digits, dots between digits included; of a path the last part.
std::set<std::string> words_of(std::string_view name) {
  while (name.ends_with('/')) name.remove_suffix(1);
  name = name.substr(name.rfind('/') + 1);  // npos + 1 is 0
  std::set<std::string> words;
  std::string word;
  for (size_t i = 0; i <= name.size(); ++i) {
    const char c = i < name.size() ? name[i] : ' ';
    const bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    const bool is_point =
        c == '.' && i > 0 && is_digit(name[i - 1]) && i + 1 < name.size() && is_digit(name[i + 1]);
    if (is_letter || is_digit(c) || is_point) {
      word += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    } else if (!word.empty()) {
      words.insert(word);
      word.clear();
    }
  }
  return words;
}

/// "135m", "0.5b".
bool is_size(const std::string& word) {
  if (word.size() < 2 || (word.back() != 'm' && word.back() != 'b')) return false;
  return std::all_of(word.begin(), word.end() - 1, [](char c) { return is_digit(c) || c == '.'; });
}

/// Part of a model's own name: letters are in it, it is no size and no word for the packing.
bool is_telling(const std::string& word) {
  const bool has_letter = std::any_of(word.begin(), word.end(), [](char c) { return c >= 'a' && c <= 'z'; });
  return has_letter && !is_size(word) && !contains(kNoModel, word);
}

}  // namespace

Status check_same_tokens(const Checkpoint& draft, const Checkpoint& target) {
  const std::vector<std::string>*a = token_texts(draft), *b = token_texts(target);
  if (a == nullptr || b == nullptr) return ok_status();
  const std::vector<int64_t>*a_kinds = token_kinds(draft), *b_kinds = token_kinds(target);
  for (size_t id = 0; id < std::min(a->size(), b->size()); ++id) {
    if ((*a)[id] == (*b)[id] || !is_ordinary(a_kinds, id) || !is_ordinary(b_kinds, id)) continue;
    return invalid_argument(
        fmt::format("{}: the drafter was not made for this target: its token {} is {}, that of {} is {}",
                    draft.path(), id, in_quotes((*a)[id]), target.path(), in_quotes((*b)[id])));
  }
  return ok_status();
}

bool names_another_model(std::string_view made_for, std::string_view target) {
  const std::set<std::string> a = words_of(made_for), b = words_of(target);
  // A name without a size may be anything: "model", a folder, the hash of a download.
  if (std::none_of(a.begin(), a.end(), is_size) || std::none_of(b.begin(), b.end(), is_size)) return false;
  const auto is_shared = [&b](const std::string& word) { return is_telling(word) && b.count(word) != 0; };
  if (std::none_of(a.begin(), a.end(), is_shared)) return true;
  return std::any_of(std::begin(kPurposes), std::end(kPurposes), [&](std::string_view purpose) {
    return a.count(std::string(purpose)) != b.count(std::string(purpose));
  });
}

}  // namespace dspark
