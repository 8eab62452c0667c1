#include "load/cost_curves.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "engine/cost_probe.h"
#include "formats/json_reader.h"

namespace dspark {
namespace {

using Json = nlohmann::json;

constexpr size_t kMostPoints = 1 << 16;

double flat_seconds(int32_t n) {
  constexpr double kBase = 3.5e-3;
  return kBase * (1.0 + std::max(0, n - 4) / 6.0);
}

double linear_seconds(int32_t n) {
  constexpr double kBase = 4e-3;
  return kBase * (0.5 + 0.5 * n);
}

double gpu_seconds(int32_t n) {
  constexpr double kBase = 12e-3;
  constexpr int32_t kTile = 64, kKnee = 256;
  const int32_t tiles = (n + kTile - 1) / kTile;
  const double memory = kBase * (1.0 + 0.02 * tiles);
  const double compute = kBase * (static_cast<double>(tiles) * kTile / kKnee);
  const double dip = n % kTile == 0 ? 0.97 : 1.0;  // no half-empty tile
  return std::max(memory, compute) * dip;
}

Status read_points(const Json& object, const char* list, bool required, const std::string& where,
                   std::vector<CostPoint>& out) {
  const auto at = object.find(list);
  if (at == object.end() && !required) return ok_status();
  if (at == object.end() || !at->is_array() || at->size() > kMostPoints) {
    return invalid_argument(where + ": " + list + ": want a list of {\"n\": rows, \"seconds\": s}");
  }
  for (const Json& point : *at) {
    // {"n": rows, "seconds": s}, or [rows, s] as in files of measured costs.
    const bool is_pair = point.is_array() && point.size() == 2;
    const bool is_entry = point.is_object() && point.contains("n") && point.contains("seconds");
    const Json n = is_pair ? point[0] : is_entry ? point["n"] : Json();
    const Json seconds = is_pair ? point[1] : is_entry ? point["seconds"] : Json();
    if (!n.is_number_unsigned() || n.get<uint64_t>() > kMostPoints || !seconds.is_number()) {
      return invalid_argument(where + ": " + list + "[" + std::to_string(out.size()) +
                              "]: want {\"n\": rows, \"seconds\": s}");
    }
    out.push_back({n.get<int32_t>(), seconds.get<double>()});
  }
  return ok_status();
}

Status read_curve(const Json& object, const std::string& where, std::vector<ContextPoint>& out) {
  constexpr uint64_t kMostPositions = 1000000000;
  const auto at = object.find("context_curve");
  if (at == object.end()) return ok_status();
  const auto is_point = [](const Json& point) {
    return point.is_array() && point.size() == 2 && point[0].is_number_unsigned() &&
           point[0].get<uint64_t>() <= kMostPositions && point[1].is_number();
  };
  if (!at->is_array() || at->size() > kMostPoints || !std::all_of(at->begin(), at->end(), is_point)) {
    return invalid_argument(where + ": context_curve: want a list of [positions, counted]");
  }
  for (const Json& point : *at) out.push_back({point[0].get<int32_t>(), point[1].get<double>()});
  return ok_status();
}

Status read_number(const Json& object, const char* key, const std::string& where, double& out) {
  const auto at = object.find(key);
  if (at == object.end()) return ok_status();
  if (!at->is_number()) return invalid_argument(where + ": " + key + ": want a number");
  out = at->get<double>();
  return ok_status();
}

/// The entries at `sizes`, or the next larger one where there is none, as far as they do not exceed the last
/// size.
std::vector<CostPoint> sample(const std::vector<CostPoint>& points, const std::vector<int32_t>& sizes) {
  std::vector<CostPoint> sampled;
  for (const int32_t n : sizes) {
    const auto point = std::ranges::find_if(points, [n](const CostPoint& p) { return p.n >= n; });
    if (point == points.end() || point->n > sizes.back()) break;
    if (sampled.empty() || point->n > sampled.back().n) sampled.push_back(*point);
  }
  return sampled;
}

}  // namespace

Result<CostTable> built_in_costs(std::string_view name, int32_t max_rows, int32_t max_sequences) {
  double (*seconds)(int32_t) = nullptr;
  if (name == "flat") seconds = flat_seconds;
  if (name == "linear") seconds = linear_seconds;
  if (name == "gpu") seconds = gpu_seconds;
  if (seconds == nullptr) {
    return invalid_argument("want flat, linear or gpu, found '" + std::string(name) + "'");
  }
  constexpr double kFirstShare = 0.10, kRowShare = 0.08;  // of the target's pass; a layer or two of thirty
  constexpr int32_t kBlock = 8;
  CostTable table;
  for (int32_t n = 1; n <= max_rows; ++n) table.verify.push_back({n, seconds(n)});
  for (int32_t n = 1; n <= max_sequences; ++n) {
    table.draft.push_back({n, kFirstShare * seconds(1) + kRowShare * (seconds(n * kBlock) - seconds(1))});
  }
  return table;
}

Result<CostTable> read_cost_table(const std::string& path) {
  DSPARK_ASSIGN_OR_RETURN(const Json json, read_json_file(path));
  if (!json.is_object()) return invalid_argument(path + ": want a JSON object");
  const bool nested = json.contains("costs") && json["costs"].is_object();
  const Json& object = nested ? json["costs"] : json;
  const std::string where = nested ? path + ": costs" : path;
  CostTable table;
  DSPARK_RETURN_IF_ERROR(read_points(object, "verify", true, where, table.verify));
  DSPARK_RETURN_IF_ERROR(read_points(object, "draft", false, where, table.draft));
  DSPARK_RETURN_IF_ERROR(read_points(object, "draft_short", false, where, table.draft_short));
  DSPARK_RETURN_IF_ERROR(read_number(object, "context_s", where, table.context_s));
  DSPARK_RETURN_IF_ERROR(read_number(object, "row_context_s", where, table.row_context_s));
  DSPARK_RETURN_IF_ERROR(read_number(object, "overhead_s", where, table.overhead_s));
  DSPARK_RETURN_IF_ERROR(read_curve(object, where, table.context_curve));
  double draft_length = 0.0;
  DSPARK_RETURN_IF_ERROR(read_number(object, "draft_length", where, draft_length));
  if (!(draft_length >= 0.0 && draft_length <= 64.0)) {
    return invalid_argument(where + ": draft_length: want 0 to 64");
  }
  table.draft_length = static_cast<int32_t>(draft_length);
  if (const Status status = table.validate(); !status.ok()) {
    return invalid_argument(where + ": " + status.message());
  }
  return table;
}

CostTable sample_costs(const CostTable& table, int32_t max_rows, int32_t max_sequences) {
  CostTable sampled = table;
  sampled.verify = sample(table.verify, probe_rows(max_rows));
  sampled.draft = sample(table.draft, probe_sequences(max_sequences));
  sampled.draft_short = sample(table.draft_short, probe_sequences(max_sequences));
  return sampled;
}

}  // namespace dspark
