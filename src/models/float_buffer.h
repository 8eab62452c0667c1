#pragma once
// Scratch floats of a forward pass.

#include <cstdint>

#include "base/aligned_buffer.h"

namespace dspark {

/// Floats that grow to the largest size asked for and stay, so that a steady state allocates nothing.
class FloatBuffer {
 public:
  /// false when the memory could not be had; the old contents are lost whenever it grows.
  bool grow(int64_t n_floats) {
    const size_t bytes = static_cast<size_t>(n_floats) * sizeof(float);
    if (bytes <= buffer_.size()) return true;
    buffer_ = AlignedBuffer();  // first give back, then ask: never both at once
    buffer_ = AlignedBuffer(bytes);
    return buffer_.data() != nullptr;
  }
  float* data() { return buffer_.as<float>(); }
  const float* data() const { return buffer_.as<float>(); }

 private:
  AlignedBuffer buffer_;
};

}  // namespace dspark
