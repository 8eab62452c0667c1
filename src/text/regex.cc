#include "text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <string>

#include "text/utf8.h"

namespace dspark {
namespace {

constexpr size_t kMaxPattern = 1 << 15;     // real ones have at most about 2,000 bytes
constexpr uint32_t kMatchLimit = 10000000;  // PCRE2's default, spelled out: it bounds the work of one search

// PCRE2 counts U+180E (Mongolian vowel separator) as white space, Unicode since 6.3 and tokenizers do not.
constexpr std::string_view kSpaceSet = R"(\t-\r\x{85}\p{Z})";

// Rewrites \s and \S. Inside a class \S stays PCRE2's own: it cannot be written as a list there.
Status translate(std::string_view pattern, std::string& out) {
  bool in_class = false;
  size_t class_begin = 0;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      const char next = pattern[++i];
      if (next == 's') {
        out += in_class ? std::string(kSpaceSet) : "[" + std::string(kSpaceSet) + "]";
      } else if (next == 'S' && !in_class) {
        out += "[^" + std::string(kSpaceSet) + "]";
      } else {
        out += c;
        out += next;
      }
      continue;
    }
    if (in_class && c == '&' && pattern.substr(i, 2) == "&&") {
      return unsupported("class intersection '&&' at offset " + std::to_string(i));
    }
    if (in_class && c == '[') {
      const size_t end = pattern.substr(i, 2) == "[:" ? pattern.find(":]", i) : std::string_view::npos;
      if (end == std::string_view::npos) return unsupported("nested class at offset " + std::to_string(i));
      out += pattern.substr(i, end + 2 - i);
      i = end + 1;
      continue;
    }
    if (in_class) {
      in_class = c != ']' || i == class_begin;
    } else if (c == '[') {
      in_class = true;
      class_begin = i + (pattern.substr(i + 1, 1) == "^" ? 2 : 1);
    }
    out += c;
  }
  return ok_status();
}

}  // namespace

struct Regex::Impl {
  pcre2_code* code = nullptr;
  pcre2_match_context* context = nullptr;
  bool jit = false;

  ~Impl() {
    pcre2_code_free(code);
    pcre2_match_context_free(context);
  }
};

struct Regex::Scratch::Impl {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  ~Impl() { pcre2_match_data_free(data); }
};

Regex::Scratch::Scratch() : impl_(std::make_unique<Impl>()) {}
Regex::Scratch::~Scratch() = default;
Regex::Scratch::Scratch(Scratch&&) noexcept = default;

Regex::Regex(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;
Regex::~Regex() = default;

Result<Regex> Regex::compile(std::string_view pattern) {
  if (pattern.size() > kMaxPattern) {
    return invalid_argument("pattern of " + std::to_string(pattern.size()) + " bytes, at most " +
                            std::to_string(kMaxPattern) + " are accepted");
  }
  std::string translated;
  DSPARK_RETURN_IF_ERROR(translate(pattern, translated));
  int error = 0;
  PCRE2_SIZE offset = 0;
  auto impl = std::make_unique<Impl>();
  impl->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                             PCRE2_UTF | PCRE2_UCP | PCRE2_DOLLAR_ENDONLY | PCRE2_NEVER_BACKSLASH_C, &error,
                             &offset, nullptr);
  if (impl->code == nullptr) {
    PCRE2_UCHAR text[256];
    if (pcre2_get_error_message(error, text, sizeof text) < 0) text[0] = 0;
    return invalid_argument("invalid regular expression: " + std::string(reinterpret_cast<char*>(text)) +
                            " at offset " + std::to_string(offset) + " of '" + translated.substr(0, 200) +
                            "'");
  }
  impl->jit = pcre2_jit_compile(impl->code, PCRE2_JIT_COMPLETE) == 0;
  impl->context = pcre2_match_context_create(nullptr);
  if (impl->context == nullptr) return out_of_memory("regular expression: no memory for the match context");
  pcre2_set_match_limit(impl->context, kMatchLimit);
  return Regex(std::move(impl));
}

Result<Regex> Regex::literal(std::string_view text) {
  std::string pattern;
  for (char c : text) {
    const bool word = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
    if (!word && static_cast<uint8_t>(c) < 0x80) pattern += '\\';
    pattern += c;
  }
  return compile(pattern);
}

std::optional<std::pair<size_t, size_t>> Regex::find(std::string_view subject, size_t from,
                                                     Scratch& scratch) const {
  pcre2_match_data* data = scratch.impl_->data;
  const auto* bytes = reinterpret_cast<PCRE2_SPTR>(subject.data());
  while (from < subject.size()) {
    int rc = PCRE2_ERROR_JIT_STACKLIMIT;
    if (impl_->jit) rc = pcre2_jit_match(impl_->code, bytes, subject.size(), from, 0, data, impl_->context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {  // deep backtracking: the interpreter keeps its state on the heap
      rc = pcre2_match(impl_->code, bytes, subject.size(), from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data,
                       impl_->context);
    }
    if (rc < 0) return std::nullopt;
    const PCRE2_SIZE* range = pcre2_get_ovector_pointer(data);
    if (range[1] > range[0]) return std::pair<size_t, size_t>(range[0], range[1]);
    from = std::max<size_t>(from, range[1]);  // empty match: step over one character
    if (from < subject.size()) from += utf8_announced_length(static_cast<uint8_t>(subject[from]));
  }
  return std::nullopt;
}

}  // namespace dspark
