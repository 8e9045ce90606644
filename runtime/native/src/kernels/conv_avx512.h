// What conv's Ops share on AVX-512. Only for *_avx512*.cpp.
#pragma once

#include "conv_table.h"

namespace ew {
namespace {

struct Avx512 {
    static constexpr int kLanes = 16, kVectors = 6, kSpare = 11, kColumns = 6, kLines = 4, kWideColumns = 6;
    static constexpr int kChunk = 0, kTogether = 1;
    static constexpr int kSpreads = 0;
    static constexpr bool kPairs = false;
    using Float = F32x16;

    static EW_INLINE void load_bytes(const uint8_t* from, bool is_signed, Float (&values)[4], int64_t count) {
        const __m512i four = _mm512_maskz_loadu_epi32(Float::first(count), from);
        const __m512i byte = _mm512_set1_epi32(255);
        if (is_signed) {
            values[0].v = _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(four, 24), 24));
            values[1].v = _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(four, 16), 24));
            values[2].v = _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(four, 8), 24));
            values[3].v = _mm512_cvtepi32_ps(_mm512_srai_epi32(four, 24));
        } else {
            values[0].v = _mm512_cvtepi32_ps(_mm512_and_si512(four, byte));
            values[1].v = _mm512_cvtepi32_ps(_mm512_and_si512(_mm512_srli_epi32(four, 8), byte));
            values[2].v = _mm512_cvtepi32_ps(_mm512_and_si512(_mm512_srli_epi32(four, 16), byte));
            values[3].v = _mm512_cvtepi32_ps(_mm512_srli_epi32(four, 24));
        }
    }

    static constexpr int wide(int vectors) { return vectors == 1 ? 16 : vectors <= 3 ? 8 : 4; }

    using Pair = __m512i;  // two channels in 16 bits
    static EW_INLINE Pair pair(Float a, Float b) { return _mm512_packs_epi32(_mm512_cvtps_epi32(a.v), _mm512_cvtps_epi32(b.v)); }

    template <bool kDirect>
    static EW_INLINE void store_bytes(uint8_t* to, const Float (&values)[4], const ConvFinish& finish, int64_t count) {
        store_pairs<kDirect>(to, pair(values[0], values[1]), pair(values[2], values[3]), finish, count);
    }

    template <bool kDirect>
    static EW_INLINE void store_pairs(uint8_t* to, Pair low, Pair high, const ConvFinish& finish, int64_t count) {
        if (!kDirect) {
            const __m512i zero_point = _mm512_set1_epi16(static_cast<int16_t>(finish.y_zero_point));
            low = _mm512_adds_epi16(low, zero_point), high = _mm512_adds_epi16(high, zero_point);
        }
        // In each 128 bits: one output after another, of four pixels.
        const __m512i order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
        const bool is_signed = finish.y == EW_S8;
        __m512i bytes = is_signed ? _mm512_packs_epi16(low, high) : _mm512_packus_epi16(low, high);
        if (kDirect && finish.clamps) bytes = clamped(bytes, is_signed, finish.low, finish.high);
        bytes = _mm512_shuffle_epi8(bytes, order);
        if (count >= 16) _mm512_storeu_si512(to, bytes);
        else _mm512_mask_storeu_epi32(to, Float::first(count), bytes);
    }

    static EW_INLINE __m512i clamped(__m512i bytes, bool is_signed, int32_t low, int32_t high) {
        const __m512i lows = _mm512_set1_epi8(static_cast<char>(low)), highs = _mm512_set1_epi8(static_cast<char>(high));
        if (is_signed) return _mm512_max_epi8(_mm512_min_epi8(bytes, highs), lows);
        return _mm512_max_epu8(_mm512_min_epu8(bytes, highs), lows);
    }
};

}  // namespace
}  // namespace ew
