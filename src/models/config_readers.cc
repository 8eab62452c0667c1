#include "models/config_readers.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

namespace dspark {
namespace {

Status out_of_range(const std::string& place, const std::string& found, int32_t max) {
  return invalid_argument(fmt::format("{} is {}, expected a whole number from 1 to {}", place, found, max));
}

// The one value of an array whose elements agree.
std::optional<int64_t> common_value(const std::vector<int64_t>& values) {
  if (values.empty()) return std::nullopt;
  for (int64_t value : values) {
    if (value != values.front()) return std::nullopt;
  }
  return values.front();
}

}  // namespace

MetaReader::MetaReader(const Checkpoint& checkpoint, std::string arch)
    : checkpoint_(checkpoint), arch_(std::move(arch)) {}

std::string MetaReader::key_name(std::string_view key) const {
  return fmt::format("{}.{}", arch_, key);
}

bool MetaReader::has(std::string_view key) const {
  return checkpoint_.meta(key_name(key)) != nullptr;
}

void MetaReader::fail(Status error) {
  if (status_.ok()) status_ = std::move(error);
}

int32_t MetaReader::size(std::string_view key, int32_t max, std::optional<int32_t> fallback) {
  const std::string name = key_name(key);
  const std::string place = fmt::format("{}: {}", checkpoint_.path(), name);
  const MetaValue* value = checkpoint_.meta(name);
  if (value == nullptr) {
    if (!fallback) fail(invalid_argument(fmt::format("{}: key '{}' is missing", checkpoint_.path(), name)));
    return fallback.value_or(1);
  }
  std::optional<int64_t> number = checkpoint_.meta_int(name);
  if (const auto* array = std::get_if<std::vector<int64_t>>(value)) {
    number = common_value(*array);
    if (!number) {
      fail(unsupported(place + " differs from layer to layer"));
      return 1;
    }
  }
  if (!number) {
    fail(invalid_argument(place + " is not a whole number"));
    return 1;
  }
  if (*number < 1 || *number > max) {
    fail(out_of_range(place, std::to_string(*number), max));
    return 1;
  }
  return static_cast<int32_t>(*number);
}

std::vector<int32_t> MetaReader::sizes(std::string_view key, int32_t n, int32_t max, int32_t fallback) {
  const auto* array = std::get_if<std::vector<int64_t>>(checkpoint_.meta(key_name(key)));
  if (array == nullptr) return std::vector<int32_t>(static_cast<size_t>(n), size(key, max, fallback));
  const std::string place = fmt::format("{}: {}", checkpoint_.path(), key_name(key));
  std::vector<int32_t> values(static_cast<size_t>(n), 1);
  if (array->size() != values.size()) {
    fail(invalid_argument(fmt::format("{} has {} entries for {} layers", place, array->size(), n)));
    return values;
  }
  for (size_t i = 0; i < values.size(); ++i) {
    const int64_t value = (*array)[i];
    if (value >= 1 && value <= max) {
      values[i] = static_cast<int32_t>(value);
    } else {
      fail(out_of_range(fmt::format("{}[{}]", place, i), std::to_string(value), max));
    }
  }
  return values;
}

int32_t MetaReader::count(std::string_view key, int32_t max, int32_t fallback) {
  if (checkpoint_.meta_int(key_name(key)) == 0) return 0;
  return has(key) ? size(key, max) : fallback;
}

double MetaReader::number(std::string_view key, std::optional<double> fallback) {
  const std::string name = key_name(key);
  if (checkpoint_.meta(name) == nullptr) {
    if (!fallback) fail(invalid_argument(fmt::format("{}: key '{}' is missing", checkpoint_.path(), name)));
    return fallback.value_or(1.0);
  }
  const std::optional<double> value = checkpoint_.meta_float(name);
  if (!value || !std::isfinite(*value)) {
    fail(invalid_argument(fmt::format("{}: {} is not a finite number", checkpoint_.path(), name)));
    return 1.0;
  }
  return *value;
}

std::string MetaReader::text(std::string_view key, const std::string& fallback) {
  const std::string name = key_name(key);
  if (checkpoint_.meta(name) == nullptr) return fallback;
  std::optional<std::string> value = checkpoint_.meta_string(name);
  if (!value) {
    fail(invalid_argument(fmt::format("{}: {} is not a string", checkpoint_.path(), name)));
    return fallback;
  }
  return *std::move(value);
}

JsonReader::JsonReader(const nlohmann::json& object, std::string where)
    : object_(object), where_(std::move(where)) {}

bool JsonReader::has(const char* key) const {
  const auto it = object_.find(key);
  return it != object_.end() && !it->is_null();
}

void JsonReader::fail(Status error) {
  if (status_.ok()) status_ = std::move(error);
}

int32_t JsonReader::size(const char* key, int32_t max, std::optional<int32_t> fallback) {
  if (!has(key)) {
    if (!fallback) fail(invalid_argument(fmt::format("{}: '{}' is missing", where_, key)));
    return fallback.value_or(1);
  }
  const nlohmann::json& value = object_.at(key);
  const std::string place = fmt::format("{}: '{}'", where_, key);
  if (!value.is_number_integer()) {
    fail(invalid_argument(
        fmt::format("{} is {}, expected a whole number", place, value.dump().substr(0, 60))));
    return 1;
  }
  const bool fits = value.is_number_unsigned() ? value.get<uint64_t>() <= static_cast<uint64_t>(max)
                                               : value.get<int64_t>() <= max;
  if (!fits || value.get<int64_t>() < 1) {
    fail(out_of_range(place, value.dump(), max));
    return 1;
  }
  return static_cast<int32_t>(value.get<int64_t>());
}

int32_t JsonReader::count(const char* key, int32_t max, int32_t fallback) {
  if (!has(key)) return fallback;
  return object_.at(key) == 0 ? 0 : size(key, max);
}

double JsonReader::number(const char* key, std::optional<double> fallback) {
  if (!has(key)) {
    if (!fallback) fail(invalid_argument(fmt::format("{}: '{}' is missing", where_, key)));
    return fallback.value_or(1.0);
  }
  const nlohmann::json& value = object_.at(key);
  if (!value.is_number() || !std::isfinite(value.get<double>())) {
    fail(invalid_argument(
        fmt::format("{}: '{}' is {}, expected a number", where_, key, value.dump().substr(0, 60))));
    return 1.0;
  }
  return value.get<double>();
}

bool JsonReader::flag(const char* key, bool fallback) {
  if (!has(key)) return fallback;
  const nlohmann::json& value = object_.at(key);
  if (!value.is_boolean()) {
    fail(invalid_argument(
        fmt::format("{}: '{}' is {}, expected true or false", where_, key, value.dump().substr(0, 60))));
    return fallback;
  }
  return value.get<bool>();
}

std::string JsonReader::text(const char* key, const std::string& fallback) {
  if (!has(key)) return fallback;
  const nlohmann::json& value = object_.at(key);
  if (!value.is_string()) {
    fail(invalid_argument(
        fmt::format("{}: '{}' is {}, expected a string", where_, key, value.dump().substr(0, 60))));
    return fallback;
  }
  return value.get<std::string>();
}

}  // namespace dspark
