#pragma once
// Row operations in double precision, written the way textbooks do. The judge of the kernels.

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/rows.h"

namespace dspark::reference {

/// weight may be empty (all ones).
std::vector<double> rms_norm(std::span<const float> x, std::span<const float> weight, double eps);
/// One head at one position.
std::vector<double> rope(std::span<const float> head, const RopeTable& table, int32_t position);
double gated_activation(double gate, double up, GateActivation act);
double softcap(double x, double cap);
std::vector<double> softmax(std::span<const float> x);

}  // namespace dspark::reference
