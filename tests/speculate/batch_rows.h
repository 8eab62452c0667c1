#pragma once
// Confidences of a batch, given as a list per sequence, in the form the schedulers read.

#include <cstdint>
#include <span>
#include <vector>

#include "speculate/batch_scheduler.h"
#include "speculate/confidence.h"
#include "speculate/scheduler.h"

namespace dspark::test {

class BatchRows {
 public:
  explicit BatchRows(const std::vector<std::vector<double>>& confidence) {
    for (const auto& row : confidence) {
      stride_ = row.size() > stride_ ? row.size() : stride_;
      n_drafts_.push_back(static_cast<int32_t>(row.size()));
    }
    values_.assign(confidence.size() * stride_, 0.0);
    for (size_t r = 0; r < confidence.size(); ++r) {
      survival(std::span<const double>(confidence[r]),
               std::span(values_).subspan(r * stride_, confidence[r].size()));
    }
  }
  size_t size() const { return n_drafts_.size(); }
  SurvivalRows rows() const { return {values_, n_drafts_, static_cast<int32_t>(stride_)}; }
  /// Sum of the survivals of these prefixes.
  double expected(const std::vector<int32_t>& lengths) const {
    double sum = 0.0;
    for (size_t r = 0; r < lengths.size(); ++r) {
      for (size_t j = 0; j < static_cast<size_t>(lengths[r]); ++j) sum += values_[r * stride_ + j];
    }
    return sum;
  }

 private:
  size_t stride_ = 0;
  std::vector<int32_t> n_drafts_;
  std::vector<double> values_;
};

}  // namespace dspark::test
