// depthwise in 8 bits with AVX-512 VNNI.
//
// A load of 16 pixels at column k, transposed in each 128 bits, is for pixels k, 4 + k, 8 + k, 12 + k what 4 neighbouring
// columns hold, channel by channel: one vpdpbusd then adds a tap's 4 positions for 4 pixels and 4 channels.
#if defined(__AVX512VNNI__)
#include <immintrin.h>

#include "conv_finish.h"
#include "depthwise.h"

namespace ew {
namespace {

constexpr int kShifts = 4;

EW_INLINE __m512i dot(__m512i sum, __m512i x, __m512i w) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(x), "v"(w));  // see conv_avx512vnni.cpp
    return sum;
}

// Byte i of output c's lane: of pixel i, the channel that c reads.
EW_INLINE __m512i transposition(const uint8_t* channels) {
    alignas(16) uint8_t order[16];
    for (int i = 0; i < 16; ++i) order[i] = static_cast<uint8_t>(i % 4 * 4 + channels[i / 4]);
    return _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(order)));
}

// sums[k]: lane (L, c) is channel c of pixel 4 * L + k.
EW_INLINE void sum_vector(const DepthwiseRow& input, int64_t first, __m512i order, __m512i (&sums)[kShifts]) {
    for (auto& sum : sums) sum = _mm512_setzero_si512();
    const uint8_t* x = input.x + first * 4;
    for (int64_t t = 0; t < input.taps; ++t) {
        const __m512i weight =
            _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(input.weights + t * 16)));
        const uint8_t* from = x + input.offsets[t];
#pragma GCC unroll 4
        for (int k = 0; k < kShifts; ++k) {
            sums[k] = dot(sums[k], _mm512_shuffle_epi8(_mm512_loadu_si512(from + k * 4), order), weight);
        }
    }
}

void sums_s8(const DepthwiseRow& input, int64_t vectors, int64_t row, void* sums) {
    auto* to = static_cast<int32_t*>(sums);
    const __m512i order = transposition(input.channels);
    for (int64_t v = 0; v < vectors; ++v) {
        __m512i s[kShifts];
        sum_vector(input, v * 16, order, s);
        // From pixels of four channels to channels of 16 pixels.
        const __m512i low01 = _mm512_unpacklo_epi32(s[0], s[1]), high01 = _mm512_unpackhi_epi32(s[0], s[1]);
        const __m512i low23 = _mm512_unpacklo_epi32(s[2], s[3]), high23 = _mm512_unpackhi_epi32(s[2], s[3]);
        _mm512_storeu_si512(to + v * 16, _mm512_unpacklo_epi64(low01, low23));
        _mm512_storeu_si512(to + row + v * 16, _mm512_unpackhi_epi64(low01, low23));
        _mm512_storeu_si512(to + 2 * row + v * 16, _mm512_unpacklo_epi64(high01, high23));
        _mm512_storeu_si512(to + 3 * row + v * 16, _mm512_unpackhi_epi64(high01, high23));
    }
}

// To the output's bytes: lane (L, c) of what is packed from sums 0 to 3 are pixels 4 * L to 4 * L + 3.
void direct_s8(const DepthwiseRow& input, const ConvFinish& finish, const float* scale, const float* bias, int64_t pixels,
               uint8_t* y) {
    const __m512i order = transposition(input.channels);
    const __m512 scales = _mm512_broadcast_f32x4(_mm_loadu_ps(scale)), biases = _mm512_broadcast_f32x4(_mm_loadu_ps(bias));
    const __m512i lows = _mm512_set1_epi8(static_cast<char>(finish.low)),
                  highs = _mm512_set1_epi8(static_cast<char>(finish.high));
    for (int64_t p = 0; p < pixels; p += 16) {
        __m512i s[kShifts];
        sum_vector(input, p, order, s);
        for (auto& sum : s) sum = _mm512_cvtps_epi32(_mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scales, biases));
        const __m512i low = _mm512_packs_epi32(s[0], s[1]), high = _mm512_packs_epi32(s[2], s[3]);
        __m512i bytes;
        if (finish.y == EW_S8) bytes = _mm512_max_epi8(_mm512_min_epi8(_mm512_packs_epi16(low, high), highs), lows);
        else bytes = _mm512_max_epu8(_mm512_min_epu8(_mm512_packus_epi16(low, high), highs), lows);
        if (pixels - p >= 16) _mm512_storeu_si512(y + p * 4, bytes);
        else _mm512_mask_storeu_epi32(y + p * 4, F32x16::first(pixels - p), bytes);
    }
}

}  // namespace

extern const DepthwiseKernel kDepthwiseS8Avx512Vnni;
const DepthwiseKernel kDepthwiseS8Avx512Vnni{"s8_avx512vnni", 16, sums_s8, direct_s8};

}  // namespace ew
#endif
