#include "formats/tensor_stream.h"

#include <fmt/format.h>

#include <utility>

#include "formats/error_text.h"

namespace dspark {

Status TensorStream::declare(std::string_view name, DType dtype, const std::vector<int64_t>& shape) {
  const std::string place = "tensor " + in_quotes(name);
  const DTypeInfo* info = dtype_info(dtype);
  if (info == nullptr) {
    return invalid_argument(fmt::format("{}: unknown type {}", place, static_cast<uint32_t>(dtype)));
  }
  int64_t elements = 1;
  int64_t n_bytes = 0;
  bool bad = false;
  for (const int64_t dim : shape) bad = bad || dim < 0 || __builtin_mul_overflow(elements, dim, &elements);
  bad = bad || __builtin_mul_overflow(elements / info->block_elements, info->block_bytes, &n_bytes);
  if (bad) return invalid_argument(place + ": a dimension is negative or the size overflows 63 bits");
  if ((shape.empty() ? 1 : shape.back()) % info->block_elements != 0) {
    return invalid_argument(fmt::format("{}: rows of {} elements are not whole {} blocks of {}", place,
                                        shape.empty() ? 1 : shape.back(), info->name, info->block_elements));
  }
  if (!names_.emplace(name).second) return invalid_argument(place + " is declared twice");
  tensors_.push_back({std::string(name), dtype, shape, static_cast<uint64_t>(n_bytes)});
  return {};
}

size_t TensorStream::next_incomplete() const {
  size_t index = current_;
  uint64_t filled = filled_;
  while (index < tensors_.size() && filled == tensors_[index].n_bytes) {
    ++index;
    filled = 0;
  }
  return index;
}

Status TensorStream::append(AtomicFile& file, std::string_view name, std::span<const uint8_t> bytes,
                            uint64_t alignment) {
  if (bytes.empty()) return {};
  if (const size_t next = next_incomplete(); next != current_) {
    current_ = next;
    filled_ = 0;
  }
  if (current_ == tensors_.size() || tensors_[current_].name != name) {
    return invalid_argument(file.path() + ": bytes of tensor " + in_quotes(name) + ", expected " +
                            (current_ == tensors_.size() ? "none, all tensors are complete"
                                                         : "those of " + in_quotes(tensors_[current_].name)));
  }
  const uint64_t missing = tensors_[current_].n_bytes - filled_;
  if (bytes.size() > missing) {
    return invalid_argument(fmt::format("{}: {} bytes for tensor {}, which lacks {}", file.path(),
                                        bytes.size(), in_quotes(name), missing));
  }
  DSPARK_RETURN_IF_ERROR(file.write(bytes));
  filled_ += bytes.size();
  return filled_ == tensors_[current_].n_bytes ? file.pad_to(alignment) : Status();
}

Status TensorStream::check_complete() const {
  const size_t index = next_incomplete();
  if (index == tensors_.size()) return {};
  return invalid_argument(fmt::format("tensor {} has {} of its {} bytes", in_quotes(tensors_[index].name),
                                      index == current_ ? filled_ : 0, tensors_[index].n_bytes));
}

}  // namespace dspark
