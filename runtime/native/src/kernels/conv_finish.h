// From sums to the output: scale, bias, activation, residual, quantization. Included by each instruction set's file.
//
// An Op says how sums become floats and how bytes are packed:
//   using Float (simd.h); using Sum; static Float to_float(Sum), Sum load_sum(const uint8_t*);
//   static void store_bytes(uint8_t*, const Float (&)[4], bool is_signed, bool clamps, int low, int high, int64_t count):
//   rounds,
//     saturates (what fits an int32), and clamps if asked;
//   static void load_bytes(const uint8_t*, bool is_signed, Float (&)[4], int64_t count): values of 4 channels.
#pragma once

#include "activation.h"
#include "conv.h"

// GCC would make a copy for each constant that a caller hands in.
#if defined(__clang__)
#define EW_ONCE __attribute__((noinline))
#else
#define EW_ONCE __attribute__((noinline, noclone))
#endif

namespace ew {
namespace {

EW_INLINE int32_t four_bytes(const uint8_t* from) {
    int32_t value;
    std::memcpy(&value, from, 4);
    return value;
}

template <Function kFunction, typename V>
EW_INLINE void apply_to(V (&v)[4], float alpha, float beta) {
    for (V& one : v) one = apply<kFunction>(one, V::all(alpha), V::all(beta));
}

template <typename V>
EW_ONCE void activate(const ConvFinish& finish, V (&v)[4]) {
#define EW_CASE(f) \
    case Function::f: return apply_to<Function::f>(v, finish.alpha, finish.beta)
    switch (finish.activation) {
        EW_CASE(kRelu);
        EW_CASE(kClip);
        EW_CASE(kGelu);
        EW_CASE(kGeluTanh);
        EW_CASE(kSilu);
        EW_CASE(kSigmoid);
        EW_CASE(kHardSigmoid);
        EW_CASE(kHardSwish);
        EW_CASE(kTanh);
        EW_CASE(kLeakyRelu);
        default: return;
    }
#undef EW_CASE
}

template <typename V, int kCount>
EW_INLINE void round_inner(const ConvFinish& finish, V (&v)[kCount]) {
    const V inverse = V::all(finish.inner_inverse_scale), scale = V::all(finish.inner_scale), shift = V::all(finish.inner_shift);
    const V low = V::all(finish.inner_low), high = V::all(finish.inner_high);
    for (V& one : v) one = fma(min(max(round(one * inverse), low), high), scale, shift);
}

template <typename Op>
EW_INLINE void add_residual(const ConvFinish& finish, const ConvStretch& stretch, int64_t at, typename Op::Float (&v)[4]) {
    using V = typename Op::Float;
    if (finish.rounds) round_inner(finish, v);
    const int64_t count = stretch.pixels - at;
    const V scale = V::all(finish.residual_scale);
    if (finish.residual == EW_F32) {
        for (int64_t o = 0; o < 4 && o < stretch.outputs; ++o) {
            const float* from = reinterpret_cast<const float*>(stretch.residual + o * stretch.residual_plane) + at;
            v[o] = fma(V::load_some(from, count), scale, v[o]);
        }
        return;
    }
    V bytes[4];
    Op::load_bytes(stretch.residual + at * 4, finish.residual == EW_S8, bytes, count);
    const V zero_point = V::all(finish.residual_zero_point);
    for (int o = 0; o < 4; ++o) v[o] = fma(bytes[o] - zero_point, scale, v[o]);
}

template <typename Op>
EW_INLINE void store_floats(const ConvStretch& stretch, int64_t at, typename Op::Float (&v)[4]) {
    using V = typename Op::Float;
    const int64_t count = stretch.pixels - at;
    for (int64_t o = 0; o < 4 && o < stretch.outputs; ++o) {
        float* to = reinterpret_cast<float*>(stretch.y + o * stretch.y_plane) + at;
        if (count >= V::kLanes) v[o].store(to);
        else v[o].store_some(to, count);
    }
}

// finish.direct: 4 outputs of a vector of pixels.
template <typename Op>
EW_INLINE void store_direct(const ConvFinish& finish, const ConvStretch& stretch, int64_t at, typename Op::Float (&v)[4]) {
    using V = typename Op::Float;
    if (finish.y != EW_F32) {
        return Op::store_bytes(stretch.y + at * 4, v, finish.y == EW_S8, finish.clamps, finish.low, finish.high,
                               stretch.pixels - at);
    }
    if (finish.clamps) {
        for (V& one : v) one = min(V::all(finish.beta), max(V::all(finish.alpha), one));
    }
    store_floats<Op>(stretch, at, v);
}

// What does not fit an int32, or is NaN, becomes a bound.
template <typename V>
EW_INLINE V in_range(V value) {
    return max(min(value, V::all(65536.0f)), V::all(-65536.0f));
}

template <typename Op>
EW_INLINE void store(const ConvFinish& finish, const ConvStretch& stretch, int64_t at, typename Op::Float (&v)[4]) {
    using V = typename Op::Float;
    if (finish.y == EW_F32) return store_floats<Op>(stretch, at, v);
    for (V& one : v)
        one = round(in_range(one * V::all(finish.y_inverse_scale))) + V::all(static_cast<float>(finish.y_zero_point));
    Op::store_bytes(stretch.y + at * 4, v, finish.y == EW_S8, false, 0, 0, stretch.pixels - at);
}

// Sums [4][row] of which stretch.pixels and stretch.outputs are wanted.
template <typename Op>
EW_ONCE void finish_block(const ConvFinish& finish, const void* sums, int64_t row, const ConvStretch& stretch) {
    using V = typename Op::Float;
    const auto* from = static_cast<const uint8_t*>(sums);
    for (int64_t at = 0; at < stretch.pixels; at += V::kLanes) {
        V v[4];
        for (int o = 0; o < 4; ++o) {
            const V sum = Op::to_float(Op::load_sum(from + (o * row + at) * 4));
            v[o] = fma(sum, V::all(stretch.scale[o]), V::all(stretch.bias[o]));
        }
        if (finish.direct) {
            if (stretch.residual) add_residual<Op>(finish, stretch, at, v);
            store_direct<Op>(finish, stretch, at, v);
            continue;
        }
        if (stretch.residual && finish.residual_first) add_residual<Op>(finish, stretch, at, v);
        if (finish.activation != Function::kNone) activate(finish, v);
        if (stretch.residual && !finish.residual_first) add_residual<Op>(finish, stretch, at, v);
        store<Op>(finish, stretch, at, v);
    }
}

}  // namespace
}  // namespace ew
