#if defined(__aarch64__)

#include "vectors_table.h"

namespace ew {

extern const VectorKernels kVectorsNeon;
const VectorKernels kVectorsNeon = make_table<F32x4>("f32_neon");

}  // namespace ew

#endif
