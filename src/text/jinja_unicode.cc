#include "text/jinja_unicode.h"

#include <algorithm>

#include "text/jinja_unicode_data.h"
#include "text/utf8.h"

namespace dspark::jinja {
namespace {

constexpr uint32_t kCapitalSigma = 0x3A3, kFinalSigma = 0x3C2;

bool in_ranges(const CodeRange* ranges, size_t n, uint32_t c) {
  const CodeRange* end = ranges + n;
  const CodeRange* at =
      std::upper_bound(ranges, end, c, [](uint32_t code, const CodeRange& r) { return code < r.first; });
  return at != ranges && c <= (at - 1)->last;
}

const CaseSpecial* find_special(const CaseSpecial* table, size_t n, uint32_t c) {
  const CaseSpecial* at = std::lower_bound(table, table + n, c,
                                           [](const CaseSpecial& s, uint32_t code) { return s.code < code; });
  return at != table + n && at->code == c ? at : nullptr;
}

// Runs of step 2 may lie inside one another, so neighbours before the first candidate count too.
uint32_t map_case(const CaseRun* runs, size_t n, uint32_t c) {
  const CaseRun* at =
      std::upper_bound(runs, runs + n, c, [](uint32_t code, const CaseRun& r) { return code < r.first; });
  for (int back = 0; back < 3 && at != runs; ++back) {
    --at;
    if (c <= at->last && (c - at->first) % at->step == 0) return c + static_cast<uint32_t>(at->delta);
  }
  return c;
}

void append_special(std::string& out, const CaseSpecial& special) {
  for (uint32_t code : {special.first, special.second, special.third}) {
    if (code != 0) append_utf8(out, code);
  }
}

// True when the last letter before byte `pos` and no letter behind it make a word's end (for the final
// sigma).
bool ends_word(std::string_view s, size_t sigma, size_t behind) {
  bool letter_before = false;
  if (sigma > 0) {
    size_t start = sigma - 1;
    while (start > 0 && (static_cast<uint8_t>(s[start]) & 0xC0) == 0x80) --start;
    letter_before = is_alpha(next_code_point(s, start));
  }
  return letter_before && (behind >= s.size() || !is_alpha(next_code_point(s, behind)));
}

}  // namespace

uint32_t next_code_point(std::string_view s, size_t& pos) {
  const auto byte = [&](size_t i) { return static_cast<uint32_t>(static_cast<uint8_t>(s[i])); };
  const uint32_t lead = byte(pos);
  if (lead < 0x80) {
    ++pos;
    return lead;
  }
  const size_t length = utf8_announced_length(static_cast<uint8_t>(lead));
  if (lead < 0xC0 || lead > 0xF4 || pos + length > s.size()) {
    ++pos;
    return 0xFFFD;
  }
  uint32_t code = lead & (0x7Fu >> length);
  for (size_t i = 1; i < length; ++i) code = (code << 6) | (byte(pos + i) & 0x3F);
  pos += length;
  return code;
}

size_t byte_of_code_point(std::string_view s, size_t index) {
  size_t pos = 0;
  while (index > 0 && pos < s.size()) {
    next_code_point(s, pos);
    --index;
  }
  return pos;
}

size_t count_code_points(std::string_view s) {
  size_t n = 0;
  for (size_t pos = 0; pos < s.size(); ++n) next_code_point(s, pos);
  return n;
}

bool is_space(uint32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x1F);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_printable(uint32_t c) {
  return c < 0x80 ? c >= 0x20 && c < 0x7F : !in_ranges(kNotPrintable, kNotPrintableSize, c);
}

bool is_alpha(uint32_t c) {
  if (c < 0x80) return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  return in_ranges(kAlphabetic, kAlphabeticSize, c);
}

bool is_decimal(uint32_t c) {
  return c < 0x80 ? c >= '0' && c <= '9' : in_ranges(kDecimalDigits, kDecimalDigitsSize, c);
}

bool is_upper(uint32_t c) {
  if (c < 0x80) return c >= 'A' && c <= 'Z';
  return map_case(kLowerRuns, kLowerRunsSize, c) != c || find_special(kLowerSpecial, kLowerSpecialSize, c);
}

bool is_lower(uint32_t c) {
  if (c < 0x80) return c >= 'a' && c <= 'z';
  return map_case(kUpperRuns, kUpperRunsSize, c) != c || find_special(kUpperSpecial, kUpperSpecialSize, c);
}

void append_upper(std::string& out, uint32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c >= 'a' && c <= 'z' ? c - 32 : c);
  } else if (const CaseSpecial* special = find_special(kUpperSpecial, kUpperSpecialSize, c)) {
    append_special(out, *special);
  } else {
    append_utf8(out, map_case(kUpperRuns, kUpperRunsSize, c));
  }
}

void append_lower(std::string& out, uint32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  } else if (const CaseSpecial* special = find_special(kLowerSpecial, kLowerSpecialSize, c)) {
    append_special(out, *special);
  } else {
    append_utf8(out, map_case(kLowerRuns, kLowerRunsSize, c));
  }
}

void append_title(std::string& out, uint32_t c) {
  if (const CaseSpecial* special = find_special(kTitleSpecial, kTitleSpecialSize, c)) {
    append_special(out, *special);
  } else {
    append_upper(out, c);
  }
}

std::string to_upper(std::string_view s) {
  std::string out;
  out.reserve(s.size());
  for (size_t pos = 0; pos < s.size();) append_upper(out, next_code_point(s, pos));
  return out;
}

std::string to_lower(std::string_view s) {
  std::string out;
  out.reserve(s.size());
  for (size_t pos = 0; pos < s.size();) {
    const size_t start = pos;
    const uint32_t c = next_code_point(s, pos);
    if (c == kCapitalSigma && ends_word(s, start, pos)) {
      append_utf8(out, kFinalSigma);
    } else {
      append_lower(out, c);
    }
  }
  return out;
}

std::string_view strip_space(std::string_view s, int side) {
  size_t begin = 0, end = s.size();
  while ((side & 1) != 0 && begin < end) {
    size_t pos = begin;
    if (!is_space(next_code_point(s, pos))) break;
    begin = pos;
  }
  while ((side & 2) != 0 && end > begin) {
    size_t start = end - 1;
    while (start > begin && (static_cast<uint8_t>(s[start]) & 0xC0) == 0x80) --start;
    size_t pos = start;
    if (!is_space(next_code_point(s, pos))) break;
    end = start;
  }
  return s.substr(begin, end - begin);
}

}  // namespace dspark::jinja
