// A step of a linear recurrence, lanes side by side: the rows' states are updated and, where there is a readout, summed in a register.
#pragma once

#include "activation.h"
#include "simd.h"
#include "vectors.h"

namespace ew {
namespace {

template <typename V>
EW_INLINE V term_of(const Recurrence::Term& term, int64_t key, int64_t lane, int64_t some) {
    const float* at = term.data + key * term.row;
    return term.lane ? V::load_some(at + lane, some) : V::all(*at);
}

template <typename V>
void recur(const Recurrence& step, int64_t count) {
    for (int64_t i = 0; i < count; i += V::kLanes) {
        const int64_t some = count - i;
        V total = V::all(0.0f);
        for (int64_t k = 0; k < step.keys; ++k) {
            float* h = step.h + k * step.width + i;
            const V before = V::load(h);
            V a = term_of<V>(step.a, k, i, some), b = term_of<V>(step.b, k, i, some), next;
            if (step.maximum) {
                next = max(a + before, b);
            } else {
                if (step.a2.data) a = exp_of(a * term_of<V>(step.a2, k, i, some));
                if (step.b2.data) b = b * term_of<V>(step.b2, k, i, some);
                next = fma(a, before, b);
            }
            next.store(h);
            if (step.c.data) {
                const V read = step.u.data ? fma(term_of<V>(step.u, k, i, some), b, before) : next;
                total = fma(term_of<V>(step.c, k, i, some), read, total);
            } else {
                next.store_some(step.y + i, some);
            }
        }
        if (step.c.data) total.store_some(step.y + i, some);
    }
}

}  // namespace
}  // namespace ew
