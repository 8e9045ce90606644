#include "vectors_table.h"

namespace ew {

#if defined(__x86_64__)
extern const VectorKernels kVectorsAvx2, kVectorsAvx512;
void lut_avx512bf16(const uint8_t* table, const uint8_t* x, uint8_t* y, int64_t count);
#elif defined(__aarch64__)
extern const VectorKernels kVectorsNeon;
#elif defined(EDGEWISE_VEC4)
extern const VectorKernels kVectorsVec4;
#endif

const VectorKernels& vector_kernels(Isa isa) {
    static constexpr VectorKernels kGeneric = make_table<F32x1>("f32_generic");
#if defined(__x86_64__)
    static const VectorKernels kNewest = [] {
        VectorKernels table = kVectorsAvx512;
        table.name = "f32_avx512bf16";
        table.lut = lut_avx512bf16;
        return table;
    }();
    if (isa >= Isa::kAvx512Bf16) return kNewest;
    if (isa >= Isa::kAvx512) return kVectorsAvx512;
    if (isa >= Isa::kAvx2) return kVectorsAvx2;
#elif defined(__aarch64__)
    if (isa >= Isa::kNeon) return kVectorsNeon;
#elif defined(EDGEWISE_VEC4)
    if (isa >= Isa::kVec4) return kVectorsVec4;
#endif
    (void)isa;
    return kGeneric;
}

}  // namespace ew
