#pragma once
// What a run cost: one line for people, one JSON object for programs.

#include <string>

#include "cli/session.h"
#include "engine/generation.h"

namespace dspark::cli {

/// One line: prompt and generated tokens with their speeds, what speculation did, the seed when it matters.
std::string stats_line(const Session& session, const GenerateResult& result);

/// {"text", "tokens", "finish_reason", "seed", "timings", "speculation"} on one line. Bytes that are not
/// UTF-8 become U+FFFD.
std::string result_json(const Session& session, const GenerateResult& result);

}  // namespace dspark::cli
