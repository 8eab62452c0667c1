#include "kernels/cpu/attention-inl.h"

namespace dspark {

const AttentionKernels& attention_kernels_avx512bf16() {
  return kAttentionKernels;
}

}  // namespace dspark
