#include "cli/model_flags.h"

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <filesystem>
#include <string_view>
#include <vector>

#include "cli/progress.h"

namespace dspark::cli {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kDefaultModel = "models/cache/SmolLM2-135M-Instruct.Q4_1.gguf";
constexpr int kMaxThreads = 1024;

std::vector<fs::path> default_model_folders() {
  std::error_code ec;
  std::vector<fs::path> folders = {fs::current_path(ec)};
  // build/release/dspark looks in build/release, build and the clone.
  fs::path folder = fs::read_symlink("/proc/self/exe", ec).parent_path();
  for (int up = 0; up < 3 && !folder.empty(); ++up, folder = folder.parent_path()) folders.push_back(folder);
  return folders;
}

}  // namespace

void add_model_flags(CLI::App& command, ModelFlags& flags) {
  command.add_option("-m,--model", flags.model,
                     "GGUF or safetensors file, or Hugging Face folder (default: $DSPARK_MODEL, else SmolLM2 "
                     "in models/cache)");
  command.add_option("-t,--threads", flags.threads, "threads (0: one per processor this process may use)")
      ->check(CLI::Range(0, kMaxThreads))
      ->capture_default_str();
  add_kv_type_flags(command, flags.kv_type);
}

void add_kv_type_flags(CLI::App& command, std::string& kv_type) {
  command
      .add_option("--kv-type,--cache-type-k", kv_type,
                  "element type of the cache: bf16, f32, q8_0 (also -ctk)")
      ->capture_default_str();
  // Options are looked at in the order in which they were added, so kv_type is set here wherever it stood.
  command.add_option_function<std::string>(
      "--cache-type-v",
      [&kv_type](const std::string& values) {
        if (values == kv_type) return;
        throw CLI::ValidationError("--cache-type-v",
                                   "keys and values have one type, and --kv-type (-ctk) says '" + kv_type +
                                       "', found '" + values + "'");
      },
      "the same for values: must be what --kv-type says (also -ctv)");
}

Result<std::string> default_model_path() {
  if (const char* named = std::getenv("DSPARK_MODEL"); named != nullptr && *named != '\0') {
    return std::string(named);
  }
  for (const fs::path& folder : default_model_folders()) {
    const fs::path file = folder / kDefaultModel;
    std::error_code ec;
    if (fs::is_regular_file(file, ec)) return file.string();
  }
  return not_found(
      "no model given: use -m FILE, set DSPARK_MODEL, or run scripts/fetch-models, which makes " +
      std::string(kDefaultModel));
}

Result<KvDType> parse_kv_type(const std::string& name) {
  if (name == "bf16") return KvDType::kBF16;
  if (name == "f32") return KvDType::kF32;
  if (name == "q8_0") return KvDType::kQ8_0;
  return invalid_argument("--kv-type: expected bf16, f32 or q8_0, found '" + name + "'");
}

Result<LoadedModel> load_with_progress(const ModelFlags& flags, bool quiet, bool float_activations) {
  std::string path = flags.model;
  if (path.empty()) {
    DSPARK_ASSIGN_OR_RETURN(path, default_model_path());
  }
  ProgressLine progress(!quiet);
  LoadOptions options;
  options.n_threads = flags.threads;
  options.float_activations = float_activations;
  options.on_stage = [&](std::string_view stage) {
    progress.show("loading " + fs::path(path).filename().string() + ": " + std::string(stage));
  };
  return load_model(path, options);
}

}  // namespace dspark::cli
