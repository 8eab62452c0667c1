#pragma once
// From a path to everything a request needs: checkpoint, tokenizer, chat template, packed model.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "base/thread_pool.h"
#include "draft/drafter.h"
#include "engine/engine.h"
#include "formats/checkpoint.h"
#include "models/model.h"

namespace dspark {

class Tokenizer;     // text/tokenizer.h
class ChatTemplate;  // text/chat_template.h

struct LoadOptions {
  int n_threads = 0;               // worker threads, the caller included; 0: default_thread_count()
  bool float_activations = false;  // exact float path instead of quantised activations (slow)
  /// Called before each stage with its name ("reading", "tokenizer", "packing weights").
  std::function<void(std::string_view stage)> on_stage;
};

/// A loaded model. Movable; members die in the right order. The engine built from it keeps references into
/// it, so it must outlive every engine.
struct LoadedModel {
  std::string path;
  LoadOptions options;
  std::unique_ptr<ThreadPool> pool;
  std::shared_ptr<const Checkpoint> checkpoint;
  std::shared_ptr<const Tokenizer> tokenizer;  // nullptr: the file has none (tiny test models); ids only
  std::shared_ptr<const ChatTemplate> chat_template;  // nullptr: none in the file, or one that does not parse
  Status chat_template_status;                        // why it does not parse; ok when there is none
  std::unique_ptr<TargetModel> model;
  std::vector<int32_t> eos_ids;  // ids that end a turn: from the model's metadata and its tokenizer
  double load_s = 0;             // seconds load_model took

  LoadedModel();
  LoadedModel(LoadedModel&&) noexcept;
  LoadedModel& operator=(LoadedModel&&) noexcept;
  ~LoadedModel();
};

/// Opens a GGUF file, a safetensors file or a Hugging Face folder and packs its weights.
/// errors: those of Checkpoint::open, TargetModel::load and the tokenizer; neither a missing nor a
/// broken chat template is one: without it a model still continues texts.
Result<LoadedModel> load_model(const std::string& path, const LoadOptions& options = {});

/// A drafter as the user asks for it.
struct DrafterOptions {
  std::string spec = "none";  // a name or a path, see make_drafter (draft/factory.h)
  /// Path of a calibration file (engine/calibration_file.h); "none": no calibration; empty: the file that
  /// lies beside the drafter, if one does (calibration_beside).
  std::string calibration;
  int32_t shortlist = 0;        // see DrafterContext
  uint64_t random_weights = 0;  // see DrafterContext
  bool hybrid = false;          // a learned drafter is joined with prompt lookup (draft/hybrid_drafter.h)
  /// Of the requests to come, to choose among the tables of a calibration file (best_calibration).
  AcceptRule rule = AcceptRule::kCoupled;
  std::optional<double> temperature = {};  // nothing: every request brings its own
};

/// The drafter for an engine that make_engine will build from `loaded` with `engine`; null for "none".
/// requires: `loaded` outlives the drafter. errors: those of make_drafter and read_calibrations; a
/// calibration for a drafter without a confidence head.
Result<std::unique_ptr<Drafter>> load_drafter(LoadedModel& loaded, const EngineOptions& engine,
                                              const DrafterOptions& options);

/// Where a drafter's calibration is looked for: "calibration.json" in its folder, or "NAME.calibration.json"
/// beside a file "NAME.gguf". returns: that path if the file exists, else "".
std::string calibration_beside(const std::string& drafter);

/// The policy to use when the user names none: off without a drafter, else adaptive.
VerifyPolicy default_policy(const Drafter* drafter);

/// An engine over `loaded`. Fills options.eos_ids and the token-bytes function from it where they are empty.
/// drafter: may be null. requires: `loaded` outlives the engine.
Result<std::unique_ptr<Engine>> make_engine(LoadedModel& loaded, EngineOptions options = {},
                                            std::unique_ptr<Drafter> drafter = nullptr);

}  // namespace dspark
