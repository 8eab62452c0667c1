#pragma once
// Who proposed a draft.

#include <cstdint>

namespace dspark {

enum class ProposalSource : uint8_t {
  kModel,   // a learned drafter
  kLookup,  // what followed the same tokens earlier in the sequence: certain, not sampled
};

/// "model", "lookup".
inline const char* proposal_source_name(ProposalSource source) {
  return source == ProposalSource::kLookup ? "lookup" : "model";
}

}  // namespace dspark
