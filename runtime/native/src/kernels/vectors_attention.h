// Attention of float32 heads stored channel by channel: lanes are queries, so that softmax runs down the keys without shuffles.
#pragma once

#include "activation.h"
#include "vectors.h"

namespace ew {
namespace {

// scores[key][lane] += sum over d of q[d][lane] * k[d][key], for kKeys keys.
template <typename V, int kVectors, int kKeys>
EW_INLINE void score_keys(const Heads& h, const float* q, const float* k, float* scores) {
    V total[kKeys][kVectors];
    for (auto& row : total) {
        for (V& one : row) one = V::all(0.0f);
    }
    for (int64_t d = 0; d < h.depth; ++d) {
        V query[kVectors];
        for (int v = 0; v < kVectors; ++v) query[v] = V::load(q + (d * kVectors + v) * V::kLanes);
        for (int key = 0; key < kKeys; ++key) {
            const V one = V::all(k[d * h.keys + key]);
            for (int v = 0; v < kVectors; ++v) total[key][v] = fma(one, query[v], total[key][v]);
        }
    }
    for (int key = 0; key < kKeys; ++key) {
        for (int v = 0; v < kVectors; ++v) {
            float* to = scores + (key * kVectors + v) * V::kLanes;
            fma(total[key][v], V::all(h.scale), V::load(to)).store(to);
        }
    }
}

// exp(score - largest), in place; the sums of each lane.
template <typename V, int kVectors>
EW_INLINE void soften(float* scores, int64_t keys, V (&sums)[kVectors]) {
    V top[kVectors];
    for (int v = 0; v < kVectors; ++v) top[v] = V::all(-HUGE_VALF), sums[v] = V::all(0.0f);
    for (int64_t key = 0; key < keys; ++key) {
        for (int v = 0; v < kVectors; ++v) top[v] = max(top[v], V::load(scores + (key * kVectors + v) * V::kLanes));
    }
    for (int64_t key = 0; key < keys; ++key) {
        for (int v = 0; v < kVectors; ++v) {
            float* at = scores + (key * kVectors + v) * V::kLanes;
            const V power = exp_of(V::load(at) - top[v]);
            power.store(at);
            sums[v] = sums[v] + power;
        }
    }
}

// The softmax itself, in whole steps.
template <typename V, int kVectors>
EW_INLINE void round_weights(const Heads& h, float* scores, V (&factors)[kVectors]) {
    const V inverse = V::all(1.0f / h.p_scale), top = V::all(h.p_top);
    for (int64_t key = 0; key < h.keys; ++key) {
        for (int v = 0; v < kVectors; ++v) {
            float* at = scores + (key * kVectors + v) * V::kLanes;
            min(round(V::load(at) * (inverse * factors[v])), top).store(at);
        }
    }
    for (V& one : factors) one = V::all(h.p_scale);
}

template <typename V, int kVectors, int kChannels>
EW_INLINE void mix_values(const Heads& h, const float* scores, const float* values, const V (&factors)[kVectors], float* y, int64_t some) {
    V total[kChannels][kVectors];
    for (auto& row : total) {
        for (V& one : row) one = V::all(0.0f);
    }
    for (int64_t key = 0; key < h.keys; ++key) {
        V weight[kVectors];
        for (int v = 0; v < kVectors; ++v) weight[v] = V::load(scores + (key * kVectors + v) * V::kLanes);
        for (int c = 0; c < kChannels; ++c) {
            const V one = V::all(values[c * h.keys + key]);
            for (int v = 0; v < kVectors; ++v) total[c][v] = fma(one, weight[v], total[c][v]);
        }
    }
    for (int c = 0; c < kChannels; ++c) {
        for (int v = 0; v < kVectors; ++v) (total[c][v] * factors[v]).store_some(y + c * h.queries + v * V::kLanes, some - v * V::kLanes);
    }
}

// `some` queries of one head, at most kVectors vectors of them. scratch: copies of the queries, then the scores, which hold the mask.
template <typename V, int kVectors>
EW_INLINE void attend_tile(const Heads& h, const float* q, const float* k, const float* v, float* y, float* queries, float* scores, int64_t some) {
    for (int64_t d = 0; d < h.depth; ++d) {
        for (int i = 0; i < kVectors; ++i) {
            V::load_some(q + d * h.queries + i * V::kLanes, some - i * V::kLanes).store(queries + (d * kVectors + i) * V::kLanes);
        }
    }
    constexpr int kWidth = kVectors * V::kLanes;
    int64_t key = 0;
    for (; key + 4 <= h.keys; key += 4) score_keys<V, kVectors, 4>(h, queries, k + key, scores + key * kWidth);
    for (; key < h.keys; ++key) score_keys<V, kVectors, 1>(h, queries, k + key, scores + key * kWidth);
    V factors[kVectors];
    soften<V, kVectors>(scores, h.keys, factors);
    for (V& one : factors) one = V::all(1.0f) / one;
    if (h.p_scale > 0) round_weights<V, kVectors>(h, scores, factors);
    int64_t c = 0;
    for (; c + 4 <= h.value_depth; c += 4) mix_values<V, kVectors, 4>(h, scores, v + c * h.keys, factors, y + c * h.queries, some);
    for (; c < h.value_depth; ++c) mix_values<V, kVectors, 1>(h, scores, v + c * h.keys, factors, y + c * h.queries, some);
}

template <typename V>
void attend(const Heads& h, const float* q, const float* k, const float* v, float* y, float* queries, float* scores, int64_t some) {
    const int64_t vectors = (some + V::kLanes - 1) / V::kLanes;
    if (vectors <= 1) return attend_tile<V, 1>(h, q, k, v, y, queries, scores, some);
    if (vectors == 2) return attend_tile<V, 2>(h, q, k, v, y, queries, scores, some);
    if (vectors == 3) return attend_tile<V, 3>(h, q, k, v, y, queries, scores, some);
    attend_tile<V, 4>(h, q, k, v, y, queries, scores, some);
}

}  // namespace
}  // namespace ew
