// The readable version of depthwise's kernels, and the table that picks one.
#include "depthwise.h"

#include <cstring>

namespace ew {
namespace {

void sums_s8(const DepthwiseRow& input, int64_t vectors, int64_t row, float* sums) {
    for (int64_t p = 0; p < vectors; ++p) {
        for (int64_t c = 0; c < 4; ++c) {
            uint32_t sum = 0;  // wraps, as the vector instructions do
            for (int64_t t = 0; t < input.taps; ++t) {
                const uint8_t* x = input.x + input.offsets[t] + p * 4 + input.channels[c];
                for (int i = 0; i < 4; ++i)
                    sum += static_cast<uint32_t>(x[i * 4] * static_cast<int8_t>(input.weights[t * 16 + c * 4 + i]));
            }
            sums[c * row + p] = static_cast<float>(static_cast<int32_t>(sum));
        }
    }
}

void sums_f32(const DepthwiseRow& input, int64_t vectors, int64_t, float* to) {
    for (int64_t p = 0; p < vectors; ++p) {
        float sum = 0;
        for (int64_t t = 0; t < input.taps; ++t) {
            float x, w;
            std::memcpy(&x, input.x + input.offsets[t] + p * 4, 4);
            std::memcpy(&w, input.weights + t * 4, 4);
            sum += x * w;
        }
        to[p] = sum;
    }
}

constexpr DepthwiseKernel kInt{"s8_generic", 1, sums_s8, nullptr}, kFloat{"f32_generic", 1, sums_f32, nullptr};

}  // namespace

#if defined(__x86_64__)
extern const DepthwiseKernel kDepthwiseS8Avx512Vnni, kDepthwiseF32Avx512, kDepthwiseS8Avx2, kDepthwiseS8WideAvx2,
    kDepthwiseF32Avx2;
#elif defined(__aarch64__)
extern const DepthwiseKernel kDepthwiseS8NeonI8mm, kDepthwiseS8NeonDotprod, kDepthwiseS8Neon, kDepthwiseF32Neon;
#elif defined(EDGEWISE_VEC4)
extern const DepthwiseKernel kDepthwiseS8Vec4, kDepthwiseF32Vec4;
#endif

const DepthwiseKernel& depthwise_kernel(Isa isa, bool integer, bool safe_pairs) {
    (void)isa, (void)safe_pairs;
#if defined(__x86_64__)
    if (integer && isa >= Isa::kAvx512Vnni) return kDepthwiseS8Avx512Vnni;
    if (!integer && isa >= Isa::kAvx512) return kDepthwiseF32Avx512;
    if (isa >= Isa::kAvx2) return !integer ? kDepthwiseF32Avx2 : safe_pairs ? kDepthwiseS8Avx2 : kDepthwiseS8WideAvx2;
#elif defined(__aarch64__)
    if (integer && isa >= Isa::kNeonI8mm) return kDepthwiseS8NeonI8mm;
    if (integer && isa >= Isa::kNeonDotprod) return kDepthwiseS8NeonDotprod;
    if (isa >= Isa::kNeon) return integer ? kDepthwiseS8Neon : kDepthwiseF32Neon;
#elif defined(EDGEWISE_VEC4)
    if (isa >= Isa::kVec4) return integer ? kDepthwiseS8Vec4 : kDepthwiseF32Vec4;
#endif
    return integer ? kInt : kFloat;
}

}  // namespace ew
