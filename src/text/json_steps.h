#pragma once
// The parts of a tokenizer.json that describe what happens to text around the merges.

#include <nlohmann/json_fwd.hpp>

#include "base/status.h"
#include "text/tokenizer_spec.h"

namespace dspark {

/// "normalizer" (may be null) -> spec.normalizer. errors: unsupported kinds by name, corrupt_data.
Status read_json_normalizer(const nlohmann::json& node, TokenizerSpec& spec);

/// "pre_tokenizer" (may be null) -> spec.pre_tokenizer, prefix spaces, and byte-level coding where it says
/// so. Call after read_json_normalizer.
Status read_json_pre_tokenizer(const nlohmann::json& node, TokenizerSpec& spec);

/// "decoder" (may be null) -> coding and strip_leading_space.
Status read_json_decoder(const nlohmann::json& node, TokenizerSpec& spec);

/// "post_processor" (may be null) -> prefix_ids, suffix_ids.
Status read_json_post_processor(const nlohmann::json& node, TokenizerSpec& spec);

}  // namespace dspark
