#include "formats/gguf_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <unordered_set>
#include <utility>

#include "formats/error_text.h"

namespace dspark {
namespace {

constexpr uint64_t kInt64Max = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());

struct TypeFacts {
  const char* name;
  size_t bytes;  // 0: variable
};
constexpr TypeFacts kTypes[] = {{"u8", 1},  {"i8", 1},  {"u16", 2},  {"i16", 2},    {"u32", 4},
                                {"i32", 4}, {"f32", 4}, {"bool", 1}, {"string", 0}, {"array", 0},
                                {"u64", 8}, {"i64", 8}, {"f64", 8}};

template <typename T>
T load(const uint8_t* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));  // files are little endian, and so is every machine dspark runs on
  return value;
}

/// A position in the bytes; every read is checked against what is left.
class Cursor {
 public:
  explicit Cursor(std::span<const uint8_t> bytes) : bytes_(bytes) {}

  size_t pos() const { return pos_; }
  size_t left() const { return bytes_.size() - pos_; }
  const uint8_t* at() const { return bytes_.data() + pos_; }

  template <typename T>
  bool read(T& out) {
    if (left() < sizeof(T)) return false;
    out = load<T>(at());
    pos_ += sizeof(T);
    return true;
  }
  bool skip(uint64_t n) {
    if (n > left()) return false;
    pos_ += n;
    return true;
  }
  bool read_string(std::string_view& out) {
    uint64_t length = 0;
    if (!read(length) || length > left()) return false;
    out = {reinterpret_cast<const char*>(at()), static_cast<size_t>(length)};
    pos_ += length;
    return true;
  }

 private:
  std::span<const uint8_t> bytes_;
  size_t pos_ = 0;
};

int64_t load_int(GgufType type, const uint8_t* at) {
  switch (type) {
    case GgufType::kUint8:
      return load<uint8_t>(at);
    case GgufType::kInt8:
      return load<int8_t>(at);
    case GgufType::kUint16:
      return load<uint16_t>(at);
    case GgufType::kInt16:
      return load<int16_t>(at);
    case GgufType::kUint32:
      return load<uint32_t>(at);
    case GgufType::kInt32:
      return load<int32_t>(at);
    default:
      return load<int64_t>(at);
  }
}

double load_float(GgufType type, const uint8_t* at) {
  return type == GgufType::kFloat32 ? static_cast<double>(load<float>(at)) : load<double>(at);
}

MetaValue fixed_size_value(GgufType type, const uint8_t* at) {
  switch (type) {
    case GgufType::kBool:
      return *at != 0;
    case GgufType::kFloat32:
    case GgufType::kFloat64:
      return load_float(type, at);
    case GgufType::kUint64:
      if (const auto value = load<uint64_t>(at); value > kInt64Max) return value;
      [[fallthrough]];
    default:
      return load_int(type, at);
  }
}

MetaValue fixed_size_array(GgufType type, const uint8_t* at, size_t count) {
  const size_t step = gguf_type_bytes(static_cast<uint32_t>(type));
  switch (type) {
    case GgufType::kBool: {
      std::vector<bool> values(count);
      for (size_t i = 0; i < count; ++i) values[i] = at[i] != 0;
      return values;
    }
    case GgufType::kFloat32:
    case GgufType::kFloat64: {
      std::vector<double> values(count);
      for (size_t i = 0; i < count; ++i) values[i] = load_float(type, at + i * step);
      return values;
    }
    case GgufType::kUint64: {
      std::vector<uint64_t> values(count);
      if (count > 0) std::memcpy(values.data(), at, count * step);
      if (std::any_of(values.begin(), values.end(), [](uint64_t v) { return v > kInt64Max; })) return values;
      return std::vector<int64_t>(values.begin(), values.end());
    }
    default: {
      std::vector<int64_t> values(count);
      for (size_t i = 0; i < count; ++i) values[i] = load_int(type, at + i * step);
      return values;
    }
  }
}

/// Parses one file; each method leaves with the first error.
class GgufParser {
 public:
  GgufParser(std::span<const uint8_t> bytes, const std::string& where)
      : bytes_(bytes), where_(where), in_(bytes) {}

  Result<GgufContents> parse() {
    DSPARK_RETURN_IF_ERROR(read_header());
    for (uint64_t i = 0; i < n_keys_; ++i) DSPARK_RETURN_IF_ERROR(read_key_value(i));
    DSPARK_RETURN_IF_ERROR(read_alignment());
    for (uint64_t i = 0; i < n_tensors_; ++i) DSPARK_RETURN_IF_ERROR(read_tensor_info(i));
    DSPARK_RETURN_IF_ERROR(place_tensors());
    return std::move(out_);
  }

 private:
  Status corrupt(const std::string& what) const { return corrupt_data(where_ + ": " + what); }
  Status ends_inside(const std::string& what) const {
    return corrupt(fmt::format("the file ends inside {} (at byte {} of {})", what, in_.pos(), bytes_.size()));
  }

  Status read_header() {
    if (bytes_.empty()) return corrupt("the file is empty, expected a GGUF header");
    std::string_view magic(reinterpret_cast<const char*>(bytes_.data()), std::min<size_t>(4, bytes_.size()));
    if (magic == "FUGG") return unsupported(where_ + ": big-endian GGUF; only little-endian files are read");
    if (magic != "GGUF") return corrupt("the file starts with " + in_quotes(magic) + ", expected 'GGUF'");
    in_.skip(4);
    if (!in_.read(out_.version)) return ends_inside("the version");
    const uint32_t v = out_.version;
    if (v == 0x02000000 || v == 0x03000000) {
      return unsupported(where_ + ": big-endian GGUF; only little-endian files are read");
    }
    if (v != 2 && v != 3) return unsupported(fmt::format("{}: GGUF version {}, expected 2 or 3", where_, v));
    if (!in_.read(n_tensors_)) return ends_inside("tensor_count");
    if (!in_.read(n_keys_)) return ends_inside("metadata_kv_count");
    // The smallest key-value pair and tensor entry bound what the counts can honestly be.
    constexpr uint64_t kMinPair = 8 + 4 + 1;
    constexpr uint64_t kMinTensor = 8 + 4 + 4 + 8;
    if (n_keys_ > in_.left() / kMinPair) {
      return corrupt(fmt::format("metadata_kv_count is {}, more than the file's {} bytes can hold", n_keys_,
                                 bytes_.size()));
    }
    if (n_tensors_ > in_.left() / kMinTensor) {
      return corrupt(fmt::format("tensor_count is {}, more than the file's {} bytes can hold", n_tensors_,
                                 bytes_.size()));
    }
    return {};
  }

  Status read_key_value(uint64_t index) {
    RawMeta raw;
    if (!in_.read_string(raw.key)) return ends_inside(fmt::format("metadata key {}", index));
    if (raw.key.empty()) return corrupt(fmt::format("metadata key {} is empty", index));
    if (!in_.read(raw.type)) return ends_inside("the type of metadata key " + in_quotes(raw.key));
    const uint8_t* begin = in_.at();
    MetaValue value;
    if (raw.type == static_cast<uint32_t>(GgufType::kString)) {
      std::string_view text;
      if (!in_.read_string(text)) return ends_inside("metadata key " + in_quotes(raw.key));
      value = std::string(text);
    } else if (raw.type == static_cast<uint32_t>(GgufType::kArray)) {
      DSPARK_RETURN_IF_ERROR(read_array(raw.key, value));
    } else {
      const size_t size = gguf_type_bytes(raw.type);
      if (size == 0) {
        return unsupported(fmt::format("{}: metadata key {} has value type {}, expected 0 to 12", where_,
                                       in_quotes(raw.key), raw.type));
      }
      if (!in_.skip(size)) return ends_inside("metadata key " + in_quotes(raw.key));
      value = fixed_size_value(static_cast<GgufType>(raw.type), begin);
    }
    raw.value = {begin, static_cast<size_t>(in_.at() - begin)};
    if (!out_.metadata.emplace(std::string(raw.key), std::move(value)).second) {
      return corrupt("metadata key " + in_quotes(raw.key) + " appears twice");
    }
    out_.raw.push_back(raw);
    return {};
  }

  Status read_array(std::string_view key, MetaValue& value) {
    uint32_t type = 0;
    uint64_t count = 0;
    if (!in_.read(type) || !in_.read(count)) return ends_inside("metadata key " + in_quotes(key));
    if (type == static_cast<uint32_t>(GgufType::kArray)) {
      return unsupported(where_ + ": metadata key " + in_quotes(key) + " is an array of arrays");
    }
    if (type == static_cast<uint32_t>(GgufType::kString)) return read_string_array(key, count, value);
    const size_t size = gguf_type_bytes(type);
    if (size == 0) {
      return unsupported(fmt::format("{}: metadata key {} has array element type {}, expected 0 to 12",
                                     where_, in_quotes(key), type));
    }
    if (count > in_.left() / size) return too_long(key, count);
    value = fixed_size_array(static_cast<GgufType>(type), in_.at(), count);
    in_.skip(count * size);
    return {};
  }

  Status read_string_array(std::string_view key, uint64_t count, MetaValue& value) {
    if (count > in_.left() / sizeof(uint64_t)) return too_long(key, count);
    std::vector<std::string> strings;
    strings.reserve(count);
    std::string_view text;
    for (uint64_t i = 0; i < count; ++i) {
      if (!in_.read_string(text))
        return ends_inside(fmt::format("element {} of metadata key {}", i, in_quotes(key)));
      strings.emplace_back(text);
    }
    value = std::move(strings);
    return {};
  }

  Status too_long(std::string_view key, uint64_t count) const {
    return corrupt(
        fmt::format("metadata key {} claims {} array elements, more than the {} bytes left can hold",
                    in_quotes(key), count, in_.left()));
  }

  Status read_alignment() {
    for (const RawMeta& raw : out_.raw) {
      if (raw.key != "general.alignment") continue;
      if (raw.type != static_cast<uint32_t>(GgufType::kUint32)) {
        return corrupt(fmt::format("general.alignment has type {}, expected u32", gguf_type_name(raw.type)));
      }
      out_.alignment = load<uint32_t>(raw.value.data());
    }
    if (out_.alignment == 0 || (out_.alignment & (out_.alignment - 1)) != 0) {
      return corrupt(fmt::format("general.alignment is {}, expected a power of two", out_.alignment));
    }
    return {};
  }

  Status read_tensor_info(uint64_t index) {
    std::string_view name;
    if (!in_.read_string(name)) return ends_inside(fmt::format("the name of tensor {}", index));
    if (name.empty() || name.size() > kGgufMaxNameBytes) {
      return corrupt(fmt::format("tensor {} {} has a name of {} bytes, expected 1 to {}", index,
                                 in_quotes(name), name.size(), kGgufMaxNameBytes));
    }
    TensorView tensor;
    tensor.name = name;
    if (!names_.insert(name).second) return corrupt("tensor " + in_quotes(name) + " appears twice");
    uint32_t n_dims = 0;
    if (!in_.read(n_dims)) return ends_inside("tensor " + in_quotes(name));
    if (n_dims > kGgufMaxDims) {
      return corrupt(fmt::format("tensor {} has {} dimensions, expected at most {}", in_quotes(name), n_dims,
                                 kGgufMaxDims));
    }
    tensor.shape.resize(n_dims);
    for (uint32_t i = 0; i < n_dims; ++i) {
      uint64_t dim = 0;
      if (!in_.read(dim)) return ends_inside("tensor " + in_quotes(name));
      if (dim > kInt64Max) {
        return corrupt(fmt::format("dimension {} of tensor {} is {}, above 2^63-1", i, in_quotes(name), dim));
      }
      tensor.shape[n_dims - 1 - i] = static_cast<int64_t>(dim);
    }
    uint32_t type = 0;
    uint64_t offset = 0;
    if (!in_.read(type) || !in_.read(offset)) return ends_inside("tensor " + in_quotes(name));
    const auto dtype = dtype_from_ggml_id(type);
    if (!dtype) {
      return unsupported(
          fmt::format("{}: tensor {} has type {}, which is unknown or was removed from the format", where_,
                      in_quotes(name), type));
    }
    tensor.dtype = *dtype;
    DSPARK_RETURN_IF_ERROR(size_tensor(tensor));
    if (offset % out_.alignment != 0) {
      return corrupt(fmt::format("tensor {} starts at offset {}, which is not a multiple of the alignment {}",
                                 in_quotes(name), offset, out_.alignment));
    }
    out_.tensors.push_back(std::move(tensor));
    offsets_.push_back(offset);
    return {};
  }

  /// Fills n_bytes; refuses rows that are not whole blocks and sizes that do not fit 63 bits.
  Status size_tensor(TensorView& tensor) const {
    const DTypeInfo& info = *dtype_info(tensor.dtype);
    if (tensor.row_elements() % info.block_elements != 0) {
      return corrupt(fmt::format("tensor {}: rows of {} elements are not whole {} blocks of {}",
                                 in_quotes(tensor.name), tensor.row_elements(), info.name,
                                 info.block_elements));
    }
    int64_t elements = 1;
    int64_t n_bytes = 0;
    bool too_large = false;
    for (const int64_t dim : tensor.shape) too_large |= __builtin_mul_overflow(elements, dim, &elements);
    too_large =
        too_large || __builtin_mul_overflow(elements / info.block_elements, info.block_bytes, &n_bytes);
    if (too_large) return corrupt("the dimensions of tensor " + in_quotes(tensor.name) + " overflow 63 bits");
    tensor.n_bytes = static_cast<size_t>(n_bytes);
    return {};
  }

  /// Turns offsets into pointers; refuses data outside the file and tensors that share bytes.
  Status place_tensors() {
    if (out_.tensors.empty()) return {};
    const uint64_t padding = (out_.alignment - in_.pos() % out_.alignment) % out_.alignment;
    const uint64_t data_begin = in_.pos() + padding;
    const uint64_t available = data_begin > bytes_.size() ? 0 : bytes_.size() - data_begin;
    for (size_t i = 0; i < out_.tensors.size(); ++i) {
      TensorView& tensor = out_.tensors[i];
      if (offsets_[i] > available || tensor.n_bytes > available - offsets_[i]) {
        return corrupt(
            fmt::format("tensor {} needs {} bytes at offset {}, but only {} bytes of data follow the header",
                        in_quotes(tensor.name), tensor.n_bytes, offsets_[i], available));
      }
      // A tensor without elements may sit behind the end of the padding.
      tensor.data = bytes_.data() + std::min<uint64_t>(data_begin, bytes_.size()) + offsets_[i];
    }
    return check_overlap();
  }

  Status check_overlap() const {
    std::vector<const TensorView*> order;
    order.reserve(out_.tensors.size());
    for (const TensorView& tensor : out_.tensors) {
      if (tensor.n_bytes > 0) order.push_back(&tensor);
    }
    std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) { return a->data < b->data; });
    for (size_t i = 1; i < order.size(); ++i) {
      if (order[i]->data < order[i - 1]->data + order[i - 1]->n_bytes) {
        return corrupt("the data of tensors " + in_quotes(order[i - 1]->name) + " and " +
                       in_quotes(order[i]->name) + " overlap");
      }
    }
    return {};
  }

  std::span<const uint8_t> bytes_;
  const std::string& where_;
  Cursor in_;
  uint64_t n_tensors_ = 0;
  uint64_t n_keys_ = 0;
  std::vector<uint64_t> offsets_;
  std::unordered_set<std::string_view> names_;
  GgufContents out_;
};

}  // namespace

const char* gguf_type_name(uint32_t type) {
  return type < std::size(kTypes) ? kTypes[type].name : "?";
}

size_t gguf_type_bytes(uint32_t type) {
  return type < std::size(kTypes) ? kTypes[type].bytes : 0;
}

Result<GgufContents> parse_gguf(std::span<const uint8_t> bytes, const std::string& where) {
  return GgufParser(bytes, where).parse();
}

}  // namespace dspark
