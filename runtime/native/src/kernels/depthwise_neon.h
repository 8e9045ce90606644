// depthwise in 8 bits over an Op of conv's. Only for *_neon*.cpp. depthwise_avx512vnni.cpp says how the pixels lie.
#pragma once

#include "conv_neon.h"
#include "depthwise.h"

namespace ew {
namespace {

constexpr int kShiftedPixels = 4;

EW_INLINE uint8x16_t transposition(const uint8_t* channels) {
    uint8_t order[16];
    for (int i = 0; i < 16; ++i) order[i] = static_cast<uint8_t>(i % 4 * 4 + channels[i / 4]);
    return vld1q_u8(order);
}

// Where x is taken less 128: 128 times the sum of each channel's weights.
template <typename Op>
EW_INLINE int32x4_t begins_of(const DepthwiseRow& input) {
    int32x4_t sums = vdupq_n_s32(0);
    if constexpr (!kShiftsX<Op>) return sums;
    for (int64_t t = 0; t < input.taps; ++t) sums = vpadalq_s16(sums, vpaddlq_s8(Op::load_w(input.weights + t * 16)));
    return vshlq_n_s32(sums, 7);
}

// sums[k]: lane c is channel c of pixel `first` + k.
template <typename Op>
EW_INLINE void sum_vector(const DepthwiseRow& input, int64_t first, uint8x16_t order, int32x4_t begins,
                          int32x4_t (&sums)[kShiftedPixels]) {
    typename Op::Sum s[kShiftedPixels];
    for (auto& sum : s) sum = Op::of_lanes(begins);
    const uint8_t* x = input.x + first * 4;
    for (int64_t t = 0; t < input.taps; ++t) {
        const typename Op::W weight = Op::load_w(input.weights + t * 16);
        const uint8_t* from = x + input.offsets[t];
#pragma GCC unroll 4
        for (int k = 0; k < kShiftedPixels; ++k)
            s[k] = Op::multiply_add(s[k], Op::x_of(vqtbl1q_u8(vld1q_u8(from + k * 4), order)), weight);
    }
#pragma GCC unroll 4
    for (int k = 0; k < kShiftedPixels; ++k) sums[k] = Op::lanes_of(s[k]);
}

template <typename Op>
void sums_s8(const DepthwiseRow& input, int64_t vectors, int64_t row, float* sums) {
    const uint8x16_t order = transposition(input.channels);
    const int32x4_t begins = begins_of<Op>(input);
    for (int64_t v = 0; v < vectors; ++v, sums += 4) {
        int32x4_t s[kShiftedPixels];
        sum_vector<Op>(input, v * 4, order, begins, s);
        // From pixels of four channels to channels of four pixels.
        const int64x2_t low01 = vreinterpretq_s64_s32(vzip1q_s32(s[0], s[1])), high01 = vreinterpretq_s64_s32(vzip2q_s32(s[0], s[1]));
        const int64x2_t low23 = vreinterpretq_s64_s32(vzip1q_s32(s[2], s[3])), high23 = vreinterpretq_s64_s32(vzip2q_s32(s[2], s[3]));
        vst1q_f32(sums, vcvtq_f32_s32(vreinterpretq_s32_s64(vzip1q_s64(low01, low23))));
        vst1q_f32(sums + row, vcvtq_f32_s32(vreinterpretq_s32_s64(vzip2q_s64(low01, low23))));
        vst1q_f32(sums + 2 * row, vcvtq_f32_s32(vreinterpretq_s32_s64(vzip1q_s64(high01, high23))));
        vst1q_f32(sums + 3 * row, vcvtq_f32_s32(vreinterpretq_s32_s64(vzip2q_s64(high01, high23))));
    }
}

template <typename Op>
void direct_s8(const DepthwiseRow& input, const ConvFinish& finish, const float* scale, const float* bias, int64_t pixels,
               uint8_t* y) {
    const uint8x16_t order = transposition(input.channels);
    const int32x4_t begins = begins_of<Op>(input);
    const F32x4 scales = F32x4::load(scale), biases = F32x4::load(bias);
    for (int64_t p = 0; p < pixels; p += 4) {
        int32x4_t s[kShiftedPixels];
        sum_vector<Op>(input, p, order, begins, s);
        F32x4 v[kShiftedPixels];
        for (int k = 0; k < kShiftedPixels; ++k) v[k] = fma(F32x4{vcvtq_f32_s32(s[k])}, scales, biases);
        Neon::store_pixels(y + p * 4, Neon::narrow(Neon::words(v[0], v[1]), Neon::words(v[2], v[3]), finish, true), pixels - p);
    }
}

}  // namespace
}  // namespace ew
