#if defined(EDGEWISE_VEC4)

#include "vectors_table.h"

namespace ew {

extern const VectorKernels kVectorsVec4;
const VectorKernels kVectorsVec4 = make_table<F32x4>("f32_vec4");

}  // namespace ew

#endif
