#pragma once
// What a learned drafter computed in one round, for tests and for dspark draft.

#include <cstdint>
#include <vector>

namespace dspark {

/// Copies of the intermediate values of one propose() and of the commit() before it. Filled by a drafter that
/// was given one (Drafter::set_trace); each call replaces what it fills. Slot j of a request is the one that
/// predicts draft j + 1; requests stand one behind the other.
struct DraftTrace {
  // Asked for by the caller.
  /// Tokens taken as drafts instead of picking, of the first request: teacher forcing. Empty: pick.
  std::vector<int32_t> forced_tokens;

  // commit(): one row per feature row, events one behind the other.
  std::vector<float> context_rows;  // (rows, dim) hidden_norm(fc(features)); Eagle3: fc(features); MTP: the
                                    // target's last hidden states
  std::vector<float> paired_rows;  // (rows, dim) Eagle3, MTP: the layer's output at rows whose token is known

  // propose().
  int32_t n_slots = 0;                   // rows of all requests below
  std::vector<float> layer_out;          // (layers, slots of all blocks, dim) residual stream, all slots;
                                         // rows of slots that nobody asked for are zero in the last layer.
                                         // Eagle3, MTP: (n_slots, dim)
  std::vector<float> hidden;             // (n_slots, dim) after the drafter's final norm
  std::vector<float> base_logits;        // (n_slots, draft vocabulary) U
  std::vector<float> step_logits;        // (n_slots, draft vocabulary) Z = U + sequential bias
  std::vector<float> confidence_logits;  // (n_slots) before calibration; empty without a confidence head
};

}  // namespace dspark
