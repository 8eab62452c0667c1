// A Hugging Face model folder: config.json, generation_config.json and model.safetensors or its shards.

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "formats/checkpoint_builder.h"
#include "formats/error_text.h"
#include "formats/json_reader.h"

namespace dspark {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

bool is_file(const fs::path& path) {
  std::error_code ec;
  return fs::is_regular_file(path, ec);
}

/// json null when the file does not exist.
Result<json> read_optional_object(const fs::path& path) {
  if (!is_file(path)) return json();
  DSPARK_ASSIGN_OR_RETURN(json value, read_json_file(path.string()));
  if (!value.is_object()) return corrupt_data(path.string() + ": not a JSON object");
  return value;
}

/// shard file name -> tensors the index expects in it.
using ShardMap = std::map<std::string, std::vector<std::string>>;

/// errors: no weight_map, or a file name that would lead out of the folder.
Result<ShardMap> read_index(const fs::path& path) {
  DSPARK_ASSIGN_OR_RETURN(const json index, read_json_file(path.string(), DuplicateKeys::kRefuse));
  const auto map = index.is_object() ? index.find("weight_map") : index.end();
  if (!index.is_object() || map == index.end() || !map->is_object()) {
    return corrupt_data(path.string() + ": no object 'weight_map'");
  }
  ShardMap shards;
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string()) {
      return corrupt_data(path.string() + ": 'weight_map' entry of tensor " + in_quotes(tensor) +
                          " is not a file name");
    }
    const auto& name = file.get_ref<const std::string&>();
    if (name.empty() || name == ".." || name.find_first_of(std::string("/\\\0", 3)) != std::string::npos) {
      return corrupt_data(path.string() + ": 'weight_map' sends tensor " + in_quotes(tensor) + " to " +
                          in_quotes(name) + ", expected the name of a file in the same folder");
    }
    shards[name].push_back(tensor);
  }
  if (shards.empty()) return corrupt_data(path.string() + ": 'weight_map' names no tensor");
  return shards;
}

/// What to say about a folder without model.safetensors: perhaps the user meant a file inside it.
std::string what_is_there(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator(folder, ec)) {
    const auto extension = entry.path().extension();
    if (extension == ".gguf" || extension == ".safetensors")
      names.push_back(entry.path().filename().string());
  }
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "; it holds " : ", ") + in_quotes(name);
  return text.empty() ? text : text + ": name the file itself to open it";
}

}  // namespace

Status CheckpointBuilder::add_shards(const fs::path& folder, const fs::path& index_path) {
  DSPARK_ASSIGN_OR_RETURN(const ShardMap shards, read_index(index_path));
  for (const auto& [name, expected] : shards) {
    const size_t first = checkpoint.tensors_.size();
    const std::string path = (folder / name).string();
    auto file = MappedFile::open(path);
    if (!file.ok())
      return {file.status().code(), file.status().message() + " (named by " + index_path.string() + ")"};
    DSPARK_RETURN_IF_ERROR(add_safetensors(std::move(file).value()));
    // Tensors the index does not list are kept: the model decides whether it knows them.
    for (const std::string& tensor : expected) {
      const auto it = checkpoint.by_name_.find(tensor);
      if (it == checkpoint.by_name_.end() || it->second < first) {
        return corrupt_data(path + ": tensor " + in_quotes(tensor) + " is missing, " + index_path.string() +
                            " expects it here");
      }
    }
  }
  return {};
}

Status CheckpointBuilder::add_config(const fs::path& folder) {
  checkpoint.folder_ = folder.string();
  DSPARK_ASSIGN_OR_RETURN(*checkpoint.config_, read_optional_object(folder / "config.json"));
  DSPARK_ASSIGN_OR_RETURN(*checkpoint.generation_config_,
                          read_optional_object(folder / "generation_config.json"));
  return ok_status();
}

Status CheckpointBuilder::add_folder(const fs::path& folder) {
  DSPARK_RETURN_IF_ERROR(add_config(folder));
  const fs::path single = folder / "model.safetensors";
  if (is_file(single)) {
    DSPARK_ASSIGN_OR_RETURN(MappedFile file, MappedFile::open(single.string()));
    return add_safetensors(std::move(file));
  }
  const fs::path index = folder / "model.safetensors.index.json";
  if (is_file(index)) return add_shards(folder, index);
  return not_found(folder.string() + ": neither model.safetensors nor model.safetensors.index.json" +
                   what_is_there(folder));
}

}  // namespace dspark
