#include "engine/calibration_file.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "draft/factory.h"
#include "formats/atomic_file.h"
#include "formats/json_reader.h"
#include "speculate/scheduler.h"

namespace dspark {
namespace {

using Json = nlohmann::json;

/// Reads the members of one object and keeps the first error.
class Fields {
 public:
  Fields(const Json& object, const std::string& path) : object_(object), path_(path) {}

  const Status& status() const { return status_; }

  std::vector<double> numbers(const char* key, bool required) {
    std::vector<double> values;
    const Json* node = find(key, required);
    if (node == nullptr) return values;
    const bool fits = node->is_array() && node->size() <= static_cast<size_t>(kMaxDraftTokens) &&
                      std::all_of(node->begin(), node->end(), [](const Json& n) { return n.is_number(); });
    if (!fits) {
      fail(key, "a list of at most " + std::to_string(kMaxDraftTokens) + " numbers");
    } else {
      for (const Json& number : *node) values.push_back(number.get<double>());
    }
    return values;
  }
  std::string text(const char* key) {
    const Json* node = find(key, false);
    if (node == nullptr) return {};
    if (!node->is_string()) return fail(key, "a string"), std::string();
    return node->get<std::string>();
  }
  double number(const char* key) {
    const Json* node = find(key, false);
    if (node == nullptr) return 0.0;
    if (!node->is_number()) return fail(key, "a number"), 0.0;
    return node->get<double>();
  }
  void fail(const std::string& key, const std::string& want) {
    if (status_.ok()) status_ = invalid_argument(path_ + ": " + key + ": want " + want);
  }

 private:
  const Json* find(const char* key, bool required) {
    const auto at = object_.find(key);
    if (at != object_.end()) return &*at;
    if (required) fail(key, "a value, it is missing");
    return nullptr;
  }

  const Json& object_;
  const std::string& path_;
  Status status_;
};

constexpr std::string_view kKnownKeys[] = {"temperatures", "biases",      "dataset",
                                           "num_samples",  "ece_before",  "ece_after",
                                           "accept_rule",  "temperature", "target"};

Result<Calibration> read_table(const Json& json, const std::string& path) {
  if (!json.is_object()) return invalid_argument(path + ": want a JSON object with temperatures");
  for (const auto& [key, value] : json.items()) {
    if (std::find(std::begin(kKnownKeys), std::end(kKnownKeys), key) == std::end(kKnownKeys)) {
      return invalid_argument(path + ": unknown key '" + key + "'");
    }
  }
  Fields fields(json, path);
  Calibration calibration;
  calibration.temperatures = fields.numbers("temperatures", true);
  calibration.biases = fields.numbers("biases", false);
  calibration.target = fields.text("target");
  calibration.ece_before = fields.numbers("ece_before", false);
  calibration.ece_after = fields.numbers("ece_after", false);
  calibration.dataset = fields.text("dataset");
  calibration.temperature = fields.number("temperature");
  const double num_samples = fields.number("num_samples");
  if (!(num_samples >= 0.0) || num_samples > 9e15) fields.fail("num_samples", "a count");
  DSPARK_RETURN_IF_ERROR(fields.status());
  calibration.num_samples = static_cast<int64_t>(num_samples);
  if (const std::string rule = fields.text("accept_rule"); !rule.empty()) {
    const Result<AcceptRule> parsed = parse_accept_rule(rule);
    if (!parsed.ok()) return invalid_argument(path + ": accept_rule: " + parsed.status().message());
    calibration.accept_rule = *parsed;
  }
  if (calibration.temperatures.empty()) return invalid_argument(path + ": temperatures: want at least one");
  for (size_t k = 0; k < calibration.temperatures.size(); ++k) {
    const double temperature = calibration.temperatures[k];
    if (!(temperature > 0.0) || !std::isfinite(temperature)) {
      fields.fail("temperatures[" + std::to_string(k) + "]",
                  "a number above 0, found " + std::to_string(temperature));
    }
  }
  if (!calibration.biases.empty() && calibration.biases.size() != calibration.temperatures.size()) {
    fields.fail("biases", "as many as temperatures, " + std::to_string(calibration.temperatures.size()) +
                              ", found " + std::to_string(calibration.biases.size()));
  }
  DSPARK_RETURN_IF_ERROR(fields.status());
  return calibration;
}

nlohmann::ordered_json table_json(const Calibration& calibration) {
  nlohmann::ordered_json json = {{"temperatures", calibration.temperatures},
                                 {"dataset", calibration.dataset},
                                 {"num_samples", calibration.num_samples},
                                 {"ece_before", calibration.ece_before},
                                 {"ece_after", calibration.ece_after},
                                 {"accept_rule", std::string(accept_rule_name(calibration.accept_rule))},
                                 {"temperature", calibration.temperature}};
  if (!calibration.biases.empty()) json["biases"] = calibration.biases;
  if (!calibration.target.empty()) json["target"] = calibration.target;
  return json;
}

}  // namespace

Result<std::vector<Calibration>> read_calibrations(const std::string& path) {
  DSPARK_ASSIGN_OR_RETURN(const Json json, read_json_file(path, DuplicateKeys::kRefuse));
  const bool several = json.is_object() && json.size() == 1 && json.contains("tables");
  std::vector<Calibration> tables;
  if (!several) {
    DSPARK_ASSIGN_OR_RETURN(Calibration table, read_table(json, path));
    tables.push_back(std::move(table));
    return tables;
  }
  const Json& list = json["tables"];
  if (!list.is_array() || list.empty() || list.size() > kMostTables) {
    return invalid_argument(path + ": tables: want a list of 1 to " + std::to_string(kMostTables) +
                            " objects");
  }
  for (size_t i = 0; i < list.size(); ++i) {
    DSPARK_ASSIGN_OR_RETURN(Calibration table,
                            read_table(list[i], path + ": tables[" + std::to_string(i) + "]"));
    tables.push_back(std::move(table));
  }
  return tables;
}

Status write_calibrations(const std::string& path, std::span<const Calibration> tables) {
  nlohmann::ordered_json json;
  if (tables.size() == 1) {
    json = table_json(tables.front());
  } else {
    json["tables"] = nlohmann::ordered_json::array();
    for (const Calibration& table : tables) json["tables"].push_back(table_json(table));
  }
  const std::string text = json.dump(1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
  DSPARK_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::create(path));
  DSPARK_RETURN_IF_ERROR(file.write({reinterpret_cast<const uint8_t*>(text.data()), text.size()}));
  return file.commit();
}

std::string calibration_path(const std::string& drafter) {
  std::error_code ec;
  const std::filesystem::path path(split_drafter_spec(drafter).drafter);
  if (!std::filesystem::exists(path, ec)) return "";
  const std::filesystem::path beside =
      std::filesystem::is_directory(path, ec)
          ? path / "calibration.json"
          : path.parent_path() / (path.stem().string() + ".calibration.json");
  return beside.string();
}

}  // namespace dspark
