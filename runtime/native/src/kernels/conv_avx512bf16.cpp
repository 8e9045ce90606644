// conv in bfloat16 with AVX-512 BF16: an entry is two channels, each product of pairs is added in float32.
#if defined(__AVX512BF16__)
#include "conv_avx512.h"
#include "conv_pack.h"

namespace ew {
namespace {

struct Brain512 : Avx512 {
    using Sum = __m512;
    using X = __m512i;
    using W = __m512i;

    static EW_INLINE X load_x(const uint8_t* from) { return _mm512_loadu_si512(from); }
    static EW_INLINE X broadcast_x(const uint8_t* from) { return _mm512_set1_epi32(four_bytes(from)); }
    static EW_INLINE W load_w(const uint8_t* from) { return load_x(from); }
    static EW_INLINE W broadcast_w(const uint8_t* from) { return broadcast_x(from); }
    static EW_INLINE Sum zero() { return _mm512_setzero_ps(); }
    static EW_INLINE Sum add(Sum a, Sum b) { return _mm512_add_ps(a, b); }
    static EW_INLINE Sum multiply_add(Sum sum, X x, W w) {
        asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(x), "v"(w));  // see conv_avx512vnni.cpp
        return sum;
    }
    static EW_INLINE void store_sum(uint8_t* to, Sum sum) { _mm512_storeu_ps(to, sum); }
    static EW_INLINE Sum load_sum(const uint8_t* from) { return _mm512_loadu_ps(from); }
    static EW_INLINE Float to_float(Sum sum) { return {sum}; }
};

}  // namespace

extern const ConvKernel kConvF32Avx512;

namespace {

// Sums are those of float32: so are their ends, which are not compiled twice.
template <>
void finish_block<Brain512>(const ConvFinish& finish, const float* sums, int64_t row, const ConvStretch& stretch) {
    kConvF32Avx512.finish(finish, sums, row, stretch);
}
template <>
void finish_columns<Brain512>(const ConvFinish& finish, const float* sums, int64_t row, int64_t first_pixel, int64_t pixels,
                              const ConvStretch& stretch) {
    kConvF32Avx512.finish_columns(finish, sums, row, first_pixel, pixels, stretch);
}

EW_INLINE __m512i brain(const uint8_t* from) {
    const __m256bh half = _mm512_cvtneps_pbh(_mm512_loadu_ps(from));
    return _mm512_cvtepu16_epi32(reinterpret_cast<const __m256i&>(half));
}

// In place: a row is read before, or where, it is written.
void pair(uint8_t* tile, int64_t planes, int64_t positions, int64_t row_bytes) {
    uint8_t* to = tile;
    for (int64_t plane = 0; plane < planes; plane += 2) {
        for (int64_t position = 0; position < positions; ++position, to += row_bytes) {
            const uint8_t* first = tile + (plane * positions + position) * row_bytes;
            const uint8_t* second = plane + 1 < planes ? first + positions * row_bytes : nullptr;
            for (int64_t at = 0; at < row_bytes; at += 64) {
                __m512i words = brain(first + at);
                if (second) words = _mm512_or_si512(words, _mm512_slli_epi32(brain(second + at), 16));
                _mm512_storeu_si512(to + at, words);
            }
        }
    }
}

}  // namespace

extern const ConvKernel kConvBf16Avx512;
const ConvKernel kConvBf16Avx512 = {"bf16_avx512", Brain512::kLanes, Brain512::kVectors, Brain512::kTogether, {}, Brain512::kSpare, dense_of<Brain512>, nullptr,
                                    all_lines<Brain512>, finish_block<Brain512>, finish_columns<Brain512>, pack_avx512, fill_avx512, pair};

}  // namespace ew
#endif
