#include "vectors_table.h"

namespace ew {

extern const VectorKernels kVectorsAvx2, kVectorsAvx512, kVectorsAvx512Bf16;

const VectorKernels& vector_kernels(Isa isa) {
    static constexpr VectorKernels kGeneric = make_table<F32x1>("f32_generic");
#if defined(__x86_64__)
    if (isa >= Isa::kAvx512Bf16) return kVectorsAvx512Bf16;
    if (isa >= Isa::kAvx512) return kVectorsAvx512;
    if (isa >= Isa::kAvx2) return kVectorsAvx2;
#endif
    (void)isa;
    return kGeneric;
}

}  // namespace ew
