#if defined(__x86_64__)

#include "vectors_table.h"

namespace ew {

extern const VectorKernels kVectorsAvx2;
const VectorKernels kVectorsAvx2 = make_table<F32x8>("f32_avx2");

}  // namespace ew

#endif
