#pragma once
// A drafter on disk: any supported format, opened as one configuration and one set of tensor names.

#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"
#include "draft/draft_config.h"
#include "formats/checkpoint.h"

namespace dspark {

/// An opened drafter file or folder. Tensors go by the names of the DeepSpec format whatever the source:
/// "fc.weight", "hidden_norm.weight", "norm.weight", "layers.0.self_attn.q_proj.weight",
/// "layers.0.mlp.down_proj.weight", "markov_head.markov_w1.weight", "confidence_head.proj.bias", ... and,
/// when the file has its own, "embed_tokens.weight" and "lm_head.weight" (draft_vocab_size rows). MTP adds
/// "enorm.weight", "hnorm.weight", "eh_proj.weight". Every tensor of the file is in the map, and none that
/// the configuration does not explain.
struct DraftCheckpoint {
  std::shared_ptr<const Checkpoint> file;  // keeps the tensor bytes mapped
  DraftConfig config;
  std::map<std::string, TensorView, std::less<>> tensors;

  /// nullptr when absent.
  const TensorView* find(std::string_view name) const;
};

/// Opens a DeepSpec folder, a speculators folder, or a GGUF drafter (llama.cpp "dflash", ik_llama.cpp
/// "dflash-draft"), told apart by content. Checks the configuration, the exact set of tensors and all shapes.
/// errors: not_found, corrupt_data, invalid_argument, unsupported; messages name the file and the key or
/// tensor, and say what was expected.
Result<DraftCheckpoint> open_draft_checkpoint(const std::string& path);

/// True when `path` looks like a drafter of any of these formats (by architecture name), false for a target
/// model or anything else. Used by dspark inspect and quantize.
bool is_draft_checkpoint(const Checkpoint& file);

}  // namespace dspark
