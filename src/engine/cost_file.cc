#include "engine/cost_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "formats/atomic_file.h"
#include "formats/json_reader.h"
#include "kernels/isa.h"

namespace dspark {
namespace {

using Json = nlohmann::json;
// 1 took free drafts behind the block of a model for a part of its pass; 2 timed a bf16 cache whatever the
// engine's was, and took positions of context for equally dear.
constexpr int kVersion = 3;
constexpr size_t kMostPoints = 256;
// No measurement comes near these; the planner computes with sums and products of what a file says.
constexpr double kMostCount = 1e9;
constexpr double kMostSeconds = 1e6;   // of a pass: twelve days
constexpr double kMostCounted = 1e15;  // of a context; a curve of noise may count far more than there is

/// "AMD EPYC ...", as far as the system tells.
std::string processor_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.rfind("model name", 0) != 0) continue;
    const size_t colon = line.find(':');
    return colon == std::string::npos ? "" : line.substr(std::min(line.size(), colon + 2));
  }
  return "unknown";
}

std::string file_name(std::string_view path) {
  std::filesystem::path p(path);
  if (!p.has_filename()) p = p.parent_path();
  return p.filename().string();
}

const char* kv_type_name(KvDType type) {
  return type == KvDType::kF32 ? "f32" : type == KvDType::kBF16 ? "bf16" : "q8_0";
}

/// Reads members and keeps the first error.
class Reader {
 public:
  explicit Reader(const std::string& path) : path_(path) {}
  const Status& status() const { return status_; }

  const Json* find(const Json& object, const char* key) {
    const auto at = object.find(key);
    if (at != object.end()) return &*at;
    fail(key, "a value, it is missing");
    return nullptr;
  }
  std::string text(const Json& object, const char* key) {
    const Json* node = find(object, key);
    if (node != nullptr && !node->is_string()) fail(key, "a string");
    return node != nullptr && node->is_string() ? node->get<std::string>() : std::string();
  }
  double number(const Json& object, const char* key, double most) {
    const Json* node = find(object, key);
    if (node == nullptr) return 0.0;
    const double value = node->is_number() ? node->get<double>() : -1.0;
    if (value >= 0.0 && value <= most) return value;
    fail(key, fmt::format("a number from 0 to {:g}", most));
    return 0.0;
  }
  /// A list of at most `most` pairs: a number from 0 to kMostCount and one from 0 to `most_second`.
  std::vector<std::pair<double, double>> pairs(const Json& object, const char* key, size_t most,
                                               double most_second) {
    std::vector<std::pair<double, double>> out;
    const Json* node = find(object, key);
    if (node == nullptr) return out;
    const auto is_within = [](const Json& number, double largest) {
      return number.is_number() && number.get<double>() >= 0.0 && number.get<double>() <= largest;
    };
    const auto is_pair = [&](const Json& entry) {
      return entry.is_array() && entry.size() == 2 && is_within(entry[0], kMostCount) &&
             is_within(entry[1], most_second);
    };
    if (!node->is_array() || node->size() > most || !std::all_of(node->begin(), node->end(), is_pair)) {
      fail(key, fmt::format("a list of at most {} pairs of a number from 0 to {:g} and one from 0 to {:g}",
                            most, kMostCount, most_second));
      return out;
    }
    for (const Json& entry : *node) out.emplace_back(entry[0].get<double>(), entry[1].get<double>());
    return out;
  }
  void fail(const std::string& key, const std::string& want) {
    if (status_.ok()) status_ = invalid_argument(path_ + ": " + key + ": want " + want);
  }

 private:
  const std::string& path_;
  Status status_;
};

std::vector<CostPoint> points_of(Reader& reader, const Json& json, const char* key) {
  std::vector<CostPoint> points;
  for (const auto& [n, seconds] : reader.pairs(json, key, kMostPoints, kMostSeconds)) {
    points.push_back({static_cast<int32_t>(n), seconds});
  }
  return points;
}

std::vector<ContextPoint> curve_of(Reader& reader, const Json& json, const char* key) {
  std::vector<ContextPoint> curve;
  for (const auto& [positions, counted] : reader.pairs(json, key, kMostPoints, kMostCounted)) {
    curve.push_back({static_cast<int32_t>(positions), counted});
  }
  return curve;
}

CostKey key_of(Reader& reader, const Json& json) {
  CostKey key;
  const Json* node = reader.find(json, "key");
  if (node == nullptr || !node->is_object()) {
    reader.fail("key", "an object");
    return key;
  }
  key.model = reader.text(*node, "model");
  key.machine = reader.text(*node, "machine");
  key.threads = static_cast<int32_t>(reader.number(*node, "threads", 1e6));
  key.kv_type = reader.text(*node, "kv_type");
  key.drafter = reader.text(*node, "drafter");
  key.max_sequences = static_cast<int32_t>(reader.number(*node, "max_sequences", 1e9));
  return key;
}

nlohmann::ordered_json to_json(const CostKey& key) {
  return {{"model", key.model},     {"machine", key.machine}, {"threads", key.threads},
          {"kv_type", key.kv_type}, {"drafter", key.drafter}, {"max_sequences", key.max_sequences}};
}

nlohmann::ordered_json to_json(const std::vector<CostPoint>& points) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const CostPoint& point : points) list.push_back({point.n, point.seconds});
  return list;
}

nlohmann::ordered_json to_json(const std::vector<ContextPoint>& curve) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const ContextPoint& point : curve) list.push_back({point.positions, point.counted});
  return list;
}

}  // namespace

CostKey cost_key(const LoadedModel& loaded, const Drafter* drafter, std::string_view drafter_spec,
                 const EngineOptions& options) {
  CostKey key;
  const ModelConfig& config = loaded.model->config();
  key.model = fmt::format("{}, {} bytes, {} x {}", file_name(loaded.path), loaded.model->weight_bytes(),
                          config.n_layers, config.dim);
  key.machine = fmt::format("{}, {}{}", processor_name(), isa_name(active_isa()),
                            loaded.options.float_activations ? ", float" : "");
  key.threads = loaded.pool->n_threads();
  key.kv_type = kv_type_name(options.kv_dtype);
  key.drafter = "none";
  if (drafter != nullptr) {
    key.drafter = fmt::format("{}, {}, {} bytes, block {}", file_name(drafter_spec), drafter->name(),
                              drafter->weight_bytes(), drafter->max_block());
    if (drafter->short_block() > 0) key.drafter += fmt::format(", short block {}", drafter->short_block());
  }
  key.max_sequences = options.max_sequences;
  return key;
}

Result<SavedCosts> read_costs(const std::string& path) {
  DSPARK_ASSIGN_OR_RETURN(const Json json, read_json_file(path, DuplicateKeys::kRefuse));
  if (!json.is_object()) return invalid_argument(path + ": want a JSON object with a cost table");
  Reader reader(path);
  const double version = reader.number(json, "dspark_cost_table", 1e6);
  DSPARK_RETURN_IF_ERROR(reader.status());
  if (version != kVersion) {
    return invalid_argument(
        fmt::format("{}: dspark_cost_table: want version {}, found {:g}", path, kVersion, version));
  }
  SavedCosts saved;
  saved.key = key_of(reader, json);
  saved.table.verify = points_of(reader, json, "verify");
  saved.table.draft = points_of(reader, json, "draft");
  saved.table.draft_short = points_of(reader, json, "draft_short");
  saved.table.draft_length = static_cast<int32_t>(reader.number(json, "draft_length", kMaxDraftTokens));
  if (json.contains("draft_stair")) {
    saved.table.draft_stair = points_of(reader, json, "draft_stair");
    saved.table.stair_length = static_cast<int32_t>(reader.number(json, "stair_length", kMaxDraftTokens));
  }
  saved.table.context_s = reader.number(json, "context_s", 1e3);
  saved.table.row_context_s = reader.number(json, "row_context_s", 1e3);
  saved.table.context_curve = curve_of(reader, json, "context_curve");
  saved.table.overhead_s = reader.number(json, "overhead_s", 1e3);
  size_t j = 0;
  for (const auto& [tries, hits] : reader.pairs(json, "acceptance", kMaxDraftTokens, kMostCount)) {
    saved.memory.acceptance[j++] = {tries, std::min(hits, tries)};
  }
  DSPARK_RETURN_IF_ERROR(reader.status());
  if (const Status status = saved.table.validate(); !status.ok()) {
    return invalid_argument(path + ": " + status.message());
  }
  return saved;
}

Status write_costs(const std::string& path, const SavedCosts& costs) {
  std::error_code ec;
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  if (!folder.empty()) std::filesystem::create_directories(folder, ec);
  nlohmann::ordered_json acceptance = nlohmann::ordered_json::array();
  for (const AcceptanceCount& seen : costs.memory.acceptance) {
    if (seen.tries > 0.0) acceptance.push_back({seen.tries, seen.hits});
  }
  nlohmann::ordered_json json = {{"dspark_cost_table", kVersion},
                                 {"key", to_json(costs.key)},
                                 {"verify", to_json(costs.table.verify)},
                                 {"draft", to_json(costs.table.draft)},
                                 {"draft_short", to_json(costs.table.draft_short)},
                                 {"draft_length", costs.table.draft_length},
                                 {"context_s", costs.table.context_s},
                                 {"row_context_s", costs.table.row_context_s},
                                 {"context_curve", to_json(costs.table.context_curve)},
                                 {"overhead_s", costs.table.overhead_s},
                                 {"acceptance", acceptance}};
  if (costs.table.stair_length > 0) {
    json["draft_stair"] = to_json(costs.table.draft_stair);
    json["stair_length"] = costs.table.stair_length;
  }
  const std::string text = json.dump(1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
  DSPARK_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::create(path));
  DSPARK_RETURN_IF_ERROR(file.write({reinterpret_cast<const uint8_t*>(text.data()), text.size()}));
  return file.commit();
}

Status check_cost_key(const std::string& path, const CostKey& want, const CostKey& found) {
  const auto differ = [&](const char* field, const auto& a, const auto& b) {
    return invalid_argument(fmt::format("{}: {}: measured for '{}', this run has '{}'", path, field, b, a));
  };
  if (want.model != found.model) return differ("model", want.model, found.model);
  if (want.machine != found.machine) return differ("machine", want.machine, found.machine);
  if (want.threads != found.threads) return differ("threads", want.threads, found.threads);
  if (want.kv_type != found.kv_type) return differ("kv_type", want.kv_type, found.kv_type);
  if (want.drafter != found.drafter) return differ("drafter", want.drafter, found.drafter);
  if (want.max_sequences > found.max_sequences) {  // what was measured for more serves fewer too
    return differ("max_sequences", want.max_sequences, found.max_sequences);
  }
  return ok_status();
}

std::string cost_cache_path(const CostKey& key) {
  std::filesystem::path folder;
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  if (cache != nullptr && cache[0] == '/') {
    folder = cache;
  } else if (home != nullptr && home[0] != 0) {
    folder = std::filesystem::path(home) / ".cache";
  } else {
    return {};
  }
  uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a
  for (const char c : to_json(key).dump()) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  return (folder / "dspark" / fmt::format("costs-{:016x}.json", hash)).string();
}

Result<CostSource> find_costs(const LoadedModel& loaded, const Drafter* drafter,
                              std::string_view drafter_spec, const std::string& choice,
                              EngineOptions& options) {
  CostSource source;
  const bool wanted = options.policy.needs_costs() || options.always_costs;
  if (choice == "none" || drafter == nullptr || options.costs || !wanted) return source;
  source.key = cost_key(loaded, drafter, drafter_spec, options);
  source.named = choice != "auto" && !choice.empty();
  source.path = source.named ? choice : cost_cache_path(source.key);
  std::error_code ec;
  if (source.path.empty() || !std::filesystem::exists(source.path, ec)) return source;
  Result<SavedCosts> saved = read_costs(source.path);
  Status status = saved.ok() ? check_cost_key(source.path, source.key, saved->key) : saved.status();
  if (!status.ok()) {
    if (source.named) return status;
    source.ignored = status.message();
    return source;
  }
  options.costs = saved->table;
  options.planner_memory = saved->memory;
  source.was_read = true;
  return source;
}

Status save_costs(const CostSource& source, const Engine& engine) {
  if (source.path.empty() || engine.planner() == nullptr) return ok_status();
  constexpr double kMostCorrection = 1.5;
  const CostModel& costs = engine.planner()->costs();
  const double correction = costs.correction();
  const bool contradicted = correction > kMostCorrection || correction < 1.0 / kMostCorrection;
  if (!source.named && contradicted && costs.correction_is_settled()) {
    std::error_code ec;
    std::filesystem::remove(source.path, ec);
    return ok_status();
  }
  return write_costs(source.path, {source.key, costs.corrected_table(), engine.planner()->memory()});
}

}  // namespace dspark
