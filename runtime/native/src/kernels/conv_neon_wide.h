// The Op for 8 bits without dot products. Only for *_neon.cpp.
#pragma once

#include "conv_neon.h"

namespace ew {
namespace {

// Products of 16 bits are added in pairs to 32, so that any weights are exact: a sum is in two parts, neighbouring lanes of which
// belong together. What is less than a product of -128 by -128 would leave room to add two products first.
struct NeonWide : Neon, NeonShifted {
    static constexpr int kVectors = 3;
    struct Sum {
        int32x4_t low, high;
    };

    static constexpr int wide(int vectors) { return vectors == 1 ? 8 : 4; }

    static EW_INLINE Sum zero() { return {vdupq_n_s32(0), vdupq_n_s32(0)}; }
    static EW_INLINE Sum of_lanes(int32x4_t lanes) {
        const int32x4_t none = vdupq_n_s32(0);
        return {vzip1q_s32(lanes, none), vzip2q_s32(lanes, none)};
    }
    static EW_INLINE int32x4_t lanes_of(const Sum& sum) { return vpaddq_s32(sum.low, sum.high); }
    static EW_INLINE Sum all(int32_t value) { return of_lanes(vdupq_n_s32(value)); }
    static EW_INLINE Sum load_begins(const int32_t* from) { return of_lanes(vld1q_s32(from)); }
    static EW_INLINE Sum add(const Sum& a, const Sum& b) { return {vaddq_s32(a.low, b.low), vaddq_s32(a.high, b.high)}; }
    static EW_INLINE Sum multiply_add(const Sum& sum, X x, W w) {
        return {vpadalq_s16(sum.low, vmull_s8(vget_low_s8(x), vget_low_s8(w))), vpadalq_s16(sum.high, vmull_high_s8(x, w))};
    }
    static EW_INLINE void store_sum(uint8_t* to, const Sum& sum) { vst1q_s32(reinterpret_cast<int32_t*>(to), lanes_of(sum)); }
    static EW_INLINE Sum load_sum(const uint8_t* from) { return of_lanes(vld1q_s32(reinterpret_cast<const int32_t*>(from))); }
    static EW_INLINE Float to_float(const Sum& sum) { return {vcvtq_f32_s32(lanes_of(sum))}; }
};

}  // namespace
}  // namespace ew
