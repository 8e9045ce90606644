// Softmax and its logarithm, along rows and down columns.
#pragma once

#include "activation.h"

namespace ew {
namespace {

// y[i] = exp(x[i] - top); gives their sum.
template <typename V>
EW_INLINE float exp_row(const float* x, float* y, int64_t count, float top) {
    const V shift = V::all(top), zero = V::all(0.0f);
    V total = zero;
    int64_t i = 0;
    for (; i + V::kLanes <= count; i += V::kLanes) {
        const V power = exp_of(V::load(x + i) - shift);
        power.store(y + i);
        total = total + power;
    }
    float rest = 0;
    if (i < count) {
        float last[V::kLanes];
        exp_of(V::load_some(x + i, count - i) - shift).store(last);
        for (int64_t k = 0; k < count - i; ++k) rest += y[i + k] = last[k];
    }
    return sum(total) + rest;
}

template <typename V>
EW_INLINE float largest_of(const float* x, int64_t count) {
    V top = V::all(-HUGE_VALF);
    int64_t i = 0;
    for (; i + V::kLanes <= count; i += V::kLanes) top = max(top, V::load(x + i));
    float most = largest(top);
    for (; i < count; ++i) most = most < x[i] ? x[i] : most;
    return most;
}

template <typename V>
void softmax_row(const float* x, float* y, int64_t count, bool logarithm) {
    const float top = largest_of<V>(x, count);
    if (logarithm) {
        float part[256], total = 0;
        for (int64_t i = 0; i < count; i += 256) total += exp_row<V>(x + i, part, count - i < 256 ? count - i : 256, top);
        const float shift = top + std::log(total);
        for (int64_t i = 0; i < count; ++i) y[i] = x[i] - shift;
        return;
    }
    const V factor = V::all(1.0f / exp_row<V>(x, y, count, top));
    int64_t i = 0;
    for (; i + V::kLanes <= count; i += V::kLanes) (V::load(y + i) * factor).store(y + i);
    if (i < count) (V::load_some(y + i, count - i) * factor).store_some(y + i, count - i);
}

// Down `dim` rows that are `stride` apart, for each of `count` columns.
template <typename V>
void softmax_columns(const float* x, float* y, int64_t dim, int64_t stride, int64_t count, bool logarithm) {
    for (int64_t i = 0; i < count; i += V::kLanes) {
        const int64_t some = count - i;
        V top = V::all(-HUGE_VALF), total = V::all(0.0f);
        for (int64_t d = 0; d < dim; ++d) top = max(top, V::load_some(x + d * stride + i, some));
        for (int64_t d = 0; d < dim; ++d) {
            const V value = V::load_some(x + d * stride + i, some) - top, power = exp_of(value);
            total = total + power;
            (logarithm ? value : power).store_some(y + d * stride + i, some);
        }
        const V factor = V::all(1.0f) / total, shift = log_of(total);
        for (int64_t d = 0; d < dim; ++d) {
            const V value = V::load_some(y + d * stride + i, some);
            (logarithm ? value - shift : value * factor).store_some(y + d * stride + i, some);
        }
    }
}

}  // namespace
}  // namespace ew
