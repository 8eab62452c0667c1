#pragma once
// Private to the room: how the readers fill a Checkpoint.

#include <filesystem>
#include <string>

#include "base/mapped_file.h"
#include "base/status.h"
#include "formats/checkpoint.h"

namespace dspark {

/// The only door to the members of a Checkpoint under construction.
struct CheckpointBuilder {
  explicit CheckpointBuilder(std::string path) { checkpoint.path_ = std::move(path); }

  /// Takes over a mapped GGUF or safetensors file. errors: as the parsers; a tensor name that an earlier file
  /// already brought.
  Status add_gguf(MappedFile file);
  Status add_safetensors(MappedFile file);
  /// Fills from a Hugging Face model folder (hf_folder.cc).
  Status add_folder(const std::filesystem::path& folder);
  /// Only its config.json and generation_config.json.
  Status add_config(const std::filesystem::path& folder);

  Checkpoint checkpoint;

 private:
  Status add_shards(const std::filesystem::path& folder, const std::filesystem::path& index_path);
  Status add_tensor(TensorView tensor, const std::string& where);
};

}  // namespace dspark
