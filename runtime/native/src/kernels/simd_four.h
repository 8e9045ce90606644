// F32x4: four float32 in the compiler's own vectors, with instructions by name where the compiler would not find them. Only for
// simd.h, which says what the members do.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__ARM_NEON)
#include <arm_neon.h>
#endif

namespace ew {
namespace {

struct F32x4 {
    static constexpr int kLanes = 4;
#if defined(__aarch64__) || (defined(__riscv_vector) && defined(__clang__))
    static constexpr bool kFuses = true;
#else
    static constexpr bool kFuses = false;
#endif
#if defined(__ARM_NEON)
    using Floats = float32x4_t;
    using Ints = int32x4_t;
#else
    typedef float Floats __attribute__((vector_size(16)));
    typedef int32_t Ints __attribute__((vector_size(16)));
#endif
    using Mask = Ints;
    struct Int {
        typedef uint32_t Unsigned __attribute__((vector_size(16)));
        typedef uint8_t Bytes __attribute__((vector_size(4)));
        typedef int8_t SignedBytes __attribute__((vector_size(4)));

        Ints v;
        static EW_INLINE Int all(int32_t x) { return {Ints{x, x, x, x}}; }
        static EW_INLINE Int load_u8(const uint8_t* from) {
            Bytes bytes;
            std::memcpy(&bytes, from, sizeof bytes);
            return {__builtin_convertvector(bytes, Ints)};
        }
        static EW_INLINE Int load_s8(const uint8_t* from) {
            SignedBytes bytes;
            std::memcpy(&bytes, from, sizeof bytes);
            return {__builtin_convertvector(bytes, Ints)};
        }
        EW_INLINE void store(int32_t* to) const { std::memcpy(to, &v, sizeof v); }
        EW_INLINE void store_low_bytes(uint8_t* to) const {
            const Bytes bytes = __builtin_convertvector(v, Bytes);
            std::memcpy(to, &bytes, sizeof bytes);
        }
        static EW_INLINE Unsigned wrapping(Int x) { return (Unsigned)x.v; }  // NOLINT: the only spelling that GCC takes
        friend EW_INLINE Int operator+(Int a, Int b) { return {(Ints)(wrapping(a) + wrapping(b))}; }
        friend EW_INLINE Int operator-(Int a, Int b) { return {(Ints)(wrapping(a) - wrapping(b))}; }
        friend EW_INLINE Int operator&(Int a, Int b) { return {a.v & b.v}; }
        friend EW_INLINE Int operator|(Int a, Int b) { return {a.v | b.v}; }
        friend EW_INLINE Int operator^(Int a, Int b) { return {a.v ^ b.v}; }
        template <int kBits>
        EW_INLINE Int left() const { return {(Ints)(wrapping(*this) << kBits)}; }
        template <int kBits>
        EW_INLINE Int right() const { return {v >> kBits}; }
    };

    Floats v;
    static EW_INLINE F32x4 all(float x) { return {Floats{x, x, x, x}}; }
    static EW_INLINE F32x4 load(const float* from) {
        F32x4 out;
        std::memcpy(&out.v, from, sizeof out.v);
        return out;
    }
    static EW_INLINE F32x4 load_some(const float* from, int64_t count) {
        if (count >= 4) return load(from);
        F32x4 out = all(0.0f);
        if (count > 0) std::memcpy(&out.v, from, 4);
        if (count > 1) out.v[1] = from[1];
        if (count > 2) out.v[2] = from[2];
        return out;
    }
    EW_INLINE void store(float* to) const { std::memcpy(to, &v, sizeof v); }
    EW_INLINE void store_some(float* to, int64_t count) const {
        if (count >= 4) return store(to);
        if (count > 0) to[0] = v[0];
        if (count > 1) to[1] = v[1];
        if (count > 2) to[2] = v[2];
    }
    EW_INLINE Int bits() const { return {(Ints)v}; }
    static EW_INLINE F32x4 from_bits(Int x) { return {(Floats)x.v}; }
    static EW_INLINE F32x4 from_int(Int x) { return {__builtin_convertvector(x.v, Floats)}; }
    friend EW_INLINE F32x4 operator+(F32x4 a, F32x4 b) { return {a.v + b.v}; }
    friend EW_INLINE F32x4 operator-(F32x4 a, F32x4 b) { return {a.v - b.v}; }
    friend EW_INLINE F32x4 operator*(F32x4 a, F32x4 b) { return {a.v * b.v}; }
    friend EW_INLINE F32x4 operator/(F32x4 a, F32x4 b) { return {a.v / b.v}; }
    friend EW_INLINE Mask operator<(F32x4 a, F32x4 b) { return (Mask)(a.v < b.v); }
    friend EW_INLINE F32x4 select(Mask mask, F32x4 yes, F32x4 no) {
        return {(Floats)((mask & (Ints)yes.v) | (~mask & (Ints)no.v))};
    }
    friend EW_INLINE F32x4 min(F32x4 a, F32x4 b) { return select(a < b, a, b); }
    friend EW_INLINE F32x4 max(F32x4 a, F32x4 b) { return select(b < a, a, b); }
    friend EW_INLINE F32x4 abs(F32x4 a) { return from_bits(a.bits() & Int::all(INT32_MAX)); }
    friend EW_INLINE F32x4 copysign(F32x4 a, F32x4 b) { return from_bits((a.bits() & Int::all(INT32_MAX)) | (b.bits() & Int::all(INT32_MIN))); }
#if defined(__aarch64__)
    EW_INLINE Int to_int() const { return {vcvtnq_s32_f32(v)}; }
    friend EW_INLINE F32x4 fma(F32x4 a, F32x4 b, F32x4 c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
    friend EW_INLINE F32x4 sqrt(F32x4 a) { return {vsqrtq_f32(a.v)}; }
    friend EW_INLINE F32x4 floor(F32x4 a) { return {vrndmq_f32(a.v)}; }
    friend EW_INLINE F32x4 ceil(F32x4 a) { return {vrndpq_f32(a.v)}; }
    friend EW_INLINE F32x4 round(F32x4 a) { return {vrndnq_f32(a.v)}; }
#else
    // The sum's low bits are the integer: one instruction, where a conversion that rounds to even takes several.
    EW_INLINE Int to_int() const { return (*this + all(12582912.0f)).bits() - all(12582912.0f).bits(); }
#if defined(__riscv_vector) && defined(__clang__)
    friend EW_INLINE F32x4 fma(F32x4 a, F32x4 b, F32x4 c) { return {__builtin_elementwise_fma(a.v, b.v, c.v)}; }
#else
    friend EW_INLINE F32x4 fma(F32x4 a, F32x4 b, F32x4 c) { return a * b + c; }
#endif
#if defined(__clang__)
    friend EW_INLINE F32x4 sqrt(F32x4 a) { return {__builtin_elementwise_sqrt(a.v)}; }
#else
    friend EW_INLINE F32x4 sqrt(F32x4 a) { return {Floats{std::sqrt(a.v[0]), std::sqrt(a.v[1]), std::sqrt(a.v[2]), std::sqrt(a.v[3])}}; }
#endif
#if defined(__wasm_simd128__)
    friend EW_INLINE F32x4 floor(F32x4 a) { return {__builtin_elementwise_floor(a.v)}; }
    friend EW_INLINE F32x4 ceil(F32x4 a) { return {__builtin_elementwise_ceil(a.v)}; }
    friend EW_INLINE F32x4 round(F32x4 a) { return {__builtin_elementwise_roundeven(a.v)}; }
#else
    friend EW_INLINE F32x4 floor(F32x4 a) {
        const F32x4 near = round(a);
        return select(a < near, near - all(1.0f), near);
    }
    friend EW_INLINE F32x4 ceil(F32x4 a) {
        const F32x4 near = round(a);
        return copysign(select(near < a, near + all(1.0f), near), a);
    }
    // Adding 2^23 drops the fraction.
    friend EW_INLINE F32x4 round(F32x4 a) {
        const F32x4 large = all(8388608.0f), signed_large = copysign(large, a);
        return select(abs(a) < large, copysign(a + signed_large - signed_large, a), a);
    }
#endif
#endif
    friend EW_INLINE F32x4 scale(F32x4 a, F32x4 n) {
        const Int whole = n.to_int(), half = whole.right<1>();
        return a * from_bits((half + Int::all(127)).left<23>()) * from_bits((whole - half + Int::all(127)).left<23>());
    }
    friend EW_INLINE float sum(F32x4 a) { return (a.v[0] + a.v[2]) + (a.v[1] + a.v[3]); }
    friend EW_INLINE float largest(F32x4 a) {
        const float low = a.v[0] > a.v[1] ? a.v[0] : a.v[1], high = a.v[2] > a.v[3] ? a.v[2] : a.v[3];
        return low > high ? low : high;
    }
};

}  // namespace
}  // namespace ew
