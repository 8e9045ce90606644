// conv in the compiler's vectors of four: NEON of 32-bit ARM, RISC-V's V, SIMD of WebAssembly. Only what the compiler does not
// find by itself is spelled by processor.
#if defined(EDGEWISE_VEC4)
#include "conv_pack.h"
#include "conv_table.h"
#include "dynamic_block.h"
#if defined(__wasm_simd128__)
#include <wasm_simd128.h>
#endif

namespace ew {
namespace {

struct Vec4 {
    static constexpr int kLanes = 4, kSpare = 2, kColumns = 2, kLines = 1;
    static constexpr int kChunk = 0, kTogether = 1;
    static constexpr int kSpreads = 0;
    static constexpr bool kPairs = false;
    using Float = F32x4;
    using Ints = F32x4::Ints;

    static EW_INLINE Ints load(const uint8_t* from) {
        Ints v;
        std::memcpy(&v, from, sizeof v);
        return v;
    }

    static EW_INLINE void load_bytes(const uint8_t* from, bool is_signed, Float (&values)[4], int64_t count) {
        const Ints four = Float::load_some(reinterpret_cast<const float*>(from), count).bits().v;
        for (int o = 0; o < 4; ++o) {
            const Ints byte = is_signed ? four << (24 - 8 * o) >> 24 : four >> (8 * o) & 255;
            values[o] = Float::from_int({byte});
        }
    }

    template <bool kDirect>
    static EW_INLINE void store_bytes(uint8_t* to, const Float (&values)[4], const ConvFinish& finish, int64_t count) {
        const bool clamps = kDirect && finish.clamps;
        const int32_t low = clamps ? finish.low : finish.y == EW_S8 ? -128 : 0, high = clamps ? finish.high : low + 255;
        Ints bytes{0, 0, 0, 0};
        for (int o = 0; o < 4; ++o) {
            const Float byte = kDirect ? values[o] : round(values[o]) + Float::all(static_cast<float>(finish.y_zero_point));
            const Float fits = min(Float::all(static_cast<float>(high)), max(byte, Float::all(static_cast<float>(low))));
            // From 2^23 on a float has no fraction: adding rounds, and leaves the integer in the low bits.
            bytes |= ((fits + Float::all(12582912.0f)).bits().v & 255) << (8 * o);
        }
        Float::from_bits({bytes}).store_some(reinterpret_cast<float*>(to), count);
    }
};

struct Vec4Float : Vec4 {
    using Sum = Float::Floats;
    using X = Float::Floats;
    using W = Float::Floats;
#if defined(__arm__)
    static constexpr int kVectors = 2;  // of 16 registers: 8 sums
    static constexpr int wide(int vectors) { return vectors == 1 ? 8 : 4; }
    static constexpr bool kByLane = true;  // multiplying by one of four lanes costs no broadcast
    template <int kOutputs>
    static EW_INLINE W load_weights(const uint8_t* from) {
        return Float::load_some(reinterpret_cast<const float*>(from), kOutputs).v;
    }
    template <int kLane>
    static EW_INLINE Sum multiply_lane(Sum sum, X x, W w) {
        return sum + x * __builtin_shufflevector(w, w, kLane, kLane, kLane, kLane);
    }
#else
    static constexpr int kVectors = 4;
    static constexpr int wide(int vectors) { return vectors == 1 ? 16 : vectors == 2 ? 8 : 4; }
#endif

    static EW_INLINE X load_x(const uint8_t* from) { return Float::from_bits({load(from)}).v; }
    static EW_INLINE X broadcast_x(const uint8_t* from) { return Float::all(F32x1::load(reinterpret_cast<const float*>(from)).v).v; }
    static EW_INLINE W load_w(const uint8_t* from) { return load_x(from); }
    static EW_INLINE W broadcast_w(const uint8_t* from) { return broadcast_x(from); }
    static EW_INLINE Sum zero() { return Sum{0, 0, 0, 0}; }
    static EW_INLINE Sum add(Sum a, Sum b) { return a + b; }
    static EW_INLINE Sum multiply_add(Sum sum, X x, W w) { return fma(Float{x}, Float{w}, Float{sum}).v; }
    static EW_INLINE void store_sum(uint8_t* to, Sum sum) { std::memcpy(to, &sum, sizeof sum); }
    static EW_INLINE Sum load_sum(const uint8_t* from) { return load_x(from); }
    static EW_INLINE Float to_float(Sum sum) { return {sum}; }
};

#if defined(__arm__)
// As NeonWide of aarch64 (conv_neon_wide.h): products of 16 bits are added in pairs to 32, and a sum is in two parts. x less 128 is made as it is
// loaded.
struct Vec4Int : Vec4 {
    static constexpr int kVectors = 1, kColumns = 1;
    static constexpr bool kShifts = true;
    static constexpr int wide(int) { return 4; }
    struct Sum {
        int32x4_t low, high;
    };
    using X = int8x16_t;
    using W = int8x16_t;

    static EW_INLINE X shifted(uint8x16_t x) { return vreinterpretq_s8_u8(veorq_u8(x, vdupq_n_u8(128))); }
    static EW_INLINE uint8x16_t broadcast(const uint8_t* from) { return vreinterpretq_u8_s32(vdupq_n_s32(four_bytes(from))); }
    static EW_INLINE X load_x(const uint8_t* from) { return shifted(vld1q_u8(from)); }
    static EW_INLINE X broadcast_x(const uint8_t* from) { return shifted(broadcast(from)); }
    static EW_INLINE W load_w(const uint8_t* from) { return vreinterpretq_s8_u8(vld1q_u8(from)); }
    static EW_INLINE W broadcast_w(const uint8_t* from) { return vreinterpretq_s8_u8(broadcast(from)); }
    static EW_INLINE Sum multiply_add(const Sum& sum, X x, W w) {
        return {vpadalq_s16(sum.low, vmull_s8(vget_low_s8(x), vget_low_s8(w))), vpadalq_s16(sum.high, vmull_s8(vget_high_s8(x), vget_high_s8(w)))};
    }
    static EW_INLINE Sum of_lanes(int32x4_t lanes) {
        const int32x4x2_t both = vzipq_s32(lanes, vdupq_n_s32(0));
        return {both.val[0], both.val[1]};
    }
    static EW_INLINE Ints lanes_of(const Sum& sum) {
        return vcombine_s32(vpadd_s32(vget_low_s32(sum.low), vget_high_s32(sum.low)), vpadd_s32(vget_low_s32(sum.high), vget_high_s32(sum.high)));
    }
    static EW_INLINE Sum zero() { return {vdupq_n_s32(0), vdupq_n_s32(0)}; }
    static EW_INLINE Sum all(int32_t value) { return of_lanes(vdupq_n_s32(value)); }
    static EW_INLINE Sum load_begins(const int32_t* from) { return of_lanes(vld1q_s32(from)); }
    static EW_INLINE Sum add(const Sum& a, const Sum& b) { return {vaddq_s32(a.low, b.low), vaddq_s32(a.high, b.high)}; }
    static EW_INLINE void store_sum(uint8_t* to, const Sum& sum) {
        const Ints lanes = lanes_of(sum);
        std::memcpy(to, &lanes, sizeof lanes);
    }
    static EW_INLINE Sum load_sum(const uint8_t* from) { return of_lanes(load(from)); }
    static EW_INLINE Float to_float(const Sum& sum) { return Float::from_int({lanes_of(sum)}); }
};
#else
// WebAssembly multiplies pairs of 16 bits and adds their products; else each channel is multiplied in 32 bits.
struct Vec4Int : Vec4 {
    using Sum = Float::Int;  // wraps
    static constexpr int kVectors = 3;
    static constexpr int wide(int vectors) { return vectors == 3 ? 4 : 8; }

#if defined(__wasm_simd128__)
    struct X {
        v128_t even, odd;  // channels 0 and 2, 1 and 3
    };
    using W = X;

    static EW_INLINE X x_of(v128_t bytes) { return {wasm_v128_and(bytes, wasm_i16x8_splat(255)), wasm_u16x8_shr(bytes, 8)}; }
    static EW_INLINE W w_of(v128_t bytes) { return {wasm_i16x8_shr(wasm_i16x8_shl(bytes, 8), 8), wasm_i16x8_shr(bytes, 8)}; }
    static EW_INLINE X load_x(const uint8_t* from) { return x_of(wasm_v128_load(from)); }
    static EW_INLINE X broadcast_x(const uint8_t* from) { return x_of(wasm_v128_load32_splat(from)); }
    static EW_INLINE W load_w(const uint8_t* from) { return w_of(wasm_v128_load(from)); }
    static EW_INLINE W broadcast_w(const uint8_t* from) { return w_of(wasm_v128_load32_splat(from)); }
    static EW_INLINE Sum multiply_add(Sum sum, const X& x, const W& w) {
        return sum + Sum{(Ints)wasm_i32x4_dot_i16x8(x.even, w.even)} + Sum{(Ints)wasm_i32x4_dot_i16x8(x.odd, w.odd)};
    }
#else
    struct X {
        Ints at[4];  // by channel
    };
    using W = X;

    static EW_INLINE X load_x(const uint8_t* from) {
        const Ints four = load(from);
        return {{four & 255, four >> 8 & 255, four >> 16 & 255, four >> 24 & 255}};
    }
    static EW_INLINE W load_w(const uint8_t* from) {
        const Ints four = load(from);
        return {{four << 24 >> 24, four << 16 >> 24, four << 8 >> 24, four >> 24}};
    }
    static EW_INLINE X broadcast_x(const uint8_t* from) {
        return {{Ints{} + from[0], Ints{} + from[1], Ints{} + from[2], Ints{} + from[3]}};
    }
    static EW_INLINE W broadcast_w(const uint8_t* from) {
        const auto* w = reinterpret_cast<const int8_t*>(from);
        return {{Ints{} + w[0], Ints{} + w[1], Ints{} + w[2], Ints{} + w[3]}};
    }
    static EW_INLINE Sum multiply_add(Sum sum, const X& x, const W& w) {
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) sum = sum + Sum{x.at[i] * w.at[i]};
        return sum;
    }
#endif

    static EW_INLINE Sum zero() { return Sum::all(0); }
    static EW_INLINE Sum add(Sum a, Sum b) { return a + b; }
    static EW_INLINE void store_sum(uint8_t* to, Sum sum) { std::memcpy(to, &sum.v, sizeof sum.v); }
    static EW_INLINE Sum load_sum(const uint8_t* from) { return {load(from)}; }
    static EW_INLINE Float to_float(Sum sum) { return Float::from_int(sum); }
};
#endif

constexpr ConvKernel integer_kernel() {
    ConvKernel kernel = kernel_of<Vec4Int>("s8_vec4", pack_generic, fill_generic);
    kernel.shifts = kShiftsX<Vec4Int>;
    return kernel;
}

}  // namespace

extern const ConvKernel kConvS8Vec4, kConvF32Vec4;
const ConvKernel kConvS8Vec4 = integer_kernel();
const ConvKernel kConvF32Vec4 = kernel_of<Vec4Float>("f32_vec4", pack_generic, fill_generic);

extern const DynamicKernel kDynamicVec4;
const DynamicKernel kDynamicVec4 = dynamic_kernel_of<Vec4Int, kConvF32Vec4>("dynamic_vec4");

}  // namespace ew
#endif
