// The Op for 8 bits with dot products of signed bytes. Only for *_neon_dotprod.cpp.
#pragma once

#include "conv_neon.h"

namespace ew {
namespace {

struct NeonDotprod : NeonByLane, NeonShifted, NeonInt {
    static EW_INLINE Sum multiply_add(Sum sum, X x, W w) { return vdotq_s32(sum, x, w); }
    template <int kLane>
    static EW_INLINE Sum multiply_lane(Sum sum, X x, W w) { return vdotq_laneq_s32(sum, x, w, kLane); }
};

}  // namespace
}  // namespace ew
