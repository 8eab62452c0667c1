#include "text/normalizer.h"

#include <utf8proc.h>

#include <cstdlib>

#include "text/utf8.h"

namespace dspark {
namespace {

bool is_ascii(std::string_view text) {
  for (char c : text) {
    if (static_cast<uint8_t>(c) >= 0x80) return false;
  }
  return true;
}

void replace_all(std::string& text, const std::string& from, const std::string& to) {
  size_t found = text.find(from);
  if (found == std::string::npos) return;
  std::string out;
  out.reserve(text.size() + text.size() / 4);
  size_t begin = 0;
  for (; found != std::string::npos; found = text.find(from, begin)) {
    out.append(text, begin, found - begin);
    out += to;
    begin = found + from.size();
  }
  out.append(text, begin);
  text = std::move(out);
}

void replace_all(std::string& text, const Regex& from, const std::string& to) {
  if (!is_valid_utf8(text)) return;
  Regex::Scratch scratch;
  std::string out;
  size_t begin = 0;
  while (const auto match = from.find(text, begin, scratch)) {
    out.append(text, begin, match->first - begin);
    out += to;
    begin = match->second;
  }
  out.append(text, begin);
  text = std::move(out);
}

void to_form(std::string& text, Normalizer::Form form) {
  if (is_ascii(text)) return;
  const bool compose = form == Normalizer::Form::kNfc || form == Normalizer::Form::kNfkc;
  const bool compat = form == Normalizer::Form::kNfkc || form == Normalizer::Form::kNfkd;
  int options = UTF8PROC_STABLE | (compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE);
  if (compat) options |= UTF8PROC_COMPAT;
  utf8proc_uint8_t* out = nullptr;
  const utf8proc_ssize_t size =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                   static_cast<utf8proc_ssize_t>(text.size()), &out, static_cast<utf8proc_option_t>(options));
  if (size >= 0) text.assign(reinterpret_cast<const char*>(out), static_cast<size_t>(size));
  std::free(out);
}

}  // namespace

void Normalizer::add_form(Form form) {
  steps_.push_back({Step::Kind::kForm, form, {}, {}, {}});
}

void Normalizer::add_replace(std::string_view from, std::string_view to) {
  steps_.push_back({Step::Kind::kReplace, Form::kNfc, std::string(from), std::string(to), {}});
}

void Normalizer::add_replace(Regex from, std::string_view to) {
  steps_.push_back({Step::Kind::kReplaceRegex, Form::kNfc, {}, std::string(to), {}});
  steps_.back().regex.push_back(std::move(from));
}

void Normalizer::add_prefix(std::string_view prefix, bool unless_present) {
  const auto kind = unless_present ? Step::Kind::kPrefixUnlessPresent : Step::Kind::kPrefix;
  steps_.push_back({kind, Form::kNfc, {}, std::string(prefix), {}});
}

void Normalizer::apply_step(const Step& step, std::string& text) {
  switch (step.kind) {
    case Step::Kind::kForm:
      to_form(text, step.form);
      break;
    case Step::Kind::kReplace:
      replace_all(text, step.from, step.to);
      break;
    case Step::Kind::kReplaceRegex:
      replace_all(text, step.regex.front(), step.to);
      break;
    case Step::Kind::kPrefixUnlessPresent:
      if (text.rfind(step.to, 0) == 0) break;
      [[fallthrough]];
    case Step::Kind::kPrefix:
      if (!text.empty()) text.insert(0, step.to);
      break;
  }
}

std::string Normalizer::apply(std::string_view text) const {
  std::string out(text);
  for (const Step& step : steps_) apply_step(step, out);
  return out;
}

}  // namespace dspark
