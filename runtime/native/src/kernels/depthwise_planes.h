// Depthwise convolution straight from the planes of x, several rows of outputs at once: what is loaded serves all rows of the
// kernel. Padding is what masks leave out. Included by each instruction set's file; needs masked loads.
//
// An Op has
//   static constexpr int kColumns: neighbouring outputs at once; kLoads: that a tap takes for all of these, each for a Sum;
//   using Sum (some of these outputs), X (pixels as loaded, or the weights of a tap); bool kFills: whether padding beyond rows counts;
//   int64_t load_column(stride, tap, load): where a load begins, from where the window of the first output does;
//   int64_t load_pixels(stride): what a load takes;
//   Op(plane); X load<stride>(from, mask), X fill(); static X weight(weights, tap); static Sum zero(), Sum add(Sum, X, X);
//   void store<stride>(sums of all loads, y, count).
#pragma once

#include <algorithm>

#include "conv_finish.h"
#include "depthwise.h"

namespace ew {
namespace {

// The loads of one row of x that neighbouring outputs need.
struct DepthwiseLoads {
    static constexpr int64_t kMost = 4 * kMostDepthwiseColumns;
    int64_t offset[kMost];  // in pixels, from the row's first
    uint32_t mask[kMost];   // of what lies in the row

    // `pixels`: that a load takes, 8, 16 or 32.
    void lay(int64_t i, int64_t column, int64_t columns, int64_t pixels) {
        const int64_t before = std::clamp<int64_t>(-column, 0, pixels);
        const int64_t behind = std::clamp<int64_t>(columns - column, 0, pixels);
        offset[i] = column;
        mask[i] = static_cast<uint32_t>(((uint64_t{1} << behind) - 1) & ~((uint64_t{1} << before) - 1));
    }
};

// One load of each tap for kRows rows of outputs from `row` on.
template <typename Op, int kKernel, int kStride, int kRows>
EW_INLINE void depthwise_sums(const Op& op, const DepthwisePlane& plane, const DepthwiseLoads& loads, int64_t load, int64_t row,
                              typename Op::Sum (&sums)[kRows]) {
    for (auto& sum : sums) sum = Op::zero();
    const int64_t top = (plane.first_row + row) * kStride - plane.pad_row, row_bytes = plane.in_columns * 4;
    for (int64_t tap = 0; tap < plane.taps; ++tap) {
        typename Op::X weights[kKernel];
#pragma GCC unroll 8
        for (int k = 0; k < kKernel; ++k) weights[k] = Op::weight(plane.weights, k * plane.taps + tap);
        const uint32_t mask = loads.mask[tap * Op::kLoads + load];
        const uint8_t* x = plane.x + top * row_bytes + loads.offset[tap * Op::kLoads + load] * 4;
#pragma GCC unroll 32
        for (int r = 0; r < (kRows - 1) * kStride + kKernel; ++r, x += row_bytes) {
            const bool inside = static_cast<uint64_t>(top + r) < static_cast<uint64_t>(plane.in_rows);
            if (!inside && !Op::kFills) continue;
            const typename Op::X value = inside ? op.template load<kStride>(x, mask) : op.fill();
#pragma GCC unroll 8
            for (int o = 0; o < kRows; ++o) {
                const int k = r - o * kStride;
                if (k >= 0 && k < kKernel) sums[o] = Op::add(sums[o], value, weights[k]);
            }
        }
    }
}

// kRows rows of outputs from `row` on, or as many as there are; Op::kColumns columns from `column` on.
template <typename Op, int kKernel, int kStride, int kRows>
EW_INLINE void depthwise_rows(const Op& op, const DepthwisePlane& plane, const DepthwiseLoads& loads, int64_t row,
                              int64_t column) {
    typename Op::Sum sums[Op::kLoads][kRows];
#pragma GCC unroll 1
    for (int64_t load = 0; load < Op::kLoads; ++load) {
        typename Op::Sum some[kRows];  // in registers
        depthwise_sums<Op, kKernel, kStride>(op, plane, loads, load, row, some);
#pragma GCC unroll 8
        for (int o = 0; o < kRows; ++o) sums[load][o] = some[o];
    }
    uint8_t* y = plane.y + (row * plane.columns + column) * 4;
    const int64_t rows = std::min<int64_t>(kRows, plane.rows - row);
#pragma GCC unroll 1
    for (int64_t o = 0; o < rows; ++o, y += plane.columns * 4) {
        typename Op::Sum all[Op::kLoads];
        for (int load = 0; load < Op::kLoads; ++load) all[load] = sums[load][o];
        op.template store<kStride>(all, y, plane.columns - column);
    }
}

template <typename Op, int kKernel, int kStride>
void depthwise_plane(const DepthwisePlane& plane) {
    const Op op(plane);
    DepthwiseLoads loads;
    for (int64_t column = 0; column < plane.columns; column += Op::kColumns) {
        for (int64_t tap = 0; tap < plane.taps; ++tap) {
            for (int64_t l = 0; l < Op::kLoads; ++l) {
                loads.lay(tap * Op::kLoads + l, column * kStride - plane.pad_column + Op::load_column(kStride, tap, l),
                          plane.in_columns, Op::load_pixels(kStride));
            }
        }
        for (int64_t row = 0; row < plane.rows; row += kDepthwiseRows)
            depthwise_rows<Op, kKernel, kStride, kDepthwiseRows>(op, plane, loads, row, column);
    }
}

template <typename Op>
DepthwisePlaneFunction plane_of(int64_t kernel_rows, int64_t stride) {
    if (stride == 1) {
        if (kernel_rows == 3) return depthwise_plane<Op, 3, 1>;
        if (kernel_rows == 5) return depthwise_plane<Op, 5, 1>;
        if (kernel_rows == 7) return depthwise_plane<Op, 7, 1>;
    } else if (stride == 2) {
        if (kernel_rows == 3) return depthwise_plane<Op, 3, 2>;
        if (kernel_rows == 5) return depthwise_plane<Op, 5, 2>;
        if (kernel_rows == 7) return depthwise_plane<Op, 7, 2>;
    }
    return nullptr;
}

}  // namespace
}  // namespace ew
