// depthwise in float32 with AVX-512.
#if defined(__AVX512F__)
#include <immintrin.h>

#include "depthwise.h"

namespace ew {
namespace {

template <int kVectors>
void some_sums(const DepthwiseRow& input, float* to) {
    __m512 sums[kVectors];
    for (auto& sum : sums) sum = _mm512_setzero_ps();
    const auto* weights = reinterpret_cast<const float*>(input.weights);
    for (int64_t t = 0; t < input.taps; ++t) {
        const uint8_t* x = input.x + input.offsets[t];
        const __m512 weight = _mm512_set1_ps(weights[t]);
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) sums[v] = _mm512_fmadd_ps(_mm512_loadu_ps(x + v * 64), weight, sums[v]);
    }
    for (int v = 0; v < kVectors; ++v) _mm512_storeu_ps(to + v * 16, sums[v]);
}

void sums_f32(const DepthwiseRow& input, int64_t vectors, int64_t, void* sums) {
    auto* to = static_cast<float*>(sums);
    switch (vectors) {
        case 1: return some_sums<1>(input, to);
        case 2: return some_sums<2>(input, to);
        case 3: return some_sums<3>(input, to);
        case 4: return some_sums<4>(input, to);
        case 5: return some_sums<5>(input, to);
        default: return some_sums<6>(input, to);
    }
}

}  // namespace

extern const DepthwiseKernel kDepthwiseF32Avx512;
const DepthwiseKernel kDepthwiseF32Avx512{"f32_avx512", 16, sums_f32, nullptr};

}  // namespace ew
#endif
