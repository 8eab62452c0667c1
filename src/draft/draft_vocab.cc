// Reduced vocabularies: which target ids the rows of the draft head stand for.

#include <fmt/format.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "draft/draft_readers.h"
#include "formats/error_text.h"

namespace dspark {
namespace {

int64_t integer_at(const TensorView& tensor, int64_t i) {
  const auto at = static_cast<size_t>(i);
  if (tensor.dtype == DType::kI32) {
    int32_t value = 0;
    std::memcpy(&value, tensor.data + at * sizeof(value), sizeof(value));
    return value;
  }
  int64_t value = 0;
  std::memcpy(&value, tensor.data + at * sizeof(value), sizeof(value));
  return value;
}

/// One reading of d2t: target ids, or why it cannot be meant.
struct Reading {
  std::vector<int32_t> ids;
  std::string problem;
};

Reading read_as(const TensorView& d2t, bool offsets, int32_t vocab_size) {
  Reading reading;
  for (int64_t i = 0; i < d2t.shape[0]; ++i) {
    const int64_t value = integer_at(d2t, i);
    const bool sane = value >= -ConfigLimits::kVocab && value <= ConfigLimits::kVocab;
    const int64_t id = sane && offsets ? value + i : value;
    if (!sane || id < 0 || id >= vocab_size) {
      reading.problem = fmt::format("row {} gives target id {}, outside the vocabulary of {}", i,
                                    sane ? id : value, vocab_size);
      break;
    }
    if (!reading.ids.empty() && id <= reading.ids.back()) {
      reading.problem =
          fmt::format("row {} gives target id {} after {}: not ascending", i, id, reading.ids.back());
      break;
    }
    reading.ids.push_back(static_cast<int32_t>(id));
  }
  return reading;
}

/// t2d marks exactly the ids of this reading.
void compare_with_t2d(const TensorView& t2d, Reading& reading) {
  if (!reading.problem.empty()) return;
  size_t next = 0;
  for (int64_t id = 0; id < t2d.shape[0]; ++id) {
    const bool kept = t2d.data[id] != 0;
    const bool listed = next < reading.ids.size() && reading.ids[next] == id;
    if (kept != listed) {
      reading.problem =
          fmt::format("target id {} is {} in d2t, but t2d says {}", id, listed ? "there" : "missing", kept);
      return;
    }
    next += listed ? 1 : 0;
  }
}

Status check_shapes(const Checkpoint& file, const TensorView& d2t, const TensorView* t2d,
                    const DraftConfig& config) {
  if (d2t.dtype != DType::kI64 && d2t.dtype != DType::kI32) {
    return corrupt_data(fmt::format("{}: tensor {} has type {}, expected I64", file.path(),
                                    in_quotes(d2t.name), dtype_name(d2t.dtype)));
  }
  if (d2t.shape != std::vector<int64_t>{config.draft_vocab_size}) {
    return corrupt_data(fmt::format("{}: tensor {} has shape [{}], expected [{}] (draft_vocab_size)",
                                    file.path(), in_quotes(d2t.name), fmt::join(d2t.shape, ", "),
                                    config.draft_vocab_size));
  }
  if (t2d == nullptr) return ok_status();
  const bool bytes = t2d->dtype == DType::kBool || t2d->dtype == DType::kU8 || t2d->dtype == DType::kI8;
  if (!bytes || t2d->shape != std::vector<int64_t>{config.vocab_size}) {
    return corrupt_data(fmt::format("{}: tensor 't2d' has type {} and shape [{}], expected BOOL [{}]",
                                    file.path(), dtype_name(t2d->dtype), fmt::join(t2d->shape, ", "),
                                    config.vocab_size));
  }
  return ok_status();
}

}  // namespace

Status read_d2t(const Checkpoint& file, const TensorView& d2t, const TensorView* t2d, bool offsets_expected,
                DraftConfig& config) {
  DSPARK_RETURN_IF_ERROR(check_shapes(file, d2t, t2d, config));
  Reading expected = read_as(d2t, offsets_expected, config.vocab_size);
  Reading other = read_as(d2t, !offsets_expected, config.vocab_size);
  if (t2d != nullptr) {
    compare_with_t2d(*t2d, expected);
    compare_with_t2d(*t2d, other);
  }
  if (!expected.problem.empty() && !other.problem.empty()) {
    return corrupt_data(fmt::format("{}: tensor {}: {}; read as {} instead: {}", file.path(),
                                    in_quotes(d2t.name), expected.problem,
                                    offsets_expected ? "target ids" : "offsets", other.problem));
  }
  const bool both = expected.problem.empty() && other.problem.empty() && expected.ids != other.ids;
  // Target ids are what GGUF defines, and ascending ids are nearly always valid offsets too if they are
  // small. The reverse is rare: ascending offsets keep no two neighbouring ids.
  if (both && offsets_expected) {
    return corrupt_data(fmt::format(
        "{}: tensor {} may hold offsets or target ids, both make sense; a tensor 't2d' would decide",
        file.path(), in_quotes(d2t.name)));
  }
  config.d2t = expected.problem.empty() ? std::move(expected.ids) : std::move(other.ids);
  return ok_status();
}

Status read_folder_vocab(const Checkpoint& file, DraftDescription& draft) {
  const TensorView* d2t = file.find("d2t");
  const TensorView* t2d = file.find("t2d");
  const DraftConfig& config = draft.config;
  if (config.draft_vocab_size > config.vocab_size) {
    return invalid_argument(fmt::format("{}: 'draft_vocab_size' is {}, above the vocabulary of {}",
                                        config_place(file), config.draft_vocab_size, config.vocab_size));
  }
  if (!config.reduced_vocab()) {
    if (d2t == nullptr && t2d == nullptr) return ok_status();
    return corrupt_data(
        fmt::format("{}: tensor '{}' maps a reduced vocabulary, but config.json has no "
                    "'draft_vocab_size' below {}",
                    file.path(), d2t != nullptr ? "d2t" : "t2d", config.vocab_size));
  }
  if (d2t == nullptr) {
    return corrupt_data(fmt::format("{}: tensor 'd2t' is missing: 'draft_vocab_size' is {} of {}",
                                    file.path(), config.draft_vocab_size, config.vocab_size));
  }
  draft.consumed.push_back("d2t");
  if (t2d != nullptr) draft.consumed.push_back("t2d");
  return read_d2t(file, *d2t, t2d, true, draft.config);
}

}  // namespace dspark
