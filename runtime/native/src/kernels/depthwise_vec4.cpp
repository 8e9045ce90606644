// depthwise in the compiler's vectors of four.
#if defined(EDGEWISE_VEC4)
#include "depthwise.h"
#include "simd.h"

namespace ew {
namespace {

// Lanes are pixels; of each the byte of one channel is multiplied in 32 bits.
void sums_s8(const DepthwiseRow& input, int64_t vectors, int64_t row, float* sums) {
    using Int = F32x4::Int;
    const uint8_t* x = input.x;
    for (int64_t v = 0; v < vectors; ++v, x += 16, sums += 4) {
        Int sum[4] = {Int::all(0), Int::all(0), Int::all(0), Int::all(0)};
        for (int64_t t = 0; t < input.taps; ++t) {
            const uint8_t* from = x + input.offsets[t];
            const auto* weights = reinterpret_cast<const int8_t*>(input.weights + t * 16);
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) {
                F32x4::Ints pixels;
                std::memcpy(&pixels, from + i * 4, sizeof pixels);
#pragma GCC unroll 4
                for (int c = 0; c < 4; ++c) sum[c] = sum[c] + Int{(pixels >> (8 * input.channels[c]) & 255) * weights[c * 4 + i]};
            }
        }
        for (int c = 0; c < 4; ++c) F32x4::from_int(sum[c]).store(sums + c * row);
    }
}

template <int kVectors>
EW_INLINE void some_sums(const DepthwiseRow& input, float* to) {
    F32x4 sums[kVectors];
    for (auto& sum : sums) sum = F32x4::all(0);
    for (int64_t t = 0; t < input.taps; ++t) {
        const uint8_t* x = input.x + input.offsets[t];
        const F32x4 weight = F32x4::all(F32x1::load(reinterpret_cast<const float*>(input.weights + t * 4)).v);
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) sums[v] = fma(F32x4::load(reinterpret_cast<const float*>(x + v * 16)), weight, sums[v]);
    }
    for (int v = 0; v < kVectors; ++v) sums[v].store(to + v * 4);
}

void sums_f32(const DepthwiseRow& input, int64_t vectors, int64_t, float* to) {
    DepthwiseRow rest = input;
    for (; vectors >= 4; vectors -= 4, rest.x += 64, to += 16) some_sums<4>(rest, to);
    for (; vectors > 0; --vectors, rest.x += 16, to += 4) some_sums<1>(rest, to);
}

}  // namespace

extern const DepthwiseKernel kDepthwiseS8Vec4, kDepthwiseF32Vec4;
const DepthwiseKernel kDepthwiseS8Vec4{"s8_vec4", 4, sums_s8, nullptr};
const DepthwiseKernel kDepthwiseF32Vec4{"f32_vec4", 4, sums_f32, nullptr};

}  // namespace ew
#endif
