// Tokenizer::load: finds the files.

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/mapped_file.h"
#include "text/tokenizer.h"

namespace dspark {
namespace {

std::string_view as_text(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

// An absent file maps to an empty one.
Result<MappedFile> open_optional(const std::filesystem::path& path) {
  std::error_code ec;
  if (!std::filesystem::exists(path, ec)) return MappedFile();
  return MappedFile::open(path.string());
}

}  // namespace

Result<Tokenizer> Tokenizer::load(const Checkpoint& checkpoint) {
  if (checkpoint.format() == Checkpoint::Format::kGguf) {
    Result<Tokenizer> tokenizer = from_gguf(checkpoint.metadata());
    if (tokenizer.ok()) return tokenizer;
    return Status(tokenizer.status().code(), checkpoint.path() + ": " + tokenizer.status().message());
  }
  if (checkpoint.folder().empty()) {
    return not_found(checkpoint.path() + ": a single safetensors file carries no tokenizer; give its folder");
  }
  const std::filesystem::path folder = checkpoint.folder();
  DSPARK_ASSIGN_OR_RETURN(const MappedFile tokenizer, MappedFile::open((folder / "tokenizer.json").string()));
  DSPARK_ASSIGN_OR_RETURN(const MappedFile config, open_optional(folder / "tokenizer_config.json"));
  DSPARK_ASSIGN_OR_RETURN(const MappedFile chat, open_optional(folder / "chat_template.jinja"));
  HfTokenizerFiles files;
  files.name = tokenizer.path();
  files.tokenizer = as_text(tokenizer);
  files.config = as_text(config);
  files.chat_template = as_text(chat);
  return from_json(files, checkpoint.config(), checkpoint.generation_config());
}

}  // namespace dspark
