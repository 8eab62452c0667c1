#pragma once
// Which tensors a drafter has, their shapes, and what each format calls them.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "draft/draft_config.h"

namespace dspark {

/// kDeepSpec: the names used everywhere in this room. kLlamaCpp: GGUF "dflash", extended by names of ours for
/// what that format has no word for. kIkLlama: GGUF "dflash-draft".
enum class DraftNaming : uint8_t { kDeepSpec, kLlamaCpp, kIkLlama };

/// What a writer does with the numbers of a tensor.
enum class DraftTensorRole : uint8_t { kMatrix, kEmbedding, kHead, kVector, kConfidence };

/// One tensor that a configuration explains.
struct DraftTensor {
  std::string name;  // DeepSpec
  std::string gguf;  // llama.cpp
  std::vector<int64_t> shape;
  bool required = true;
  DraftTensorRole role = DraftTensorRole::kMatrix;
};

/// All tensors of a drafter: what runs first comes first. requires: the sizes in `config` are within
/// ConfigLimits. Not among them: d2t, t2d and rope_freqs, which are part of the configuration.
std::vector<DraftTensor> draft_tensors(const DraftConfig& config);

/// The name of `tensor` in a file of that naming.
std::string draft_tensor_name(const DraftTensor& tensor, DraftNaming naming);

/// Width of the confidence head's input: hidden row, and with the Markov row behind it where it has one.
int64_t confidence_width(const DraftConfig& config);

}  // namespace dspark
