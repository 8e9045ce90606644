// Two arrays of float32, element by element.
#pragma once

#include "simd.h"
#include "vectors.h"

namespace ew {
namespace {

template <Pair kPair, typename V>
EW_INLINE V pair_of(V a, V b) {
    switch (kPair) {
        case Pair::kAdd: return a + b;
        case Pair::kSub: return a - b;
        case Pair::kMul: return a * b;
        case Pair::kDiv: return a / b;
        case Pair::kMin: return min(a, b);
        default: return max(a, b);
    }
}

template <Pair kPair, typename V>
void binary_loop(const float* a, int64_t a_step, const float* b, int64_t b_step, float* y, int64_t count) {
    if (count == 0) return;
    const V one_a = V::all(*a), one_b = V::all(*b);
    int64_t i = 0;
    for (; i + V::kLanes <= count; i += V::kLanes) {
        pair_of<kPair>(a_step ? V::load(a + i) : one_a, b_step ? V::load(b + i) : one_b).store(y + i);
    }
    if (const int64_t some = count - i; some > 0) {
        pair_of<kPair>(a_step ? V::load_some(a + i, some) : one_a, b_step ? V::load_some(b + i, some) : one_b).store_some(y + i, some);
    }
}

inline float floor_mod(float a, float b) {
    const float rest = std::fmod(a, b);
    return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

template <typename V>
void binary(Pair function, const float* a, int64_t a_step, const float* b, int64_t b_step, float* y, int64_t count) {
    switch (function) {
        case Pair::kAdd: return binary_loop<Pair::kAdd, V>(a, a_step, b, b_step, y, count);
        case Pair::kSub: return binary_loop<Pair::kSub, V>(a, a_step, b, b_step, y, count);
        case Pair::kMul: return binary_loop<Pair::kMul, V>(a, a_step, b, b_step, y, count);
        case Pair::kDiv: return binary_loop<Pair::kDiv, V>(a, a_step, b, b_step, y, count);
        case Pair::kMin: return binary_loop<Pair::kMin, V>(a, a_step, b, b_step, y, count);
        case Pair::kMax: return binary_loop<Pair::kMax, V>(a, a_step, b, b_step, y, count);
        case Pair::kPow:
            for (int64_t i = 0; i < count; ++i) y[i] = std::pow(a[i * a_step], b[i * b_step]);
            return;
        case Pair::kMod:
            for (int64_t i = 0; i < count; ++i) y[i] = floor_mod(a[i * a_step], b[i * b_step]);
            return;
        case Pair::kFmod:
            for (int64_t i = 0; i < count; ++i) y[i] = std::fmod(a[i * a_step], b[i * b_step]);
            return;
    }
}

}  // namespace
}  // namespace ew
