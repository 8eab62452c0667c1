#pragma once
// The parts of JSON that every compiled schema is made of.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "constrain/grammar_ir.h"

namespace dspark {

/// One end of a range of numbers: a decimal, as text, so that nothing is rounded.
struct DecimalBound {
  bool is_negative = false;
  int64_t whole = 0;     // of the absolute value, at most 10^15
  std::string fraction;  // digits behind the point, without trailing zeros
  bool is_exclusive = false;
};

/// Numbers between two ends.
struct NumberInterval {
  double lo = -1e15, hi = 1e15;
  bool excludes_lo = true, excludes_hi = true;
  bool contains(double value) const;
};

/// The shortest decimal without exponent that is read as this number.
std::string decimal_text(double value);

/// Whether JsonTerminals::format has a rule for it.
bool is_known_format(std::string_view name);

/// Builds and shares rules inside one grammar.
class JsonTerminals {
 public:
  using Node = GrammarIr::Node;
  explicit JsonTerminals(GrammarIr& ir) : ir_(ir) {}

  /// Nothing, one space, or a line break and up to kMaxIndent blanks: enough for every usual layout, and no
  /// way to write white space without end.
  static constexpr int32_t kMaxIndent = 24;
  Node space();
  /// One character of a string, written out or escaped. Surrogates only as pairs.
  Node character();
  /// One of these characters: those that JSON wants escaped by their short escapes or \u00XX.
  Node character_of(const std::vector<CodeRange>& ranges);
  /// A string of min .. max characters (GrammarIr::kUnbounded: no maximum).
  Node string(int32_t min, int32_t max);
  /// `"`, the content, `"`.
  Node quoted(Node content);
  /// A member's name of 1..kMaxKeyLength characters without escapes that is none of `taken`.
  static constexpr int32_t kMaxKeyLength = 128;
  Node other_key(const std::vector<std::string>& taken);
  /// `"name" :` up to the value, white space included.
  Node key(Node name);

  /// Any value, object, array, number. Numbers have at most 16 digits before and behind the point and an
  /// exponent of at most two.
  Node value();
  Node object();
  Node array();
  Node number();
  Node integer();
  Node boolean();
  /// Integers lo .. hi. requires: lo <= hi, absolute values below 10^18.
  Node integer_range(int64_t lo, int64_t hi);
  /// Decimals without exponent between two bounds, either may be missing. -1: there are none.
  Node number_range(const std::optional<DecimalBound>& lo, const std::optional<DecimalBound>& hi);
  /// Multiples of `step` between integers lo .. hi, absolute values up to 10^15. requires: step without the
  /// zeros at its end is small (a rule per remainder). -1: there are none.
  Node integer_multiples(int64_t lo, int64_t hi, int64_t step);
  /// Multiples of 1/2, 1/4, ... in a range of absolute values up to 10^15. -1: there are none.
  Node fraction_multiples(double step, const NumberInterval& range);
  /// The content of a string of a format ("date", ...), without quotes; -1: a format without a rule.
  Node format(std::string_view name);

  Node digits(int32_t min, int32_t max) { return ir_.repeat(ir_.char_class({{'0', '9'}}), min, max); }
  Node text(std::string_view bytes) { return ir_.literal(bytes); }
  Node one_of(std::string_view bytes);

 private:
  struct FractionRange;
  struct DigitWalk;
  Node once(int32_t& rule, const char* name, Node (JsonTerminals::*make)());
  Node make_space();
  Node make_character();
  Node make_value();
  Node make_object();
  Node make_array();
  Node make_number();
  Node make_integer();
  Node make_raw_key_tail();
  Node unsigned_range(int64_t lo, int64_t hi);
  Node same_length_range(std::string_view lo, std::string_view hi);
  Node positive_range(const DecimalBound& lo, const std::optional<DecimalBound>& hi, int32_t places);
  Node fraction(FractionRange& range, size_t place, bool at_lo, bool at_hi);
  Node positive_multiples(DigitWalk& walk, int64_t lo, int64_t hi);
  Node walk_digits(DigitWalk& walk, std::string_view lo, std::string_view hi, int64_t remainder, bool at_lo,
                   bool at_hi);
  Node date();
  Node time();
  Node email();
  Node uri();
  Node ipv4();
  Node ipv6();
  Node duration();
  Node json_pointer();
  Node uri_path();
  Node uuid();
  Node hostname();
  Node optional_fraction(int32_t places);

  GrammarIr& ir_;
  int32_t space_ = -1, character_ = -1, value_ = -1, object_ = -1, array_ = -1, number_ = -1, integer_ = -1;
  int32_t key_tail_ = -1;
};

}  // namespace dspark
