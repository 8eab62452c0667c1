#include "draft/random_weights.h"

#include <cmath>
#include <numbers>
#include <string>
#include <utility>
#include <vector>

#include "base/philox.h"
#include "tensor/quantize.h"

namespace dspark {
namespace {

/// The original file, kept because the configuration and the norms still point into it, and the noise.
struct NoisyFile {
  std::shared_ptr<const Checkpoint> original;
  std::vector<std::vector<uint8_t>> tensors;
};

/// Standard normal number i of a stream.
double normal_at(uint64_t seed, uint32_t stream, uint64_t i) {
  const double radius = std::sqrt(2.0 * noise_exponential(seed, i, 2 * stream));
  return radius * std::cos(2.0 * std::numbers::pi * uniform_of_word(noise_word(seed, i, 2 * stream + 1)));
}

struct Moments {
  double mean = 0.0;
  double spread = 0.0;
};

Moments moments_of(const TensorView& tensor, std::vector<float>& row) {
  double sum = 0.0, squares = 0.0;
  for (int64_t r = 0; r < tensor.n_rows(); ++r) {
    decode_row(tensor.dtype, tensor.data + static_cast<size_t>(r) * tensor.row_bytes(), row.data(),
               tensor.row_elements());
    for (float value : row) {
      sum += value;
      squares += double{value} * value;
    }
  }
  const auto n = static_cast<double>(tensor.n_elements());
  const double mean = sum / n;
  return {mean, std::sqrt(std::max(0.0, squares / n - mean * mean))};
}

}  // namespace

Status randomize_weights(DraftCheckpoint& draft, uint64_t seed) {
  auto noisy = std::make_shared<NoisyFile>();
  noisy->original = draft.file;
  noisy->tensors.reserve(draft.tensors.size());
  uint32_t stream = 0;
  for (auto& [name, tensor] : draft.tensors) {
    ++stream;
    if (name.find("norm") != std::string::npos || name.ends_with("scalar")) continue;
    if (!can_decode(tensor.dtype)) return unsupported(name + ": its element type cannot be read");
    std::vector<float> row(static_cast<size_t>(tensor.row_elements()));
    const Moments moments = moments_of(tensor, row);
    TensorView random = tensor;
    if (!can_encode(random.dtype)) random.dtype = DType::kF16;
    random.n_bytes = random.row_bytes() * static_cast<size_t>(random.n_rows());
    std::vector<uint8_t>& bytes = noisy->tensors.emplace_back(random.n_bytes);
    random.data = bytes.data();
    uint64_t i = 0;
    for (int64_t r = 0; r < random.n_rows(); ++r) {
      for (float& value : row) {
        value = static_cast<float>(moments.mean + moments.spread * normal_at(seed, stream, i++));
      }
      encode_row(random.dtype, row.data(), bytes.data() + static_cast<size_t>(r) * random.row_bytes(),
                 random.row_elements());
    }
    tensor = std::move(random);
  }
  const Checkpoint* original = noisy->original.get();
  draft.file = std::shared_ptr<const Checkpoint>(std::move(noisy), original);
  return ok_status();
}

}  // namespace dspark
