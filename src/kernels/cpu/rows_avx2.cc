#include "kernels/cpu/rows-inl.h"

namespace dspark {

const RowKernels& row_kernels_avx2() {
  return kRowKernels;
}

}  // namespace dspark
