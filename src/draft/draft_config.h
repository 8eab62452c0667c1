#pragma once
// The normalised description of a learned drafter: every source format maps to this one form.

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "kernels/rows.h"

namespace dspark {

enum class DraftKind : uint8_t { kDSpark, kDFlash, kEagle3, kMtp };
/// The sequential head behind the parallel backbone. kNone: slots are independent (DFlash).
enum class SequentialHead : uint8_t { kNone, kVanilla, kGated, kRnn };
/// Which layer the backbone repeats.
enum class DraftBackbone : uint8_t { kQwen3, kGemma4 };
/// Where a drafter came from, for messages and for dspark inspect.
enum class DraftSource : uint8_t { kDeepSpec, kSpeculators, kLlamaCppGguf, kIkLlamaGguf };

/// Facts about a drafter, whatever file it came from. Layers are numbered as TargetModel::set_capture_layers
/// does: 0 = embedding output, l + 1 = output of the target's layer l.
struct DraftConfig {
  DraftKind kind = DraftKind::kDSpark;
  DraftBackbone backbone = DraftBackbone::kQwen3;
  DraftSource source = DraftSource::kDeepSpec;
  std::string target_name;  // what the file says about its target; may be empty

  // Backbone.
  int32_t n_layers = 0;
  int32_t dim = 0;  // width of the drafter and of the target's residual stream
  int32_t n_heads = 0;
  int32_t n_kv_heads = 0;
  int32_t head_dim = 0;
  int32_t ffn_dim = 0;
  float norm_eps = 1e-6f;
  bool qk_norm = true;          // weights of q_norm and k_norm are there
  bool k_eq_v = false;          // no v_proj: V is the weightless norm of the k projection (Gemma 4)
  bool sandwich_norms = false;  // Gemma 4
  bool attention_bias = false;  // biases of q, k, v (and o when the file has it)
  bool causal = false;          // slots see only earlier slots of their block
  int32_t window = 0;  // 0: none; else a slot sees context in [anchor - window, anchor) and its block
  GateActivation activation = GateActivation::kSilu;
  float attention_scale = 0.0f;  // multiplies q . k
  float embedding_scale = 1.0f;  // multiplies embedding rows (already rounded as the format wants)
  float final_softcap = 0.0f;    // of the base logits, before the sequential bias; 0: none
  RopeTable rope;                // head_dim / 2 pairs, half-split
  double rope_theta = 10000.0;   // the base behind `rope`; only writers need it
  int32_t context_length = 0;    // positions it was made for

  // Vocabulary.
  int32_t vocab_size = 0;        // the target's
  int32_t draft_vocab_size = 0;  // rows of the draft head; equal to vocab_size without reduction
  std::vector<int32_t> d2t;      // draft row -> target id, ascending; empty: the same

  // Block.
  int32_t block_size = 0;       // slots of one pass, the anchor's included
  int32_t short_block = 0;      // DSpark, DFlash: slots of the block that few drafts come from; 0: none
  bool anchor_predicts = true;  // slot 0 predicts draft 1 (DSpark); false: drafts come from slots 1..
  int32_t mask_token_id = 0;    // fed at slots 1..
  std::vector<int32_t> taps;    // capture layers, ascending
  int32_t target_layers = 0;    // layers of the target it was made for; 0: the file does not say

  // Heads.
  SequentialHead head = SequentialHead::kNone;
  int32_t markov_rank = 0;
  bool confidence = false;
  bool confidence_with_markov = false;

  /// Tokens one pass drafts: block_size or block_size - 1; of an Eagle3 drafter the steps it was trained for
  /// (block_size holds them); 1 for MTP.
  int32_t n_drafts() const {
    if (kind == DraftKind::kMtp) return 1;
    return anchor_predicts || kind == DraftKind::kEagle3 ? block_size : block_size - 1;
  }
  bool has_blocks() const { return kind == DraftKind::kDSpark || kind == DraftKind::kDFlash; }
  /// Most drafts that come from a short block; 0: there are none.
  int32_t n_short_drafts() const {
    if (short_block == 0) return 0;
    return anchor_predicts ? short_block : short_block - 1;
  }
  /// Slots of the block that gives `n` drafts, 1 .. n_drafts().
  int32_t slots_for(int32_t n) const { return n <= n_short_drafts() ? short_block : block_size; }
  bool reduced_vocab() const { return draft_vocab_size != vocab_size; }
};

/// Whether config.short_block is 0 or the slots of a block that drafts something and is no longer than the
/// whole one. errors: invalid_argument; `place` (a key, a flag) starts the message.
Status check_short_block(const DraftConfig& config, const std::string& place);

const char* draft_kind_name(DraftKind kind);            // "dspark", "dflash", "eagle3", "mtp"
const char* sequential_head_name(SequentialHead head);  // "none", "vanilla", "gated", "rnn"
const char* draft_source_name(DraftSource source);      // "DeepSpec", "speculators", "GGUF (dflash)", ...

}  // namespace dspark
