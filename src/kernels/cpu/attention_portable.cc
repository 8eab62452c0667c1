#include "kernels/cpu/attention-inl.h"

namespace dspark {

const AttentionKernels& attention_kernels_portable() {
  return kAttentionKernels;
}

}  // namespace dspark
