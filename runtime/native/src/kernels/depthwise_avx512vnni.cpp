// depthwise in 8 bits with AVX-512 VNNI.
//
// A load of 16 pixels at column k, transposed in each 128 bits, is for pixels k, 4 + k, 8 + k, 12 + k what 4 neighbouring
// columns hold, channel by channel: one vpdpbusd then adds a tap's 4 positions for 4 pixels and 4 channels.
#if defined(__AVX512VNNI__)
#include "depthwise_planes.h"

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

void sums_s8(const DepthwiseRow& input, int64_t vectors, int64_t row, float* sums) {
    const __m512i order = transposition(input.channels);
    for (int64_t v = 0; v < vectors; ++v) {
        __m512i s[kShifts];
        sum_vector(input, v * 16, order, s);
        // From pixels of four channels to channels of 16 pixels.
        const __m512i low01 = _mm512_unpacklo_epi32(s[0], s[1]), high01 = _mm512_unpackhi_epi32(s[0], s[1]);
        const __m512i low23 = _mm512_unpacklo_epi32(s[2], s[3]), high23 = _mm512_unpackhi_epi32(s[2], s[3]);
        _mm512_storeu_ps(sums + v * 16, _mm512_cvtepi32_ps(_mm512_unpacklo_epi64(low01, low23)));
        _mm512_storeu_ps(sums + row + v * 16, _mm512_cvtepi32_ps(_mm512_unpackhi_epi64(low01, low23)));
        _mm512_storeu_ps(sums + 2 * row + v * 16, _mm512_cvtepi32_ps(_mm512_unpacklo_epi64(high01, high23)));
        _mm512_storeu_ps(sums + 3 * row + v * 16, _mm512_cvtepi32_ps(_mm512_unpackhi_epi64(high01, high23)));
    }
}

// Four dwords of each 128 bits: those of sums 0 to 3.
EW_INLINE __m512i bytes_of(const __m512i (&sums)[kShifts], __m512 scales, __m512 biases, __m512i lows, __m512i highs,
                           bool is_signed) {
    __m512i s[kShifts];
    for (int i = 0; i < kShifts; ++i)
        s[i] = _mm512_cvtps_epi32(_mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[i]), scales, biases));
    const __m512i low = _mm512_packs_epi32(s[0], s[1]), high = _mm512_packs_epi32(s[2], s[3]);
    if (is_signed) return _mm512_max_epi8(_mm512_min_epi8(_mm512_packs_epi16(low, high), highs), lows);
    return _mm512_max_epu8(_mm512_min_epu8(_mm512_packus_epi16(low, high), highs), lows);
}

// To the output's bytes.
void direct_s8(const DepthwiseRow& input, const ConvFinish& finish, const float* scale, const float* bias, int64_t pixels,
               uint8_t* y) {
    const __m512i order = transposition(input.channels);
    const __m512 scales = _mm512_broadcast_f32x4(_mm_loadu_ps(scale)), biases = _mm512_broadcast_f32x4(_mm_loadu_ps(bias));
    const __m512i lows = _mm512_set1_epi8(static_cast<char>(finish.low)),
                  highs = _mm512_set1_epi8(static_cast<char>(finish.high));
    for (int64_t p = 0; p < pixels; p += 16) {
        __m512i s[kShifts];
        sum_vector(input, p, order, s);
        const __m512i bytes = bytes_of(s, scales, biases, lows, highs, finish.y == EW_S8);
        if (pixels - p >= 16) _mm512_storeu_si512(y + p * 4, bytes);
        else _mm512_mask_storeu_epi32(y + p * 4, F32x16::first(pixels - p), bytes);
    }
}

// A tap is four neighbouring positions of a row of the kernel. Load l, transposed, is for outputs whose windows begin at each
// fourth pixel of it: with a stride of 1 every fourth output from l on; with a stride of 2 every second from l % 2 on, eight
// more from load 2 on.
struct BytePlane {
    static constexpr int kColumns = 16, kLoads = kShifts;
    static constexpr bool kOverlaps = false, kFetches = false, kFills = true;
    using Sum = __m512i;
    using X = __m512i;

    __m512i order, padding, lows, highs;
    __m512 scales, biases;
    bool is_signed;

    explicit BytePlane(const DepthwisePlane& plane)
        : order(transposition(plane.channels)), padding(_mm512_set1_epi32(static_cast<int>(plane.fill))),
          lows(_mm512_set1_epi8(static_cast<char>(plane.finish->low))),
          highs(_mm512_set1_epi8(static_cast<char>(plane.finish->high))),
          scales(_mm512_broadcast_f32x4(_mm_loadu_ps(plane.scale))), biases(_mm512_broadcast_f32x4(_mm_loadu_ps(plane.bias))),
          is_signed(plane.finish->y == EW_S8) {}

    static constexpr int64_t load_pixels(int) { return 16; }
    static constexpr int64_t load_column(int stride, int64_t tap, int64_t load) {
        return 4 * tap + (stride == 1 ? load : load % 2 * 2 + load / 2 * 16);
    }
    static EW_INLINE Sum zero() { return _mm512_setzero_si512(); }
    static EW_INLINE X weight(const uint8_t* weights, int64_t tap) {
        return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(weights + tap * 16)));
    }
    static EW_INLINE Sum add(Sum sum, X x, X w) { return dot(sum, x, w); }
    static EW_INLINE uint32_t lanes_of(uint32_t mask) { return mask; }
    EW_INLINE X fill() const { return padding; }
    template <int>
    EW_INLINE X load(const uint8_t* from, uint32_t mask) const {
        return _mm512_shuffle_epi8(_mm512_mask_loadu_epi32(padding, static_cast<__mmask16>(mask), from), order);
    }

    template <int kStride>
    EW_INLINE void store(const Sum (&sums)[kLoads], uint8_t* y, int64_t count) const {
        __m512i bytes = bytes_of(sums, scales, biases, lows, highs, is_signed);
        if (kStride == 2)
            bytes = _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15), bytes);
        if (count >= 16) _mm512_storeu_si512(y, bytes);
        else _mm512_mask_storeu_epi32(y, F32x16::first(count), bytes);
    }
};

DepthwisePlanes planes_s8(int64_t kernel_rows, int64_t stride, int64_t) { return planes_of<BytePlane>(kernel_rows, stride); }

}  // namespace

extern const DepthwiseKernel kDepthwiseS8Avx512Vnni;
const DepthwiseKernel kDepthwiseS8Avx512Vnni{"s8_avx512vnni", 16, sums_s8, direct_s8, planes_s8};

}  // namespace ew
#endif
