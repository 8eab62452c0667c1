#pragma once
// "Did you mean ...": the known word closest to a mistyped one.

#include <string>
#include <string_view>
#include <vector>

namespace dspark::cli {

/// Edits (insert, delete, replace, swap of neighbours) that turn `a` into `b`, leading dashes ignored.
int edit_distance(std::string_view a, std::string_view b);

/// The candidate with the fewest edits; the first one on a tie. Empty when nothing is close: more edits than
/// about a third of the word.
std::string nearest_word(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace dspark::cli
