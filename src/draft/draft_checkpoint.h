#pragma once
// A drafter on disk: any supported format, opened as one configuration and one set of tensor names.

#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"
#include "draft/draft_config.h"
#include "formats/checkpoint.h"
#include "models/config.h"

namespace dspark {

/// An opened drafter file or folder. Tensors go by the names of the DeepSpec format whatever the source:
/// "fc.weight", "hidden_norm.weight", "norm.weight", "layers.0.self_attn.q_proj.weight",
/// "layers.0.mlp.down_proj.weight", "layers.0.layer_scalar", "markov_head.markov_w1.weight",
/// "confidence_head.proj.bias", ... (draft_tensors.h has the list). Shapes are checked, element types are
/// those decode_row reads. Optional are only
/// - "embed_tokens.weight" (vocab_size rows): absent means the target's embedding;
/// - "lm_head.weight" (draft_vocab_size rows): absent means the target's head, never the embedding because
/// that
///   is there; with a reduced vocabulary the rows config.d2t of the target's head;
/// - "layers.i.self_attn.o_proj.bias" with attention_bias.
/// Every tensor of the file is in the map, and none that the configuration does not explain; d2t, t2d and
/// rope_freqs went into the configuration.
///
/// Eagle3: "fc.weight" (no "hidden_norm.weight"), "layers.0.hidden_norm.weight", q, k, v with 2 * dim columns
/// (embedding first). MTP, a format of ours: "enorm.weight", "hnorm.weight" (dim), "eh_proj.weight" (dim,
/// 2 * dim; embedding first), "layers.0.*" as a Qwen3 decoder layer, "norm.weight"; no "fc.weight". Its one
/// tap is the output of the target's last layer; the target's final norm applies before hnorm.
struct DraftCheckpoint {
  std::shared_ptr<const Checkpoint> file;  // keeps the tensor bytes mapped
  DraftConfig config;
  std::map<std::string, TensorView, std::less<>> tensors;

  /// nullptr when absent.
  const TensorView* find(std::string_view name) const;
};

/// Opens a DeepSpec folder, a speculators folder, or a GGUF drafter (llama.cpp "dflash", ik_llama.cpp
/// "dflash-draft", our "dspark-eagle3" and "dspark-mtp"), told apart by content. Checks the configuration,
/// the exact set of tensors and all shapes. errors: not_found, corrupt_data, invalid_argument, unsupported;
/// messages name the file and the key or tensor, and say what was expected.
Result<DraftCheckpoint> open_draft_checkpoint(const std::string& path);
/// The same for a checkpoint that is open already.
Result<DraftCheckpoint> read_draft_checkpoint(std::shared_ptr<const Checkpoint> file);

/// The configuration alone; tensors need not be there. errors: as open_draft_checkpoint.
Result<DraftConfig> read_draft_config(const Checkpoint& file);

/// True when `file` looks like a drafter of any of these formats (by architecture name), false for a target
/// model or anything else. Used by dspark inspect and quantize.
bool is_draft_checkpoint(const Checkpoint& file);

/// Whether the drafter was made for such a target: width, vocabulary, number of layers, tapped layers.
/// errors: invalid_argument naming everything that differs.
Status check_draft_fits(const DraftConfig& draft, const ModelConfig& target);

}  // namespace dspark
