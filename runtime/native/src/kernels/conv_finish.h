// From sums to the output: scale, bias, activation, residual, quantization. Included by each instruction set's file.
//
// An Op says how sums become floats and how bytes are packed:
//   using Float (simd.h);
//   static void store_bytes<kDirect>(uint8_t*, const Float (&)[4], const ConvFinish&, int64_t count): rounds, saturates (what
//     fits an int32), and clamps if asked (kDirect) or adds y's zero point (else);
//   static void load_bytes(const uint8_t*, bool is_signed, Float (&)[4], int64_t count): values of 4 channels;
//   using Ends, where there is one: the Op whose ends it shares, since ends take sums as float32.
#pragma once

#include <type_traits>

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

template <typename Op, typename = void>
struct EndsOfOp {
    using Type = Op;
};
template <typename Op>
struct EndsOfOp<Op, std::void_t<typename Op::Ends>> {
    using Type = typename Op::Ends;
};
template <typename Op>
using EndsOf = typename EndsOfOp<Op>::Type;

EW_INLINE int32_t four_bytes(const uint8_t* from) {
    int32_t value;
    std::memcpy(&value, from, 4);
    return value;
}

// Calls call(activation), a function of a vector: a switch outside of the loop.
template <typename V, typename Call>
EW_INLINE void with_activation(const ConvFinish& finish, Call&& call) {
    const V alpha = V::all(finish.alpha), beta = V::all(finish.beta);
#define EW_CASE(f) \
    case Function::f: return call([=](V x) EW_LAMBDA_INLINE { return apply<Function::f>(x, alpha, beta); })
    switch (finish.activation) {
        EW_CASE(kRelu);
        EW_CASE(kClip);
        case Function::kGelu:
            if (finish.coarse) return call([](V x) EW_LAMBDA_INLINE { return gelu_coarse(x); });
            return call([=](V x) EW_LAMBDA_INLINE { return apply<Function::kGelu>(x, alpha, beta); });
        EW_CASE(kGeluTanh);
        EW_CASE(kSilu);
        EW_CASE(kSigmoid);
        EW_CASE(kHardSigmoid);
        EW_CASE(kHardSwish);
        EW_CASE(kTanh);
        EW_CASE(kLeakyRelu);
        default: return call([](V x) EW_LAMBDA_INLINE { return x; });
    }
#undef EW_CASE
}

template <bool kScaled, typename V, int kCount>
EW_INLINE void round_inner(const ConvFinish& finish, V (&v)[kCount]) {
    const V inverse = V::all(finish.inner_inverse_scale), scale = V::all(finish.inner_scale), shift = V::all(finish.inner_shift);
    const V low = V::all(finish.inner_low), high = V::all(finish.inner_high);
    for (V& one : v) {
        if (kScaled) one = one * inverse;
        one = fma(min(max(round(one), low), high), scale, shift);
    }
}

// kDirect: inner_inverse_scale is 1, and the zero point of the residual is in the bias.
template <typename Op, bool kDirect>
EW_INLINE void add_residual(const ConvFinish& finish, const ConvStretch& stretch, int64_t at, typename Op::Float (&v)[4]) {
    using V = typename Op::Float;
    if (finish.rounds) round_inner<!kDirect>(finish, v);
    const int64_t count = stretch.pixels - at;
    const V scale = V::all(finish.residual_scale);
    if (finish.residual == EW_F32) {
        for (int64_t o = 0; o < 4 && o < stretch.outputs; ++o) {
            const float* from = reinterpret_cast<const float*>(stretch.residual + o * stretch.residual_plane) + at;
            const V other = V::load_some(from, count);
            v[o] = !kDirect && finish.gated ? v[o] * other : fma(other, scale, v[o]);
        }
        return;
    }
    V bytes[4];
    Op::load_bytes(stretch.residual + at * 4, finish.residual == EW_S8, bytes, count);
    const V zero_point = V::all(finish.residual_zero_point);
    for (int o = 0; o < 4; ++o) v[o] = fma(kDirect ? bytes[o] : bytes[o] - zero_point, scale, v[o]);
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
    if (finish.y != EW_F32) return Op::template store_bytes<true>(stretch.y + at * 4, v, finish, stretch.pixels - at);
    if (finish.clamps) {
        for (V& one : v) one = min(V::all(finish.beta), max(V::all(finish.alpha), one));
    }
    store_floats<Op>(stretch, at, v);
}

// What does not fit an int32 becomes the least one: that is the right bound but for large values. NaN becomes a bound.
template <typename V>
EW_INLINE V in_range(V level) {
    return min(level, V::all(65536.0f));
}

template <typename Op>
EW_INLINE void store(const ConvFinish& finish, const ConvStretch& stretch, int64_t at, typename Op::Float (&v)[4]) {
    using V = typename Op::Float;
    if (finish.y == EW_F32) return store_floats<Op>(stretch, at, v);
    for (V& one : v) one = in_range(one * V::all(finish.y_inverse_scale));
    Op::template store_bytes<false>(stretch.y + at * 4, v, finish, stretch.pixels - at);
}

// The constants of four outputs. Values that the compiler sees are not changed by a store to y stay in registers.
template <typename Op>
struct Quad {
    using V = typename Op::Float;
    V scale[4], bias[4];

    explicit EW_INLINE Quad(const ConvStretch& stretch) {
        for (int o = 0; o < 4; ++o) scale[o] = V::all(stretch.scale[o]), bias[o] = V::all(stretch.bias[o]);
    }
    EW_INLINE V at(int o, const float* sum) const { return fma(V::load(sum), scale[o], bias[o]); }
};

template <typename Op>
EW_ONCE void finish_direct(const ConvFinish& given, const float* sums, int64_t row, const ConvStretch& stretch_given) {
    using V = typename Op::Float;
    const ConvFinish finish = given;
    const ConvStretch stretch = stretch_given;
    const Quad<Op> quad(stretch);
    for (int64_t at = 0; at < stretch.pixels; at += V::kLanes) {
        V v[4];
        for (int o = 0; o < 4; ++o) v[o] = quad.at(o, sums + o * row + at);
        if (stretch.residual) add_residual<Op, true>(finish, stretch, at, v);
        store_direct<Op>(finish, stretch, at, v);
    }
}

// Without an activation: from the sums to y in one go.
template <typename Op>
EW_ONCE void finish_plain(const ConvFinish& given, const float* sums, int64_t row, const ConvStretch& stretch_given) {
    using V = typename Op::Float;
    const ConvFinish finish = given;
    const ConvStretch stretch = stretch_given;
    const Quad<Op> quad(stretch);
    for (int64_t at = 0; at < stretch.pixels; at += V::kLanes) {
        V v[4];
        for (int o = 0; o < 4; ++o) v[o] = quad.at(o, sums + o * row + at);
        if (stretch.residual) add_residual<Op, false>(finish, stretch, at, v);
        store<Op>(finish, stretch, at, v);
    }
}

// Scale, bias, a residual that comes first, and the activation: values [4][kMostPixels] of at most as many pixels.
template <typename Op>
EW_ONCE void activate_block(const ConvFinish& given, const float* sums, int64_t row, const ConvStretch& stretch_given,
                            float* values) {
    using V = typename Op::Float;
    const ConvFinish finish = given;
    const ConvStretch stretch = stretch_given;
    const Quad<Op> quad(stretch);
    const bool first = stretch.residual && finish.residual_first;
    if (first) {
        for (int64_t at = 0; at < stretch.pixels; at += V::kLanes) {
            V v[4];
            for (int o = 0; o < 4; ++o) v[o] = quad.at(o, sums + o * row + at);
            add_residual<Op, false>(finish, stretch, at, v);
            for (int o = 0; o < 4; ++o) v[o].store(values + o * kMostPixels + at);
        }
    }
    with_activation<V>(finish, [&](auto activation) EW_LAMBDA_INLINE {
        for (int o = 0; o < 4; ++o) {
            const float* from = sums + o * row;
            float* to = values + o * kMostPixels;
            for (int64_t at = 0; at < stretch.pixels; at += V::kLanes) {
                const V x = first ? V::load(to + at) : quad.at(o, from + at);
                activation(x).store(to + at);
            }
        }
    });
}

template <typename Op>
EW_ONCE void store_block(const ConvFinish& given, const float* values, const ConvStretch& stretch_given) {
    using V = typename Op::Float;
    const ConvFinish finish = given;
    const ConvStretch stretch = stretch_given;
    const bool adds = stretch.residual && !finish.residual_first;
    V factor[4];
    for (int o = 0; o < 4; ++o) factor[o] = V::all(stretch.factor(o));
    for (int64_t at = 0; at < stretch.pixels; at += V::kLanes) {
        V v[4];
        for (int o = 0; o < 4; ++o) v[o] = V::load(values + o * kMostPixels + at) * factor[o];
        if (adds) add_residual<Op, false>(finish, stretch, at, v);
        store<Op>(finish, stretch, at, v);
    }
}

// Sums [4][row] of which stretch.pixels and stretch.outputs are wanted.
template <typename Op>
EW_ONCE void finish_block(const ConvFinish& finish, const float* sums, int64_t row, const ConvStretch& stretch) {
    if (finish.direct) return finish_direct<Op>(finish, sums, row, stretch);
    if (finish.activation == Function::kNone) return finish_plain<Op>(finish, sums, row, stretch);
    alignas(64) float values[4 * kMostPixels];
    ConvStretch some = stretch;
    for (int64_t left = stretch.pixels; left > 0; left -= kMostPixels) {
        some.pixels = left < kMostPixels ? left : kMostPixels;
        activate_block<Op>(finish, sums, row, some, values);
        store_block<Op>(finish, values, some);
        sums += kMostPixels;
        some.y += kMostPixels * 4;
        if (some.residual) some.residual += kMostPixels * 4;
    }
}

}  // namespace
}  // namespace ew
