// conv's and depthwise's Ops on NEON. Only for *_neon*.cpp.
#pragma once

#include "conv_table.h"

namespace ew {
namespace {

struct Neon {
    static constexpr int kLanes = 4, kSpare = 2, kColumns = 4, kLines = 1;
    static constexpr int kChunk = 0, kTogether = 1;
    static constexpr int kSpreads = 0;
    static constexpr bool kPairs = false;
    using Float = F32x4;

    static EW_INLINE void load_bytes(const uint8_t* from, bool is_signed, Float (&values)[4], int64_t count) {
        const int32x4_t four = vreinterpretq_s32_f32(Float::load_some(reinterpret_cast<const float*>(from), count).v);
        if (is_signed) {
            values[0].v = vcvtq_f32_s32(vshrq_n_s32(vshlq_n_s32(four, 24), 24));
            values[1].v = vcvtq_f32_s32(vshrq_n_s32(vshlq_n_s32(four, 16), 24));
            values[2].v = vcvtq_f32_s32(vshrq_n_s32(vshlq_n_s32(four, 8), 24));
            values[3].v = vcvtq_f32_s32(vshrq_n_s32(four, 24));
        } else {
            const uint32x4_t bytes = vreinterpretq_u32_s32(four), byte = vdupq_n_u32(255);
            values[0].v = vcvtq_f32_u32(vandq_u32(bytes, byte));
            values[1].v = vcvtq_f32_u32(vandq_u32(vshrq_n_u32(bytes, 8), byte));
            values[2].v = vcvtq_f32_u32(vandq_u32(vshrq_n_u32(bytes, 16), byte));
            values[3].v = vcvtq_f32_u32(vshrq_n_u32(bytes, 24));
        }
    }

    template <bool kDirect>
    static EW_INLINE void store_bytes(uint8_t* to, const Float (&values)[4], const ConvFinish& finish, int64_t count) {
        int16x8_t low = words(values[0], values[1]), high = words(values[2], values[3]);
        if (!kDirect) {
            const int16x8_t zero_point = vdupq_n_s16(static_cast<int16_t>(finish.y_zero_point));
            low = vqaddq_s16(low, zero_point), high = vqaddq_s16(high, zero_point);
        }
        const uint8x16_t bytes = narrow(low, high, finish, kDirect && finish.clamps);
        // From outputs of four pixels to pixels of four outputs.
        static const uint8_t kOrder[16] = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
        store_pixels(to, vqtbl1q_u8(bytes, vld1q_u8(kOrder)), count);
    }

    static EW_INLINE int16x8_t words(Float a, Float b) {
        return vqmovn_high_s32(vqmovn_s32(vcvtnq_s32_f32(a.v)), vcvtnq_s32_f32(b.v));
    }

    // Saturated, and clamped if asked.
    static EW_INLINE uint8x16_t narrow(int16x8_t low, int16x8_t high, const ConvFinish& finish, bool clamps) {
        if (finish.y == EW_S8) {
            int8x16_t bytes = vqmovn_high_s16(vqmovn_s16(low), high);
            if (clamps) {
                const int8x16_t least = vdupq_n_s8(static_cast<int8_t>(finish.low)), most = vdupq_n_s8(static_cast<int8_t>(finish.high));
                bytes = vmaxq_s8(vminq_s8(bytes, most), least);
            }
            return vreinterpretq_u8_s8(bytes);
        }
        uint8x16_t bytes = vqmovun_high_s16(vqmovun_s16(low), high);
        if (clamps) {
            const uint8x16_t least = vdupq_n_u8(static_cast<uint8_t>(finish.low)), most = vdupq_n_u8(static_cast<uint8_t>(finish.high));
            bytes = vmaxq_u8(vminq_u8(bytes, most), least);
        }
        return bytes;
    }

    static EW_INLINE void store_pixels(uint8_t* to, uint8x16_t bytes, int64_t count) {
        if (count >= 4) vst1q_u8(to, bytes);
        else Float{vreinterpretq_f32_u8(bytes)}.store_some(reinterpret_cast<float*>(to), count);
    }
};

// Instructions that take one of four lanes of weights: eight outputs by three vectors leave registers for the operands.
struct NeonByLane : Neon {
    static constexpr int kVectors = 6;
    static constexpr bool kByLane = true;
    static constexpr int wide(int vectors) { return vectors == 1 ? 16 : vectors <= 3 ? 8 : 4; }
};

struct NeonFloat : NeonByLane {
    using Sum = float32x4_t;
    using X = float32x4_t;
    using W = float32x4_t;

    static EW_INLINE X load_x(const uint8_t* from) { return vld1q_f32(reinterpret_cast<const float*>(from)); }
    static EW_INLINE X broadcast_x(const uint8_t* from) { return vld1q_dup_f32(reinterpret_cast<const float*>(from)); }
    static EW_INLINE W load_w(const uint8_t* from) { return load_x(from); }
    template <int kOutputs>
    static EW_INLINE W load_weights(const uint8_t* from) {
        const auto* floats = reinterpret_cast<const float*>(from);
        if constexpr (kOutputs == 4) return vld1q_f32(floats);
        else if constexpr (kOutputs == 2) return vcombine_f32(vld1_f32(floats), vdup_n_f32(0));
        else return vld1q_dup_f32(floats);
    }
    static EW_INLINE Sum zero() { return vdupq_n_f32(0); }
    static EW_INLINE Sum add(Sum a, Sum b) { return vaddq_f32(a, b); }
    static EW_INLINE Sum multiply_add(Sum sum, X x, W w) { return vfmaq_f32(sum, x, w); }
    template <int kLane>
    static EW_INLINE Sum multiply_lane(Sum sum, X x, W w) { return vfmaq_laneq_f32(sum, x, w, kLane); }
    static EW_INLINE void store_sum(uint8_t* to, Sum sum) { vst1q_f32(reinterpret_cast<float*>(to), sum); }
    static EW_INLINE Sum load_sum(const uint8_t* from) { return load_x(from); }
    static EW_INLINE Float to_float(Sum sum) { return {sum}; }
};

// Sums of 32 bits, each a register.
struct NeonInt {
    using Sum = int32x4_t;

    static EW_INLINE Sum zero() { return vdupq_n_s32(0); }
    static EW_INLINE Sum all(int32_t value) { return vdupq_n_s32(value); }
    static EW_INLINE Sum load_begins(const int32_t* from) { return vld1q_s32(from); }
    static EW_INLINE Sum of_lanes(int32x4_t lanes) { return lanes; }
    static EW_INLINE int32x4_t lanes_of(Sum sum) { return sum; }
    static EW_INLINE Sum add(Sum a, Sum b) { return vaddq_s32(a, b); }
    static EW_INLINE void store_sum(uint8_t* to, Sum sum) { vst1q_s32(reinterpret_cast<int32_t*>(to), sum); }
    static EW_INLINE Sum load_sum(const uint8_t* from) { return vld1q_s32(reinterpret_cast<const int32_t*>(from)); }
    static EW_INLINE F32x4 to_float(Sum sum) { return {vcvtq_f32_s32(sum)}; }
};

// Weights of 8 bits.
struct NeonBytes {
    using W = int8x16_t;

    static EW_INLINE W load_w(const uint8_t* from) { return vld1q_s8(reinterpret_cast<const int8_t*>(from)); }
    static EW_INLINE W broadcast_w(const uint8_t* from) { return vreinterpretq_s8_s32(vld1q_dup_s32(reinterpret_cast<const int32_t*>(from))); }
    template <int kOutputs>
    static EW_INLINE W load_weights(const uint8_t* from) {
        if constexpr (kOutputs == 4) return load_w(from);
        else if constexpr (kOutputs == 2) return vcombine_s8(vld1_s8(reinterpret_cast<const int8_t*>(from)), vdup_n_s8(0));
        else return broadcast_w(from);
    }
};

// Both factors are signed: tiles hold x less 128.
struct NeonShifted : NeonBytes {
    using X = int8x16_t;
    static constexpr bool kShifts = true, kHoldsShifted = true;

    static EW_INLINE X load_x(const uint8_t* from) { return vld1q_s8(reinterpret_cast<const int8_t*>(from)); }
    static EW_INLINE X broadcast_x(const uint8_t* from) { return vreinterpretq_s8_s32(vld1q_dup_s32(reinterpret_cast<const int32_t*>(from))); }
    static EW_INLINE X x_of(uint8x16_t bytes) { return vreinterpretq_s8_u8(veorq_u8(bytes, vdupq_n_u8(128))); }
};

}  // namespace
}  // namespace ew
