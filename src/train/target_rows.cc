#include "train/target_rows.h"

#include <cstring>

namespace dspark {

int64_t TargetRowList::row_of(int64_t sample, int32_t position) {
  const auto next = static_cast<int64_t>(position_.size());
  const auto [found, added] = row_of_.try_emplace({sample, position}, next);
  if (added) {
    sample_.push_back(sample);
    position_.push_back(position);
  }
  return found->second;
}

TargetRows TargetRowList::gather(const std::vector<const TargetCacheSample*>& samples, int64_t dim,
                                 const at::Device& device) {
  const auto n = static_cast<int64_t>(position_.size());
  at::Tensor hidden = at::empty({n, dim}, at::kBFloat16);
  for (int64_t i = 0; i < n; ++i) {
    const auto at = static_cast<size_t>(i);
    copy_rows(samples[static_cast<size_t>(sample_[at])]->target_last_hidden, position_[at], 1, hidden, i);
  }
  return {hidden.to(device), std::move(sample_), std::move(position_)};
}

void copy_rows(const std::vector<uint16_t>& source, int64_t first, int64_t count, at::Tensor& target,
               int64_t at_row) {
  const int64_t width = target.size(1);
  std::memcpy(static_cast<uint16_t*>(target.data_ptr()) + at_row * width, source.data() + first * width,
              static_cast<size_t>(count * width) * sizeof(uint16_t));
}

at::Tensor index_tensor(const std::vector<int64_t>& values, const at::Device& device) {
  return at::tensor(values, at::kLong).to(device);
}

}  // namespace dspark
