#pragma once
// Options that every command with a model shares, and loading with progress on the terminal.

#include <string>

#include "base/status.h"
#include "engine/loader.h"
#include "kernels/kv_cache.h"

namespace CLI {
class App;
}

namespace dspark::cli {

/// -m, -t, --kv-type, --cache-type-v.
struct ModelFlags {
  std::string model;  // empty: default_model_path()
  int threads = 0;    // 0: default_thread_count()
  std::string kv_type = "bf16";
};

void add_model_flags(CLI::App& command, ModelFlags& flags);

/// --kv-type, which add_model_flags has too, and --cache-type-v, which may only repeat it: keys and values
/// have one type. `kv_type` lives as long as the command.
void add_kv_type_flags(CLI::App& command, std::string& kv_type);

/// The model to use when none is named: $DSPARK_MODEL, else SmolLM2 in models/cache below the working
/// directory, below the folder of the program, or below one of that folder's parents (a build tree).
/// errors: not_found, telling how to get one.
Result<std::string> default_model_path();

/// "bf16", "f32" or "q8_0". errors: invalid_argument naming --kv-type.
Result<KvDType> parse_kv_type(const std::string& name);

/// Loads the model that `flags` name. On a terminal the stages are shown on stderr while they run.
/// float_activations: see LoadOptions.
Result<LoadedModel> load_with_progress(const ModelFlags& flags, bool quiet = false,
                                       bool float_activations = false);

}  // namespace dspark::cli
