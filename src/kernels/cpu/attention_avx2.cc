#include "kernels/cpu/attention-inl.h"

namespace dspark {

const AttentionKernels& attention_kernels_avx2() {
  return kAttentionKernels;
}

}  // namespace dspark
