// The Op for 8 bits with dot products of unsigned by signed bytes. Only for *_neon_i8mm.cpp.
#pragma once

#include "conv_neon.h"

namespace ew {
namespace {

struct NeonI8mm : NeonByLane, NeonBytes, NeonInt {
    using X = uint8x16_t;

    static EW_INLINE X load_x(const uint8_t* from) { return vld1q_u8(from); }
    static EW_INLINE X broadcast_x(const uint8_t* from) { return vreinterpretq_u8_s32(vld1q_dup_s32(reinterpret_cast<const int32_t*>(from))); }
    static EW_INLINE X x_of(uint8x16_t bytes) { return bytes; }
    static EW_INLINE Sum multiply_add(Sum sum, X x, W w) { return vusdotq_s32(sum, x, w); }
    template <int kLane>
    static EW_INLINE Sum multiply_lane(Sum sum, X x, W w) { return vusdotq_laneq_s32(sum, x, w, kLane); }
};

}  // namespace
}  // namespace ew
