#pragma once
// Tables of jinja_unicode_data.cc, for characters from U+0080 on; sorted by code point.

#include <cstddef>
#include <cstdint>

namespace dspark::jinja {

/// Characters first, first + step, ..., last map to themselves + delta.
struct CaseRun {
  uint32_t first, last, step;
  int32_t delta;
};
/// One character that maps to up to three (unused ones are 0).
struct CaseSpecial {
  uint32_t code, first, second, third;
};
/// first <= character <= last.
struct CodeRange {
  uint32_t first, last;
};

extern const CaseRun kUpperRuns[], kLowerRuns[];
extern const CaseSpecial kUpperSpecial[], kLowerSpecial[];
/// Where the title-case form differs from the upper-case form.
extern const CaseSpecial kTitleSpecial[];
extern const CodeRange kNotPrintable[], kAlphabetic[], kDecimalDigits[];
extern const size_t kUpperRunsSize, kLowerRunsSize, kUpperSpecialSize, kLowerSpecialSize, kTitleSpecialSize,
    kNotPrintableSize, kAlphabeticSize, kDecimalDigitsSize;

}  // namespace dspark::jinja
