#pragma once
// Reads a tokenizer.json. The two large parts, model.vocab and model.merges, go straight into flat memory:
// as JSON nodes they would take ten times the memory and most of the loading time.

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/vocab.h"

namespace dspark {

struct TokenizerJson {
  std::unique_ptr<nlohmann::json> rest;  // everything but the two parts below; an object
  StringPool vocab;                      // texts of model.vocab ...
  std::vector<int32_t> ids;              // ... and their ids, >= 0
  StringPool merges;                     // model.merges: one string each, or left and right in turn
  bool merges_are_pairs = false;
};

/// errors: corrupt_data with the JSON path or the position.
Result<TokenizerJson> parse_tokenizer_json(std::string_view text);

}  // namespace dspark
