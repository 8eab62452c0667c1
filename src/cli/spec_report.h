#pragma once
// Speculation statistics for people and for programs.

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "speculate/stats.h"

namespace dspark::cli {

/// Draft positions that some proposal reached.
int positions_seen(const SpeculationStats& stats);

/// Two counter lines and a table of survival and conditional acceptance by position; each line ends with a
/// line break.
std::string speculation_table(const SpeculationStats& stats);

/// Counters, tau ("tokens_per_step"), verify rate, and the rates by position as lists.
nlohmann::ordered_json speculation_numbers(const SpeculationStats& stats);

}  // namespace dspark::cli
