#include "formats/safetensors_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "formats/error_text.h"
#include "formats/json_reader.h"

namespace dspark {
namespace {

using nlohmann::json;

constexpr std::pair<const char*, DType> kDTypeNames[] = {
    {"BOOL", DType::kBool},       {"U8", DType::kU8},           {"I8", DType::kI8},
    {"U16", DType::kU16},         {"I16", DType::kI16},         {"U32", DType::kU32},
    {"I32", DType::kI32},         {"U64", DType::kU64},         {"I64", DType::kI64},
    {"F16", DType::kF16},         {"BF16", DType::kBF16},       {"F32", DType::kF32},
    {"F64", DType::kF64},         {"F8_E4M3", DType::kF8_E4M3}, {"F8_E5M2", DType::kF8_E5M2},
    {"F8_E8M0", DType::kF8_E8M0},
};

constexpr const char* kMetadataKey = "__metadata__";

/// One tensor entry while its place in the file is being checked.
struct Entry {
  TensorView tensor;
  uint64_t begin = 0;
  uint64_t end = 0;
};

/// A JSON number that is an integer from 0 to 2^63-1.
bool read_count(const json& value, uint64_t& out) {
  if (!value.is_number_integer()) return false;
  if (value.is_number_unsigned()) {
    out = value.get<uint64_t>();
  } else {
    const auto number = value.get<int64_t>();
    if (number < 0) return false;
    out = static_cast<uint64_t>(number);
  }
  return out <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
}

Status read_shape(const json& fields, TensorView& tensor, const std::string& place) {
  const auto shape = fields.find("shape");
  if (shape == fields.end() || !shape->is_array()) return corrupt_data(place + " has no array 'shape'");
  for (const json& dim : *shape) {
    uint64_t value = 0;
    if (!read_count(dim, value)) {
      return corrupt_data(place + ": 'shape' holds something other than integers from 0 to 2^63-1");
    }
    tensor.shape.push_back(static_cast<int64_t>(value));
  }
  return {};
}

Status read_offsets(const json& fields, Entry& entry, const std::string& place) {
  const auto offsets = fields.find("data_offsets");
  if (offsets == fields.end() || !offsets->is_array() || offsets->size() != 2) {
    return corrupt_data(place + " has no 'data_offsets' [begin, end]");
  }
  if (!read_count((*offsets)[0], entry.begin) || !read_count((*offsets)[1], entry.end)) {
    return corrupt_data(place + ": 'data_offsets' holds something other than integers from 0 to 2^63-1");
  }
  if (entry.begin > entry.end) {
    return corrupt_data(
        fmt::format("{}: 'data_offsets' begin at {}, behind their end {}", place, entry.begin, entry.end));
  }
  return {};
}

/// Bytes the shape needs must be the bytes the offsets give.
Status check_size(const Entry& entry, const std::string& place) {
  uint64_t n_bytes = static_cast<uint64_t>(dtype_info(entry.tensor.dtype)->block_bytes);
  bool too_large = false;
  for (const int64_t dim : entry.tensor.shape) {
    too_large |= __builtin_mul_overflow(n_bytes, static_cast<uint64_t>(dim), &n_bytes);
  }
  if (too_large) return corrupt_data(place + ": the size of 'shape' overflows 64 bits");
  if (n_bytes != entry.end - entry.begin) {
    return corrupt_data(fmt::format("{}: 'shape' needs {} bytes, 'data_offsets' give {}", place, n_bytes,
                                    entry.end - entry.begin));
  }
  return {};
}

Result<Entry> read_entry(const std::string& name, const json& fields, const std::string& where) {
  const std::string place = where + ": tensor " + in_quotes(name);
  if (!fields.is_object()) return corrupt_data(place + " is not described by an object");
  Entry entry;
  entry.tensor.name = name;
  const auto dtype = fields.find("dtype");
  if (dtype == fields.end() || !dtype->is_string()) return corrupt_data(place + " has no string 'dtype'");
  const auto known = dtype_from_safetensors_name(dtype->get_ref<const std::string&>());
  if (!known)
    return unsupported(place + ": unknown dtype " + in_quotes(dtype->get_ref<const std::string&>()));
  entry.tensor.dtype = *known;
  DSPARK_RETURN_IF_ERROR(read_shape(fields, entry.tensor, place));
  DSPARK_RETURN_IF_ERROR(read_offsets(fields, entry, place));
  DSPARK_RETURN_IF_ERROR(check_size(entry, place));
  entry.tensor.n_bytes = entry.end - entry.begin;
  return entry;
}

Status read_metadata(const json& fields, SafetensorsContents& out, const std::string& where) {
  if (!fields.is_object()) return corrupt_data(where + ": '__metadata__' is not an object");
  for (const auto& [key, value] : fields.items()) {
    if (!value.is_string()) {
      return corrupt_data(where + ": the value of " + in_quotes(key) + " in '__metadata__' is not a string");
    }
    out.metadata.emplace(key, value.get_ref<const std::string&>());
  }
  return {};
}

/// The header text; checks the length that stands before it.
Result<std::string_view> header_text(std::span<const uint8_t> bytes, const std::string& where) {
  if (bytes.size() < sizeof(uint64_t)) {
    return corrupt_data(fmt::format("{}: {} bytes, too short for the 8-byte header length of safetensors",
                                    where, bytes.size()));
  }
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof(length));
  if (length == 0 || length > bytes.size() - sizeof(length)) {
    return corrupt_data(fmt::format("{}: the header length is {}, expected 1 to {} (the rest of the file)",
                                    where, length, bytes.size() - sizeof(length)));
  }
  return std::string_view(reinterpret_cast<const char*>(bytes.data()) + sizeof(length), length);
}

/// Sorts by position and refuses anything but an exact cover of the data section; then sets the pointers.
Status place_entries(std::vector<Entry>& entries, std::span<const uint8_t> data, const std::string& where) {
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  uint64_t expected = 0;
  for (Entry& entry : entries) {
    if (entry.end > data.size()) {
      return corrupt_data(fmt::format("{}: tensor {} ends at byte {} of a data section of {}", where,
                                      in_quotes(entry.tensor.name), entry.end, data.size()));
    }
    if (entry.begin != expected) {
      return corrupt_data(fmt::format("{}: tensor {} starts at byte {} of the data section, expected {} ({})",
                                      where, in_quotes(entry.tensor.name), entry.begin, expected,
                                      entry.begin < expected ? "tensors overlap" : "there is a hole"));
    }
    expected = entry.end;
    entry.tensor.data = data.data() + entry.begin;
  }
  if (expected != data.size()) {
    return corrupt_data(
        fmt::format("{}: the tensors cover {} bytes of a data section of {}", where, expected, data.size()));
  }
  return {};
}

}  // namespace

const char* safetensors_dtype_name(DType dtype) {
  for (const auto& [name, type] : kDTypeNames) {
    if (type == dtype) return name;
  }
  return nullptr;
}

std::optional<DType> dtype_from_safetensors_name(std::string_view name) {
  for (const auto& [known, type] : kDTypeNames) {
    if (name == known) return type;
  }
  return std::nullopt;
}

Result<SafetensorsContents> parse_safetensors(std::span<const uint8_t> bytes, const std::string& where) {
  DSPARK_ASSIGN_OR_RETURN(const std::string_view text, header_text(bytes, where));
  DSPARK_ASSIGN_OR_RETURN(const json header, parse_json(text, where + ": header", DuplicateKeys::kRefuse));
  if (!header.is_object()) return corrupt_data(where + ": the header is not a JSON object");
  SafetensorsContents out;
  std::vector<Entry> entries;
  for (const auto& [name, fields] : header.items()) {
    if (name == kMetadataKey) {
      DSPARK_RETURN_IF_ERROR(read_metadata(fields, out, where));
      continue;
    }
    DSPARK_ASSIGN_OR_RETURN(Entry entry, read_entry(name, fields, where));
    entries.push_back(std::move(entry));
  }
  DSPARK_RETURN_IF_ERROR(place_entries(entries, bytes.subspan(sizeof(uint64_t) + text.size()), where));
  for (Entry& entry : entries) out.tensors.push_back(std::move(entry.tensor));
  return out;
}

}  // namespace dspark
