#include "kernels/cpu/rows-inl.h"

namespace dspark {

const RowKernels& row_kernels_avx512() {
  return kRowKernels;
}

}  // namespace dspark
