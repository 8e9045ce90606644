// What the gates of a recurrent layer add up at one step: a few rows by a matrix that lies in panels of 16 columns.
#pragma once

#include "simd.h"
#include "vectors.h"

namespace ew {
namespace {

template <typename V, int kRows, int kPanels>
EW_INLINE void gates_tile(const Gates& g, int64_t row, int64_t panel) {
    constexpr int kVectors = kPanels * Gates::kWidth / V::kLanes, kEach = Gates::kWidth / V::kLanes;
    const float *h = g.h + row * g.h_row, *weights = g.weights + panel * g.k * Gates::kWidth;
    V total[kRows][kVectors];
    for (int r = 0; r < kRows; ++r) {
        for (int v = 0; v < kVectors; ++v) {
            total[r][v] = g.x ? V::load(g.x + (row + r) * g.x_row + panel * Gates::kWidth + v * V::kLanes) : V::all(0.0f);
        }
    }
    for (int64_t k = 0; k < g.k; ++k) {
        V right[kVectors];
        for (int v = 0; v < kVectors; ++v) right[v] = V::load(weights + (v / kEach * g.k + k) * Gates::kWidth + v % kEach * V::kLanes);
        for (int r = 0; r < kRows; ++r) {
            const V left = V::all(h[r * g.h_row + k]);
            for (int v = 0; v < kVectors; ++v) total[r][v] = fma(left, right[v], total[r][v]);
        }
    }
    for (int r = 0; r < kRows; ++r) {
        for (int v = 0; v < kVectors; ++v) total[r][v].store(g.y + (row + r) * g.y_row + panel * Gates::kWidth + v * V::kLanes);
    }
}

// All rows of neighbouring panels, whose weights stay in the cache meanwhile.
template <typename V, int kPanels>
EW_INLINE void gates_panels(const Gates& g, int64_t panel) {
    constexpr int kRows = kPanels * Gates::kWidth / V::kLanes <= 4 ? 4 : 1;  // what leaves registers for the sums
    int64_t row = 0;
    for (; row + kRows <= g.rows; row += kRows) gates_tile<V, kRows, kPanels>(g, row, panel);
    for (; row < g.rows; ++row) gates_tile<V, 1, kPanels>(g, row, panel);
}

template <typename V>
void gates(const Gates& g, int64_t panels) {
    constexpr int kSome = V::kLanes >= 8 ? 4 : 1;
    const bool single = V::kLanes >= 16 || g.rows < 4;
    int64_t panel = 0;
    for (; single && panel + kSome <= panels; panel += kSome) gates_panels<V, kSome>(g, panel);
    for (; panel < panels; ++panel) gates_panels<V, 1>(g, panel);
}

}  // namespace
}  // namespace ew
