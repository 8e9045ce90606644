// Vectors of float32 (and the int32 of their bits) with one spelling for every instruction set: F32x1, F32x4 (simd_four.h), F32x8,
// F32x16.
//
// Kernels are templates over such a type V. All is in an anonymous namespace and forced inline: each file is compiled with its
// own instruction set and nothing of it may leak into another. V exists only where the file's flags allow it.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 says so of its own undefined vectors
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

#define EW_INLINE inline __attribute__((always_inline))
#define EW_LAMBDA_INLINE __attribute__((always_inline))

namespace ew {
namespace {

// kFuses: whether fma rounds once. to_int gives the nearest integer, the even one of two, of what is within 2^22. min(a, b) is a < b ? a : b and
// max(a, b) is a > b ? a : b: b where either is NaN, so put what may be NaN second to keep it.

struct F32x1 {
    static constexpr int kLanes = 1;
    static constexpr bool kFuses = false;
    using Mask = bool;
    struct Int {
        int32_t v;
        static EW_INLINE Int all(int32_t x) { return {x}; }
        static EW_INLINE Int load_u8(const uint8_t* from) { return {*from}; }
        static EW_INLINE Int load_s8(const uint8_t* from) { return {static_cast<int8_t>(*from)}; }
        EW_INLINE void store(int32_t* to) const { *to = v; }
        EW_INLINE void store_low_bytes(uint8_t* to) const { *to = static_cast<uint8_t>(v); }
        friend EW_INLINE Int operator+(Int a, Int b) { return {static_cast<int32_t>(static_cast<uint32_t>(a.v) + static_cast<uint32_t>(b.v))}; }
        friend EW_INLINE Int operator-(Int a, Int b) { return {static_cast<int32_t>(static_cast<uint32_t>(a.v) - static_cast<uint32_t>(b.v))}; }
        friend EW_INLINE Int operator&(Int a, Int b) { return {a.v & b.v}; }
        friend EW_INLINE Int operator|(Int a, Int b) { return {a.v | b.v}; }
        friend EW_INLINE Int operator^(Int a, Int b) { return {a.v ^ b.v}; }
        template <int kBits>
        EW_INLINE Int left() const { return {static_cast<int32_t>(static_cast<uint32_t>(v) << kBits)}; }
        template <int kBits>
        EW_INLINE Int right() const { return {v >> kBits}; }
    };

    float v;
    static EW_INLINE F32x1 all(float x) { return {x}; }
    static EW_INLINE F32x1 load(const float* from) {  // from anywhere: C4 bytes are loaded as lanes too
        F32x1 out;
        std::memcpy(&out.v, from, sizeof out.v);
        return out;
    }
    static EW_INLINE F32x1 load_some(const float* from, int64_t count) { return count > 0 ? load(from) : all(0.0f); }
    EW_INLINE void store(float* to) const { std::memcpy(to, &v, sizeof v); }
    EW_INLINE void store_some(float* to, int64_t count) const {
        if (count > 0) store(to);
    }
    EW_INLINE Int bits() const {
        Int out;
        std::memcpy(&out.v, &v, sizeof v);
        return out;
    }
    static EW_INLINE F32x1 from_bits(Int x) {
        F32x1 out;
        std::memcpy(&out.v, &x.v, sizeof out.v);
        return out;
    }
    static EW_INLINE F32x1 from_int(Int x) { return {static_cast<float>(x.v)}; }
    // Nearest, ties to even; the values must fit.
    EW_INLINE Int to_int() const { return {static_cast<int32_t>(round(*this).v)}; }
    friend EW_INLINE F32x1 operator+(F32x1 a, F32x1 b) { return {a.v + b.v}; }
    friend EW_INLINE F32x1 operator-(F32x1 a, F32x1 b) { return {a.v - b.v}; }
    friend EW_INLINE F32x1 operator*(F32x1 a, F32x1 b) { return {a.v * b.v}; }
    friend EW_INLINE F32x1 operator/(F32x1 a, F32x1 b) { return {a.v / b.v}; }
    friend EW_INLINE Mask operator<(F32x1 a, F32x1 b) { return a.v < b.v; }
    // a * b + c, rounded once or twice: as the instruction set has it.
    friend EW_INLINE F32x1 fma(F32x1 a, F32x1 b, F32x1 c) { return {a.v * b.v + c.v}; }
    friend EW_INLINE F32x1 min(F32x1 a, F32x1 b) { return {a.v < b.v ? a.v : b.v}; }
    friend EW_INLINE F32x1 max(F32x1 a, F32x1 b) { return {a.v > b.v ? a.v : b.v}; }
    friend EW_INLINE F32x1 abs(F32x1 a) { return {std::fabs(a.v)}; }
    friend EW_INLINE F32x1 sqrt(F32x1 a) { return {std::sqrt(a.v)}; }
    friend EW_INLINE F32x1 floor(F32x1 a) { return {std::floor(a.v)}; }
    friend EW_INLINE F32x1 ceil(F32x1 a) { return {std::ceil(a.v)}; }
    // Nearest, ties to even. Adding 2^23 drops the fraction: without SSE4.1 there is no instruction for it.
    friend EW_INLINE F32x1 round(F32x1 a) {
        const float large = std::copysign(8388608.0f, a.v), moved = a.v + large;
        return {std::fabs(a.v) < 8388608.0f ? std::copysign(moved - large, a.v) : a.v};
    }
    friend EW_INLINE F32x1 select(Mask mask, F32x1 yes, F32x1 no) { return mask ? yes : no; }
    // a * 2^n for whole n from -252 to 254, in two steps so that each factor is a number.
    friend EW_INLINE F32x1 scale(F32x1 a, F32x1 n) {
        const Int whole = n.to_int(), half = whole.right<1>();
        return a * from_bits((half + Int::all(127)).left<23>()) * from_bits((whole - half + Int::all(127)).left<23>());
    }
    // The magnitude of a with the sign of b.
    friend EW_INLINE F32x1 copysign(F32x1 a, F32x1 b) { return {std::copysign(a.v, b.v)}; }
    friend EW_INLINE float sum(F32x1 a) { return a.v; }
    friend EW_INLINE float largest(F32x1 a) { return a.v; }
};

#if defined(__AVX2__)

struct F32x8 {
    static constexpr int kLanes = 8;
    static constexpr bool kFuses = true;
    using Mask = __m256;
    struct Int {
        __m256i v;
        static EW_INLINE Int all(int32_t x) { return {_mm256_set1_epi32(x)}; }
        static EW_INLINE Int load_u8(const uint8_t* from) {
            return {_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)))};
        }
        static EW_INLINE Int load_s8(const uint8_t* from) {
            return {_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)))};
        }
        EW_INLINE void store(int32_t* to) const { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), v); }
        EW_INLINE void store_low_bytes(uint8_t* to) const {
            const __m256i low = _mm256_shuffle_epi8(v, _mm256_set1_epi32(0x0c080400));
            const __m128i both = _mm_unpacklo_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
            _mm_storel_epi64(reinterpret_cast<__m128i*>(to), both);
        }
        friend EW_INLINE Int operator+(Int a, Int b) { return {_mm256_add_epi32(a.v, b.v)}; }
        friend EW_INLINE Int operator-(Int a, Int b) { return {_mm256_sub_epi32(a.v, b.v)}; }
        friend EW_INLINE Int operator&(Int a, Int b) { return {_mm256_and_si256(a.v, b.v)}; }
        friend EW_INLINE Int operator|(Int a, Int b) { return {_mm256_or_si256(a.v, b.v)}; }
        friend EW_INLINE Int operator^(Int a, Int b) { return {_mm256_xor_si256(a.v, b.v)}; }
        template <int kBits>
        EW_INLINE Int left() const { return {_mm256_slli_epi32(v, kBits)}; }
        template <int kBits>
        EW_INLINE Int right() const { return {_mm256_srai_epi32(v, kBits)}; }
    };

    __m256 v;
    static EW_INLINE F32x8 all(float x) { return {_mm256_set1_ps(x)}; }
    static EW_INLINE F32x8 load(const float* from) { return {_mm256_loadu_ps(from)}; }
    static EW_INLINE __m256i first(int64_t count) {
        return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    }
    static EW_INLINE F32x8 load_some(const float* from, int64_t count) {
        return count >= 8 ? load(from) : F32x8{_mm256_maskload_ps(from, first(count))};
    }
    EW_INLINE void store(float* to) const { _mm256_storeu_ps(to, v); }
    EW_INLINE void store_some(float* to, int64_t count) const {
        if (count >= 8) return store(to);
        _mm256_maskstore_ps(to, first(count), v);
    }
    EW_INLINE Int bits() const { return {_mm256_castps_si256(v)}; }
    static EW_INLINE F32x8 from_bits(Int x) { return {_mm256_castsi256_ps(x.v)}; }
    static EW_INLINE F32x8 from_int(Int x) { return {_mm256_cvtepi32_ps(x.v)}; }
    EW_INLINE Int to_int() const { return {_mm256_cvtps_epi32(v)}; }
    friend EW_INLINE F32x8 operator+(F32x8 a, F32x8 b) { return {_mm256_add_ps(a.v, b.v)}; }
    friend EW_INLINE F32x8 operator-(F32x8 a, F32x8 b) { return {_mm256_sub_ps(a.v, b.v)}; }
    friend EW_INLINE F32x8 operator*(F32x8 a, F32x8 b) { return {_mm256_mul_ps(a.v, b.v)}; }
    friend EW_INLINE F32x8 operator/(F32x8 a, F32x8 b) { return {_mm256_div_ps(a.v, b.v)}; }
    friend EW_INLINE Mask operator<(F32x8 a, F32x8 b) { return _mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ); }
    friend EW_INLINE F32x8 fma(F32x8 a, F32x8 b, F32x8 c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
    friend EW_INLINE F32x8 min(F32x8 a, F32x8 b) { return {_mm256_min_ps(a.v, b.v)}; }
    friend EW_INLINE F32x8 max(F32x8 a, F32x8 b) { return {_mm256_max_ps(a.v, b.v)}; }
    friend EW_INLINE F32x8 abs(F32x8 a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)}; }
    friend EW_INLINE F32x8 sqrt(F32x8 a) { return {_mm256_sqrt_ps(a.v)}; }
    friend EW_INLINE F32x8 floor(F32x8 a) { return {_mm256_floor_ps(a.v)}; }
    friend EW_INLINE F32x8 ceil(F32x8 a) { return {_mm256_ceil_ps(a.v)}; }
    friend EW_INLINE F32x8 round(F32x8 a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
    friend EW_INLINE F32x8 select(Mask mask, F32x8 yes, F32x8 no) { return {_mm256_blendv_ps(no.v, yes.v, mask)}; }
    friend EW_INLINE F32x8 scale(F32x8 a, F32x8 n) {
        const Int whole = n.to_int(), half = whole.right<1>();
        return a * from_bits((half + Int::all(127)).left<23>()) * from_bits((whole - half + Int::all(127)).left<23>());
    }
    friend EW_INLINE F32x8 copysign(F32x8 a, F32x8 b) {
        const __m256 sign = _mm256_set1_ps(-0.0f);
        return {_mm256_or_ps(_mm256_andnot_ps(sign, a.v), _mm256_and_ps(sign, b.v))};
    }
    friend EW_INLINE float sum(F32x8 a) {
        __m128 four = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
        four = _mm_add_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
    }
    friend EW_INLINE float largest(F32x8 a) {
        __m128 four = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
        four = _mm_max_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
    }
};

#endif
#if defined(__AVX512F__)

struct F32x16 {
    static constexpr int kLanes = 16;
    static constexpr bool kFuses = true;
    using Mask = __mmask16;
    struct Int {
        __m512i v;
        static EW_INLINE Int all(int32_t x) { return {_mm512_set1_epi32(x)}; }
        static EW_INLINE Int load_u8(const uint8_t* from) {
            return {_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)))};
        }
        static EW_INLINE Int load_s8(const uint8_t* from) {
            return {_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)))};
        }
        EW_INLINE void store(int32_t* to) const { _mm512_storeu_si512(to, v); }
        EW_INLINE void store_low_bytes(uint8_t* to) const {
            _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(v));
        }
        friend EW_INLINE Int operator+(Int a, Int b) { return {_mm512_add_epi32(a.v, b.v)}; }
        friend EW_INLINE Int operator-(Int a, Int b) { return {_mm512_sub_epi32(a.v, b.v)}; }
        friend EW_INLINE Int operator&(Int a, Int b) { return {_mm512_and_si512(a.v, b.v)}; }
        friend EW_INLINE Int operator|(Int a, Int b) { return {_mm512_or_si512(a.v, b.v)}; }
        friend EW_INLINE Int operator^(Int a, Int b) { return {_mm512_xor_si512(a.v, b.v)}; }
        template <int kBits>
        EW_INLINE Int left() const { return {_mm512_slli_epi32(v, kBits)}; }
        template <int kBits>
        EW_INLINE Int right() const { return {_mm512_srai_epi32(v, kBits)}; }
    };

    __m512 v;
    static EW_INLINE F32x16 all(float x) { return {_mm512_set1_ps(x)}; }
    static EW_INLINE F32x16 load(const float* from) { return {_mm512_loadu_ps(from)}; }
    static EW_INLINE __mmask16 first(int64_t count) {
        return count >= 16 ? 0xffff : static_cast<__mmask16>((1u << (count < 0 ? 0 : count)) - 1);
    }
    static EW_INLINE F32x16 load_some(const float* from, int64_t count) { return {_mm512_maskz_loadu_ps(first(count), from)}; }
    EW_INLINE void store(float* to) const { _mm512_storeu_ps(to, v); }
    EW_INLINE void store_some(float* to, int64_t count) const { _mm512_mask_storeu_ps(to, first(count), v); }
    EW_INLINE Int bits() const { return {_mm512_castps_si512(v)}; }
    static EW_INLINE F32x16 from_bits(Int x) { return {_mm512_castsi512_ps(x.v)}; }
    static EW_INLINE F32x16 from_int(Int x) { return {_mm512_cvtepi32_ps(x.v)}; }
    EW_INLINE Int to_int() const { return {_mm512_cvtps_epi32(v)}; }
    friend EW_INLINE F32x16 operator+(F32x16 a, F32x16 b) { return {_mm512_add_ps(a.v, b.v)}; }
    friend EW_INLINE F32x16 operator-(F32x16 a, F32x16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
    friend EW_INLINE F32x16 operator*(F32x16 a, F32x16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
    friend EW_INLINE F32x16 operator/(F32x16 a, F32x16 b) { return {_mm512_div_ps(a.v, b.v)}; }
    friend EW_INLINE Mask operator<(F32x16 a, F32x16 b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ); }
    friend EW_INLINE F32x16 fma(F32x16 a, F32x16 b, F32x16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
    friend EW_INLINE F32x16 min(F32x16 a, F32x16 b) { return {_mm512_min_ps(a.v, b.v)}; }
    friend EW_INLINE F32x16 max(F32x16 a, F32x16 b) { return {_mm512_max_ps(a.v, b.v)}; }
    friend EW_INLINE F32x16 abs(F32x16 a) { return {_mm512_abs_ps(a.v)}; }
    friend EW_INLINE F32x16 sqrt(F32x16 a) { return {_mm512_sqrt_ps(a.v)}; }
    friend EW_INLINE F32x16 floor(F32x16 a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)}; }
    friend EW_INLINE F32x16 ceil(F32x16 a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC)}; }
    friend EW_INLINE F32x16 round(F32x16 a) {
        return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
    }
    friend EW_INLINE F32x16 select(Mask mask, F32x16 yes, F32x16 no) { return {_mm512_mask_blend_ps(mask, no.v, yes.v)}; }
    friend EW_INLINE F32x16 scale(F32x16 a, F32x16 n) { return {_mm512_scalef_ps(a.v, n.v)}; }
    friend EW_INLINE F32x16 copysign(F32x16 a, F32x16 b) {
        const __m512i sign = _mm512_set1_epi32(INT32_MIN);  // 0xca: b where its bit is set, else a
        return {_mm512_castsi512_ps(
            _mm512_ternarylogic_epi32(sign, _mm512_castps_si512(b.v), _mm512_castps_si512(a.v), 0xca))};
    }
    friend EW_INLINE float sum(F32x16 a) { return _mm512_reduce_add_ps(a.v); }
    friend EW_INLINE float largest(F32x16 a) { return _mm512_reduce_max_ps(a.v); }
};

#endif

}  // namespace
}  // namespace ew

#if defined(__ARM_NEON) || defined(EDGEWISE_VEC4)
#include "simd_four.h"
#endif
