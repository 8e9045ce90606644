// Functions of one variable over arrays.
#pragma once

#include "activation.h"

namespace ew {
namespace {

template <Function kFunction, typename V>
void unary_loop(const float* x, float* y, int64_t count, float alpha, float beta) {
    const V a = V::all(alpha), b = V::all(beta);
    int64_t i = 0;
    for (; i + V::kLanes <= count; i += V::kLanes) apply<kFunction>(V::load(x + i), a, b).store(y + i);
    if (i < count) apply<kFunction>(V::load_some(x + i, count - i), a, b).store_some(y + i, count - i);
}

template <typename V>
void unary(Function function, const float* x, float* y, int64_t count, float alpha, float beta) {
    if (function == Function::kSin || function == Function::kCos) {
        for (int64_t i = 0; i < count; ++i) y[i] = function == Function::kSin ? std::sin(x[i]) : std::cos(x[i]);
        return;
    }
    with_function(function, [&](auto f) { unary_loop<decltype(f)::value, V>(x, y, count, alpha, beta); });
}

}  // namespace
}  // namespace ew
