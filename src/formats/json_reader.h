#pragma once
// JSON from files that nobody vouches for: errors as values, bounded depth, no silently replaced keys.

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>

#include "base/status.h"

namespace dspark {

inline constexpr int kMaxJsonDepth = 128;

/// What to do with a key that an object names twice.
enum class DuplicateKeys {
  kRefuse,
  kLastWins,  // what most JSON readers do
};

/// Parses UTF-8 JSON text; `where` names it in messages. Nothing but white space may follow the value.
/// errors: corrupt_data naming the byte (syntax, bad UTF-8, nesting deeper than kMaxJsonDepth, a key that
/// appears twice when `duplicates` refuses that).
Result<nlohmann::json> parse_json(std::string_view text, const std::string& where,
                                  DuplicateKeys duplicates = DuplicateKeys::kLastWins);

/// Reads and parses a whole file.
Result<nlohmann::json> read_json_file(const std::string& path,
                                      DuplicateKeys duplicates = DuplicateKeys::kLastWins);

}  // namespace dspark
