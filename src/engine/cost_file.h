#pragma once
// What passes cost and how drafts fared, kept on disk from run to run: one JSON file per model, machine,
// threads, cache type and drafter.

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"
#include "engine/engine.h"
#include "engine/loader.h"
#include "speculate/adaptive_planner.h"
#include "speculate/cost_model.h"

namespace dspark {

/// What a cost table belongs to. Two keys are the same or the table is foreign.
struct CostKey {
  std::string model;    // file name, bytes of packed weights, layers and width
  std::string machine;  // processor and instruction set of the kernels
  int32_t threads = 0;
  std::string kv_type;
  std::string drafter;        // file name or kind, bytes, block, short block if there is one; "none"
  int32_t max_sequences = 0;  // the sizes that were measured follow from it

  bool operator==(const CostKey&) const = default;
};

/// The key of an engine over `loaded`; drafter_spec: as the user named it.
CostKey cost_key(const LoadedModel& loaded, const Drafter* drafter, std::string_view drafter_spec,
                 const EngineOptions& options);

/// What a file holds.
struct SavedCosts {
  CostKey key;
  CostTable table;
  PlannerMemory memory;
};

/// errors: not_found, corrupt_data (no JSON), invalid_argument naming file and field.
Result<SavedCosts> read_costs(const std::string& path);
/// Replaces the file at once or not at all; makes its folder. errors: those of writing.
Status write_costs(const std::string& path, const SavedCosts& costs);
/// errors: invalid_argument naming the file, the first field that differs, both values. A table for more
/// sequences fits.
Status check_cost_key(const std::string& path, const CostKey& want, const CostKey& found);

/// Where the table of a key is kept when the user names no file: $XDG_CACHE_HOME/dspark or
/// ~/.cache/dspark, file costs-<hash of the key>.json. Empty: neither variable is set.
std::string cost_cache_path(const CostKey& key);

/// Where an engine's costs come from and go to.
struct CostSource {
  std::string path;     // empty: nowhere
  std::string ignored;  // why a file in the cache was not used; empty: there was none, or it was
  bool was_read = false;
  bool named = false;  // by the user, not found in the cache
  CostKey key;
};

/// Fills options.costs and options.planner_memory from `choice`: "auto" (the cache), "none", or a file. A
/// file that was named must fit if it is there; one in the cache is ignored, with the reason, when it is
/// broken or foreign. Does nothing for engines that ask for no costs. errors: of a named file.
Result<CostSource> find_costs(const LoadedModel& loaded, const Drafter* drafter,
                              std::string_view drafter_spec, const std::string& choice,
                              EngineOptions& options);
/// Writes what the engine measured and learned where it came from, with what steps taught about single sizes
/// (CostModel::corrected_table). A table in the cache that steps
/// contradicted, because it was measured in a bad moment, is removed instead, so that the next start measures
/// again. Does nothing without a path or costs.
Status save_costs(const CostSource& source, const Engine& engine);

}  // namespace dspark
