#pragma once
// Code points of the template language's strings. Strings are valid UTF-8 throughout (text is repaired when
// it enters the interpreter), positions and lengths that a template sees are code points, as in Python.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace dspark::jinja {

/// The code point at byte `pos`, moving `pos` behind it. requires: pos < s.size(). A byte that starts no
/// character is U+FFFD and one byte long.
uint32_t next_code_point(std::string_view s, size_t& pos);

/// Byte position of code point number `index` (s.size() when there are fewer).
size_t byte_of_code_point(std::string_view s, size_t index);

/// Number of code points.
size_t count_code_points(std::string_view s);

/// Python's str.isspace, isprintable, isalpha, isdecimal, for one character.
bool is_space(uint32_t c);
bool is_printable(uint32_t c);
bool is_alpha(uint32_t c);
bool is_decimal(uint32_t c);
/// Letters that change when lowered or raised (Python's isupper/islower, except for title-case letters).
bool is_upper(uint32_t c);
bool is_lower(uint32_t c);

/// Appends the upper, lower or title form of one character (up to three characters).
void append_upper(std::string& out, uint32_t c);
void append_lower(std::string& out, uint32_t c);
void append_title(std::string& out, uint32_t c);

/// Whole strings; to_lower knows the final sigma.
std::string to_upper(std::string_view s);
std::string to_lower(std::string_view s);

/// `s` without leading (side & 1) and trailing (side & 2) white space.
std::string_view strip_space(std::string_view s, int side = 3);

}  // namespace dspark::jinja
