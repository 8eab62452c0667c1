#pragma once
// What dspark inspect says about a drafter.

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "draft/draft_checkpoint.h"

namespace dspark::cli {

/// A few aligned lines: kind, block, heads, layers tapped, vocabulary, backbone, parameters and bytes by
/// part.
std::string drafter_text(const DraftCheckpoint& draft);
/// The same as a JSON object.
nlohmann::ordered_json drafter_json(const DraftCheckpoint& draft);

}  // namespace dspark::cli
