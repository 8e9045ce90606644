// conv's and depthwise's Ops on AVX2. Only for *_avx2.cpp.
#pragma once

#include "conv_table.h"
#include "lanes_avx2.h"

namespace ew {
namespace {

struct Avx2 {
    static constexpr int kLanes = 8, kSpare = 4, kColumns = 4, kLines = 4, kWideColumns = 1;
    static constexpr int kChunk = kOrderEntries, kTogether = 4;
    static constexpr int kSpreads = 0;
    static constexpr bool kPairs = false;
    using Float = F32x8;

    static constexpr int wide(int vectors) { return vectors == 1 ? 8 : 4; }

    static EW_INLINE __m256i load(const uint8_t* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }

    static EW_INLINE void load_bytes(const uint8_t* from, bool is_signed, Float (&values)[4], int64_t count) {
        const __m256i four = _mm256_maskload_epi32(reinterpret_cast<const int*>(from), Float::first(count));
        const __m256i byte = _mm256_set1_epi32(255);
        if (is_signed) {
            values[0].v = _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(four, 24), 24));
            values[1].v = _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(four, 16), 24));
            values[2].v = _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(four, 8), 24));
            values[3].v = _mm256_cvtepi32_ps(_mm256_srai_epi32(four, 24));
        } else {
            values[0].v = _mm256_cvtepi32_ps(_mm256_and_si256(four, byte));
            values[1].v = _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srli_epi32(four, 8), byte));
            values[2].v = _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srli_epi32(four, 16), byte));
            values[3].v = _mm256_cvtepi32_ps(_mm256_srli_epi32(four, 24));
        }
    }

    template <bool kDirect>
    static EW_INLINE void store_bytes(uint8_t* to, const Float (&values)[4], const ConvFinish& finish, int64_t count) {
        __m256i even = _mm256_packs_epi32(_mm256_cvtps_epi32(values[0].v), _mm256_cvtps_epi32(values[2].v));
        __m256i odd = _mm256_packs_epi32(_mm256_cvtps_epi32(values[1].v), _mm256_cvtps_epi32(values[3].v));
        if (!kDirect) {
            const __m256i zero_point = _mm256_set1_epi16(static_cast<int16_t>(finish.y_zero_point));
            even = _mm256_adds_epi16(even, zero_point), odd = _mm256_adds_epi16(odd, zero_point);
        }
        // In each 128 bits: outputs 0, 2, 1, 3 of four pixels.
        const __m256i order = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 8, 4, 12, 1, 9, 5, 13, 2, 10, 6, 14, 3, 11, 7, 15));
        const bool is_signed = finish.y == EW_S8;
        __m256i bytes = is_signed ? _mm256_packs_epi16(even, odd) : _mm256_packus_epi16(even, odd);
        if (kDirect && finish.clamps) bytes = clamped(bytes, is_signed, finish.low, finish.high);
        store_pixels(to, _mm256_shuffle_epi8(bytes, order), count);
    }

    static EW_INLINE __m256i clamped(__m256i bytes, bool is_signed, int32_t low, int32_t high) {
        const __m256i lows = _mm256_set1_epi8(static_cast<char>(low)), highs = _mm256_set1_epi8(static_cast<char>(high));
        if (is_signed) return _mm256_max_epi8(_mm256_min_epi8(bytes, highs), lows);
        return _mm256_max_epu8(_mm256_min_epu8(bytes, highs), lows);
    }

    static EW_INLINE void store_pixels(uint8_t* to, __m256i bytes, int64_t count) {
        if (count >= 8) _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), bytes);
        else _mm256_maskstore_epi32(reinterpret_cast<int*>(to), Float::first(count), bytes);
    }
};

struct Float256;

struct Int256 : Avx2 {
    static constexpr int kVectors = 2;
    using Ends = Float256;
    using Sum = __m256i;

    static EW_INLINE Sum zero() { return _mm256_setzero_si256(); }
    static EW_INLINE Sum add(Sum a, Sum b) { return _mm256_add_epi32(a, b); }
    static EW_INLINE void store_sum(uint8_t* to, Sum sum) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), sum); }
    static EW_INLINE Sum load_sum(const uint8_t* from) { return load(from); }
    static EW_INLINE Float to_float(Sum sum) { return {_mm256_cvtepi32_ps(sum)}; }
};

// Two products are added in 16 bits: only for weights that the packing found to fit (safe_pairs).
struct Pairs256 : Int256 {
    static constexpr bool kOrders = true;
    static constexpr int wide(int) { return 4; }
    using X = __m256i;
    using W = __m256i;

    static EW_INLINE X x_of(__m256i bytes) { return bytes; }
    static EW_INLINE W w_of(__m256i bytes) { return bytes; }
    static EW_INLINE X load_x(const uint8_t* from) { return load(from); }
    static EW_INLINE X broadcast_x(const uint8_t* from) { return _mm256_set1_epi32(four_bytes(from)); }
    static EW_INLINE W load_w(const uint8_t* from) { return load(from); }
    static EW_INLINE W broadcast_w(const uint8_t* from) { return broadcast_x(from); }
    static EW_INLINE Sum multiply_add(Sum sum, X x, W w) {
        return add_to(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(x, w), _mm256_set1_epi16(1)));
    }
    // Three multiplications in place of four.
    static EW_INLINE Sum multiply_pair(Sum sum, X x, X other_x, W w, W other_w) {
        const __m256i both = _mm256_add_epi16(_mm256_maddubs_epi16(x, w), _mm256_maddubs_epi16(other_x, other_w));
        return add_to(sum, _mm256_madd_epi16(both, _mm256_set1_epi16(1)));
    }
};

// Any weights: even and odd channels apart, in 16 bits.
struct Wide256 : Int256 {
    static constexpr int kLines = 1;
    struct X {
        __m256i even, odd;
    };
    using W = X;

    static EW_INLINE X x_of(__m256i bytes) {
        return {_mm256_and_si256(bytes, _mm256_set1_epi16(255)), _mm256_srli_epi16(bytes, 8)};
    }
    static EW_INLINE W w_of(__m256i bytes) {
        return {_mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8), _mm256_srai_epi16(bytes, 8)};
    }
    static EW_INLINE X load_x(const uint8_t* from) { return x_of(load(from)); }
    static EW_INLINE X broadcast_x(const uint8_t* from) { return x_of(_mm256_set1_epi32(four_bytes(from))); }
    static EW_INLINE W load_w(const uint8_t* from) { return w_of(load(from)); }
    static EW_INLINE W broadcast_w(const uint8_t* from) { return w_of(_mm256_set1_epi32(four_bytes(from))); }
    static EW_INLINE Sum multiply_add(Sum sum, const X& x, const W& w) {
        return add_to(add_to(sum, _mm256_madd_epi16(x.even, w.even)), _mm256_madd_epi16(x.odd, w.odd));
    }
};

struct Float256 : Avx2 {
    static constexpr int kVectors = 3;
    using Sum = __m256;
    using X = __m256;
    using W = __m256;

    static EW_INLINE X load_x(const uint8_t* from) { return _mm256_loadu_ps(reinterpret_cast<const float*>(from)); }
    static EW_INLINE X broadcast_x(const uint8_t* from) { return _mm256_broadcast_ss(reinterpret_cast<const float*>(from)); }
    static EW_INLINE W load_w(const uint8_t* from) { return load_x(from); }
    static EW_INLINE W broadcast_w(const uint8_t* from) { return broadcast_x(from); }
    static EW_INLINE Sum zero() { return _mm256_setzero_ps(); }
    static EW_INLINE Sum add(Sum a, Sum b) { return _mm256_add_ps(a, b); }
    static EW_INLINE Sum multiply_add(Sum sum, X x, W w) { return _mm256_fmadd_ps(x, w, sum); }
    static EW_INLINE void store_sum(uint8_t* to, Sum sum) { _mm256_storeu_ps(reinterpret_cast<float*>(to), sum); }
    static EW_INLINE Sum load_sum(const uint8_t* from) { return load_x(from); }
    static EW_INLINE Float to_float(Sum sum) { return {sum}; }
};

}  // namespace
}  // namespace ew
