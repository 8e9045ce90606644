#if defined(__x86_64__)

#include "vectors_table.h"

namespace ew {

extern const VectorKernels kVectorsAvx512;
const VectorKernels kVectorsAvx512 = make_table<F32x16>("f32_avx512");

}  // namespace ew

#endif
