// Normalisation: down columns whose lanes are tokens, and along rows.
#pragma once

#include "vectors_bytes.h"

namespace ew {
namespace {

// Two vectors of tokens at a time: a cache line or two of each channel.
template <typename V, int kVectors>
EW_INLINE void norm_tile(const Norm& norm, const float* x, int64_t channels, int64_t stride, uint8_t* y, int64_t some) {
    const V zero = V::all(0.0f), one_part = V::all(1.0f / static_cast<float>(channels));
    V total[kVectors], mean[kVectors], factor[kVectors];
    const auto load = [&](int64_t c, int v) EW_LAMBDA_INLINE {
        const int64_t left = some - v * V::kLanes;
        const float* from = x + c * stride + v * V::kLanes;
        return left >= V::kLanes ? V::load(from) : V::load_some(from, left);
    };
    for (int v = 0; v < kVectors; ++v) total[v] = zero;
    if (!norm.root_mean_square) {
        for (int64_t c = 0; c < channels; ++c) {
            for (int v = 0; v < kVectors; ++v) total[v] = total[v] + load(c, v);
        }
    }
    for (int v = 0; v < kVectors; ++v) mean[v] = total[v] * one_part, total[v] = zero;
    for (int64_t c = 0; c < channels; ++c) {
        for (int v = 0; v < kVectors; ++v) {
            const V difference = load(c, v) - mean[v];
            total[v] = fma(difference, difference, total[v]);
        }
    }
    for (int v = 0; v < kVectors; ++v) factor[v] = V::all(1.0f) / sqrt(fma(total[v], one_part, V::all(norm.epsilon)));
    const auto value = [&](int64_t c, int v) EW_LAMBDA_INLINE {
        const V scaled = factor[v] * V::all(norm.gamma ? norm.gamma[c] : 1.0f);
        return fma(load(c, v) - mean[v], scaled, V::all(norm.beta ? norm.beta[c] : 0.0f));
    };
    if (!norm.quantized) {
        auto* to = reinterpret_cast<float*>(y);
        for (int64_t c = 0; c < channels; ++c) {
            for (int v = 0; v < kVectors; ++v) value(c, v).store_some(to + c * stride + v * V::kLanes, some - v * V::kLanes);
        }
        return;
    }
    const Quantizer<V> quantizer(norm.to);
    for (int64_t c = 0; c < channels; c += 4) {
        auto* to = reinterpret_cast<float*>(y + c * stride);  // four channels of a token are 32 bits
        const int64_t last = channels - 1;
        for (int v = 0; v < kVectors; ++v) {
            const auto quad = pack4<V>(quantizer(value(c, v)), quantizer(value(c + 1 < last ? c + 1 : last, v)),
                                       quantizer(value(c + 2 < last ? c + 2 : last, v)), quantizer(value(c + 3 < last ? c + 3 : last, v)));
            V::from_bits(quad).store_some(to + v * V::kLanes, some - v * V::kLanes);
        }
    }
}

template <typename V>
void norm_columns(const Norm& norm, const float* x, int64_t channels, int64_t stride, uint8_t* y, int64_t count) {
    int64_t i = 0;
    for (; i + V::kLanes < count; i += 2 * V::kLanes) norm_tile<V, 2>(norm, x + i, channels, stride, y + i * 4, count - i);
    if (i < count) norm_tile<V, 1>(norm, x + i, channels, stride, y + i * 4, count - i);
}

// The sum of (x - shift)^2, or of x - shift.
template <typename V, bool kSquare>
EW_INLINE float moment(const float* x, int64_t count, float shift) {
    const V from = V::all(shift);
    V total[4] = {V::all(0.0f), V::all(0.0f), V::all(0.0f), V::all(0.0f)};
    int64_t i = 0;
    for (; i + 4 * V::kLanes <= count; i += 4 * V::kLanes) {
        for (int k = 0; k < 4; ++k) {
            const V value = V::load(x + i + k * V::kLanes) - from;
            total[k] = kSquare ? fma(value, value, total[k]) : total[k] + value;
        }
    }
    float rest = 0;
    for (; i < count; ++i) rest += kSquare ? (x[i] - shift) * (x[i] - shift) : x[i] - shift;
    return sum((total[0] + total[1]) + (total[2] + total[3])) + rest;
}

template <typename V>
void moments(const float* x, int64_t count, float* mean, float* variance) {
    *mean = moment<V, false>(x, count, 0.0f) / static_cast<float>(count);
    *variance = moment<V, true>(x, count, *mean) / static_cast<float>(count);
}

template <typename V>
void norm_row(const Norm& norm, const float* x, float* y, int64_t count) {
    float mean = 0, variance;
    if (norm.root_mean_square) {
        variance = moment<V, true>(x, count, 0.0f) / static_cast<float>(count);
    } else {
        moments<V>(x, count, &mean, &variance);
    }
    const V shift = V::all(mean), factor = V::all(1.0f / std::sqrt(variance + norm.epsilon));
    for (int64_t i = 0; i < count; i += V::kLanes) {
        const int64_t some = count - i;
        const V gamma = norm.gamma ? V::load_some(norm.gamma + i, some) : V::all(1.0f);
        const V beta = norm.beta ? V::load_some(norm.beta + i, some) : V::all(0.0f);
        fma((V::load_some(x + i, some) - shift) * factor, gamma, beta).store_some(y + i, some);
    }
}

template <typename V>
void scale_shift(const float* x, float* y, int64_t count, float factor, float shift) {
    const V f = V::all(factor), s = V::all(shift);
    for (int64_t i = 0; i < count; i += V::kLanes) fma(V::load_some(x + i, count - i), f, s).store_some(y + i, count - i);
}

}  // namespace
}  // namespace ew
