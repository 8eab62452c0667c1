#include "kernels/cpu/rows-inl.h"

namespace dspark {

const RowKernels& row_kernels_portable() {
  return kRowKernels;
}

}  // namespace dspark
