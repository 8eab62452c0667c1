#include "formats/quantize_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>

#include "formats/gguf_writer.h"
#include "formats/hf_to_gguf.h"
#include "tensor/quantize.h"

namespace dspark {
namespace {

constexpr int64_t kChunkElements = 1 << 20;   // floats converted between two writes, if rows are shorter
constexpr uint32_t kQuantizationVersion = 2;  // general.quantization_version of today's block layouts
constexpr float kLargestHalf = 65504.0f;

constexpr DType kWritable[] = {DType::kF32,  DType::kF16,  DType::kBF16, DType::kQ8_0,
                               DType::kQ6_K, DType::kQ5_K, DType::kQ5_1, DType::kQ5_0,
                               DType::kQ4_K, DType::kQ4_1, DType::kQ4_0};

bool is_integer(DType dtype) {
  return dtype == DType::kI8 || dtype == DType::kI16 || dtype == DType::kI32 || dtype == DType::kI64;
}

bool is_block_type(DType dtype) {
  return dtype_info(dtype)->block_elements > 1;
}

bool has_few_bits(DType dtype) {
  return dtype == DType::kQ4_0 || dtype == DType::kQ4_1 || dtype == DType::kQ4_K || dtype == DType::kQ5_0 ||
         dtype == DType::kQ5_1 || dtype == DType::kQ5_K;
}

/// general.file_type: the number by which tools show "the" type of a file.
uint32_t file_type_id(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return 0;
    case DType::kF16:
      return 1;
    case DType::kQ4_0:
      return 2;
    case DType::kQ4_1:
      return 3;
    case DType::kQ8_0:
      return 7;
    case DType::kQ5_0:
      return 8;
    case DType::kQ5_1:
      return 9;
    case DType::kQ4_K:
      return 14;
    case DType::kQ5_K:
      return 16;
    case DType::kQ6_K:
      return 18;
    default:
      return 32;  // BF16
  }
}

/// `wanted`, or what stands in for it when rows of n elements are not whole blocks.
DType fitting_type(DType wanted, int64_t n, DType stored) {
  DType type = wanted;
  if (n % dtype_info(type)->block_elements != 0) {
    if (type == DType::kQ4_K) type = DType::kQ5_0;
    if (type == DType::kQ5_K) type = DType::kQ5_1;
    if (type == DType::kQ6_K) type = DType::kQ8_0;
  }
  if (n % dtype_info(type)->block_elements == 0) return type;
  return stored == DType::kBF16 ? DType::kBF16 : DType::kF16;
}

bool matches_any(const std::vector<std::string>& patterns, const std::string& name) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const std::string& pattern) { return glob_matches(pattern, name); });
}

DType wanted_type(const GgufTensorPlan& tensor, const QuantizeOptions& options) {
  const DType stored = tensor.stored_dtype();
  if (is_integer(stored)) return stored;
  if (matches_any(options.keep, tensor.name)) return stored == DType::kF64 ? DType::kF32 : stored;
  const bool decisive =
      tensor.name.find(".ffn_gate_inp.") != std::string::npos || tensor.name == "conf_proj.weight";
  if (tensor.shape.size() < 2 || decisive) return DType::kF32;
  const DType sensitive = has_few_bits(options.type) ? DType::kQ8_0 : options.type;
  if (tensor.name == "token_embd.weight") return options.embedding.value_or(sensitive);
  if (tensor.name == "output.weight") return options.output.value_or(sensitive);
  return options.type;
}

Status check_options(const QuantizeOptions& options, const std::vector<GgufTensorPlan>& plans) {
  for (const std::optional<DType>& type : {std::optional(options.type), options.embedding, options.output}) {
    if (type && !can_encode(*type)) {
      return invalid_argument(
          fmt::format("cannot write type {} (writable: {})", dtype_name(*type), writable_type_names()));
    }
  }
  for (const std::string& pattern : options.keep) {
    const bool hit = std::any_of(plans.begin(), plans.end(), [&](const GgufTensorPlan& plan) {
      return glob_matches(pattern, plan.name);
    });
    if (!hit) return invalid_argument(fmt::format("no tensor matches the pattern '{}'", pattern));
  }
  return ok_status();
}

Result<QuantizedTensor> decide(const GgufTensorPlan& plan, const QuantizeOptions& options,
                               const std::string& path) {
  QuantizedTensor decision;
  decision.name = plan.name;
  decision.shape = plan.shape;
  decision.from = plan.stored_dtype();
  decision.bytes_before = plan.stored_bytes();
  const DType wanted = wanted_type(plan, options);
  // A kept type fits by construction and need not be writable.
  decision.to = wanted == decision.from ? wanted : fitting_type(wanted, plan.row_elements(), decision.from);
  decision.fallback = decision.to != wanted;
  decision.bytes_after =
      static_cast<uint64_t>(plan.n_rows()) * dtype_row_bytes(decision.to, plan.row_elements());
  const bool verbatim = decision.to == decision.from && plan.is_verbatim();
  if (verbatim) return decision;
  if (!can_decode(decision.from)) {
    return unsupported(fmt::format("{}: tensor '{}' has type {}, which cannot be converted", path, plan.name,
                                   dtype_name(decision.from)));
  }
  if (is_block_type(decision.from) && !options.allow_requantize) {
    return invalid_argument(
        fmt::format("{}: tensor '{}' is already quantised ({}); converting it to {} adds a second error, "
                    "allow that with --allow-requantize",
                    path, plan.name, dtype_name(decision.from), dtype_name(decision.to)));
  }
  return decision;
}

/// Why a row cannot be stored as `to`; empty when it can.
const char* row_problem(const float* row, int64_t n, DType to) {
  float peak = 0.0f;
  bool finite = true;
  for (int64_t i = 0; i < n; ++i) {
    finite = finite && std::isfinite(row[i]);
    peak = std::max(peak, std::fabs(row[i]));
  }
  if (to == DType::kF32) return "";  // F32 repeats whatever was stored
  if (!finite) return "holds a number that is not finite";
  if (to != DType::kBF16 && peak > kLargestHalf)
    return "holds a number above 65504, the largest 16-bit scale; use BF16";
  return "";
}

/// Converts a tensor chunk by chunk, rows in parallel.
class TensorConverter {
 public:
  TensorConverter(const GgufTensorPlan& plan, const QuantizedTensor& decision, ThreadPool& pool)
      : plan_(plan), decision_(decision), pool_(pool) {}

  Status write(GgufWriter& writer, const std::string& path) {
    if (decision_.to == decision_.from && plan_.is_verbatim()) return copy(writer);
    const int64_t n = plan_.row_elements();
    if (n == 0) return ok_status();  // the other dimensions of an empty tensor may be any number
    const size_t row_bytes = dtype_row_bytes(decision_.to, n);
    const int64_t rows_per_chunk = std::max<int64_t>(1, kChunkElements / std::max<int64_t>(1, n));
    scratch_.assign(static_cast<size_t>(pool_.n_threads()), std::vector<float>(static_cast<size_t>(n)));
    for (int64_t first = 0; first < plan_.n_rows(); first += rows_per_chunk) {
      const int64_t count = std::min(rows_per_chunk, plan_.n_rows() - first);
      encoded_.resize(static_cast<size_t>(count) * row_bytes);
      const int64_t bad = convert_rows(first, count, row_bytes);
      if (bad >= 0) return explain(bad, path);
      DSPARK_RETURN_IF_ERROR(writer.append(plan_.name, encoded_));
    }
    return ok_status();
  }

 private:
  Status copy(GgufWriter& writer) const {
    for (const TensorView* source : plan_.sources) {
      DSPARK_RETURN_IF_ERROR(writer.append(plan_.name, {source->data, source->n_bytes}));
    }
    return ok_status();
  }

  /// returns: the first row with a problem, or -1.
  int64_t convert_rows(int64_t first, int64_t count, size_t row_bytes) {
    constexpr int64_t kNone = std::numeric_limits<int64_t>::max();
    std::atomic<int64_t> bad{kNone};
    pool_.parallel_for(count, [&](int64_t i, int thread) {
      float* row = scratch_[static_cast<size_t>(thread)].data();
      plan_.read_row(first + i, row);
      if (*row_problem(row, plan_.row_elements(), decision_.to) != '\0') {
        int64_t seen = bad.load();
        while (first + i < seen && !bad.compare_exchange_weak(seen, first + i)) {
        }
        return;
      }
      encode_row(decision_.to, row, encoded_.data() + static_cast<size_t>(i) * row_bytes,
                 plan_.row_elements());
    });
    return bad.load() == kNone ? -1 : bad.load();
  }

  Status explain(int64_t row_idx, const std::string& path) {
    float* row = scratch_.front().data();
    plan_.read_row(row_idx, row);
    return invalid_argument(fmt::format("{}: row {} of tensor '{}' {}", path, row_idx, plan_.name,
                                        row_problem(row, plan_.row_elements(), decision_.to)));
  }

  const GgufTensorPlan& plan_;
  const QuantizedTensor& decision_;
  ThreadPool& pool_;
  std::vector<std::vector<float>> scratch_;  // one row per thread
  std::vector<uint8_t> encoded_;
};

std::vector<GgufTensorPlan> plan_gguf_tensors(const Checkpoint& input) {
  std::vector<GgufTensorPlan> plans;
  for (const TensorView& tensor : input.tensors()) {
    GgufTensorPlan plan;
    plan.name = tensor.name;
    plan.shape = tensor.shape.empty() ? std::vector<int64_t>{1} : tensor.shape;
    plan.sources = {&tensor};
    plans.push_back(std::move(plan));
  }
  return plans;
}

}  // namespace

bool glob_matches(const std::string& pattern, const std::string& name) {
  // Two positions walk along; on a mismatch behind a '*' that star swallows one character more.
  size_t p = 0, n = 0, star = std::string::npos, swallowed = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      swallowed = n;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == name[n])) {
      ++p;
      ++n;
    } else if (star != std::string::npos) {
      p = star + 1;
      n = ++swallowed;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

std::string writable_type_names() {
  std::string names;
  for (DType dtype : kWritable) names += (names.empty() ? "" : ", ") + std::string(dtype_name(dtype));
  return names;
}

Result<QuantizeReport> quantize_model(const Checkpoint& input, const std::string& output,
                                      const QuantizeOptions& options, ThreadPool& pool,
                                      const QuantizeProgress& progress) {
  const bool from_gguf = input.format() == Checkpoint::Format::kGguf;
  QuantizeReport report;
  std::vector<GgufTensorPlan> plans;
  if (from_gguf) {
    plans = plan_gguf_tensors(input);
  } else {
    DSPARK_ASSIGN_OR_RETURN(plans, plan_hf_tensors(input, report.notes));
  }
  const auto set_metadata = [&](GgufWriter& writer) {
    if (!from_gguf) return set_hf_metadata(input, writer, report.notes);
    writer.copy_all(input);
    return ok_status();
  };
  DSPARK_ASSIGN_OR_RETURN(QuantizeReport done,
                          quantize_tensors(input, plans, set_metadata, output, options, pool, progress));
  done.notes = std::move(report.notes);
  return done;
}

Result<QuantizeReport> quantize_tensors(const Checkpoint& input, const std::vector<GgufTensorPlan>& plans,
                                        const std::function<Status(GgufWriter&)>& set_metadata,
                                        const std::string& output, const QuantizeOptions& options,
                                        ThreadPool& pool, const QuantizeProgress& progress) {
  DSPARK_RETURN_IF_ERROR(check_options(options, plans));
  QuantizeReport report;
  std::vector<QuantizedTensor> decisions;
  bool quantised = false;
  for (const GgufTensorPlan& plan : plans) {
    DSPARK_ASSIGN_OR_RETURN(QuantizedTensor decision, decide(plan, options, input.path()));
    quantised = quantised || is_block_type(decision.to);
    decisions.push_back(std::move(decision));
  }

  DSPARK_ASSIGN_OR_RETURN(GgufWriter writer, GgufWriter::create(output));
  DSPARK_RETURN_IF_ERROR(set_metadata(writer));
  writer.set_u32("general.file_type", file_type_id(options.type));
  if (quantised) writer.set_u32("general.quantization_version", kQuantizationVersion);
  for (const QuantizedTensor& decision : decisions) {
    DSPARK_RETURN_IF_ERROR(writer.declare(decision.name, decision.to, decision.shape));
    report.bytes_before += decision.bytes_before;
    report.bytes_after += decision.bytes_after;
  }
  DSPARK_RETURN_IF_ERROR(writer.write_header());
  for (size_t i = 0; i < plans.size(); ++i) {
    if (progress) progress(decisions[i], i, plans.size());
    report.n_elements += plans[i].n_rows() * plans[i].row_elements();
    DSPARK_RETURN_IF_ERROR(TensorConverter(plans[i], decisions[i], pool).write(writer, input.path()));
    for (const TensorView* source : plans[i].sources) input.drop_resident(*source);
  }
  DSPARK_RETURN_IF_ERROR(writer.finish());
  return report;
}

}  // namespace dspark
