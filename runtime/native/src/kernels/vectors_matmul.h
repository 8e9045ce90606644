// float32 products of small matrices: y = alpha * a * b, where rows of b and y are contiguous.
#pragma once

#include "simd.h"
#include "vectors.h"

namespace ew {
namespace {

// kRows rows of y, kVectors vectors of their columns from column 0; a's elements lie a_row and a_k apart.
template <typename V, int kRows, int kVectors>
EW_INLINE void product_tile(const Product& p, const float* a, const float* b, float* y, int64_t columns) {
    V total[kRows][kVectors];
    for (auto& row : total) {
        for (V& one : row) one = V::all(0.0f);
    }
    for (int64_t k = 0; k < p.k; ++k) {
        V right[kVectors];
        for (int v = 0; v < kVectors; ++v) right[v] = V::load(b + k * p.b_row + v * V::kLanes);
        for (int r = 0; r < kRows; ++r) {
            const V left = V::all(a[r * p.a_row + k * p.a_k]);
            for (int v = 0; v < kVectors; ++v) total[r][v] = fma(left, right[v], total[r][v]);
        }
    }
    const V alpha = V::all(p.alpha);
    for (int r = 0; r < kRows; ++r) {
        for (int v = 0; v < kVectors; ++v) (total[r][v] * alpha).store_some(y + r * p.y_row + v * V::kLanes, columns - v * V::kLanes);
    }
}

// The columns of one panel: b must be readable, whatever it holds, to the panel's width.
template <typename V>
void product_panel(const Product& p, const float* a, const float* b, float* y, int64_t columns) {
    int64_t row = 0;
    const bool narrow = columns <= V::kLanes;
    for (; row + 4 <= p.rows; row += 4) {
        if (narrow) {
            product_tile<V, 4, 1>(p, a + row * p.a_row, b, y + row * p.y_row, columns);
        } else {
            product_tile<V, 4, 2>(p, a + row * p.a_row, b, y + row * p.y_row, columns);
        }
    }
    for (; row < p.rows; ++row) {
        if (narrow) {
            product_tile<V, 1, 1>(p, a + row * p.a_row, b, y + row * p.y_row, columns);
        } else {
            product_tile<V, 1, 2>(p, a + row * p.a_row, b, y + row * p.y_row, columns);
        }
    }
}

}  // namespace
}  // namespace ew
