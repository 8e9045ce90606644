// depthwise on any aarch64: float32, and 8 bits without dot products.
#if defined(__aarch64__)
#include "conv_neon_wide.h"
#include "depthwise_neon.h"

namespace ew {
namespace {

template <int kVectors>
EW_INLINE void some_sums(const DepthwiseRow& input, float* to) {
    float32x4_t sums[kVectors];
    for (auto& sum : sums) sum = vdupq_n_f32(0);
    for (int64_t t = 0; t < input.taps; ++t) {
        const uint8_t* x = input.x + input.offsets[t];
        const float32x4_t weight = NeonFloat::broadcast_x(input.weights + t * 4);
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) sums[v] = vfmaq_f32(sums[v], NeonFloat::load_x(x + v * 16), weight);
    }
    for (int v = 0; v < kVectors; ++v) vst1q_f32(to + v * 4, sums[v]);
}

void sums_f32(const DepthwiseRow& input, int64_t vectors, int64_t, float* to) {
    DepthwiseRow rest = input;
    for (; vectors >= 4; vectors -= 4, rest.x += 64, to += 16) some_sums<4>(rest, to);
    for (; vectors > 0; --vectors, rest.x += 16, to += 4) some_sums<1>(rest, to);
}

}  // namespace

extern const DepthwiseKernel kDepthwiseS8Neon, kDepthwiseF32Neon;
const DepthwiseKernel kDepthwiseS8Neon{"s8_neon", 4, sums_s8<NeonWide>, direct_s8<NeonWide>};
const DepthwiseKernel kDepthwiseF32Neon{"f32_neon", 4, sums_f32, nullptr};

}  // namespace ew
#endif
