// Depthwise convolution straight from the planes of x, several rows of outputs at once: what is loaded serves all rows of the
// kernel. Padding is what masks leave out. Included by each instruction set's file; needs masked loads.
//
// An Op has
//   static constexpr int kColumns: neighbouring outputs at once; kLoads: that a tap takes for all of these, each for a Sum;
//   using Sum (some of these outputs), X (pixels as loaded, or the weights of a tap); bool kFills: whether padding beyond rows counts;
//   int64_t load_column(stride, tap, load): where a load begins, from where the window of the first output does;
//   int64_t load_pixels(stride): what a load takes;
//   bool kOverlaps, where masked stores are slow: the last columns are computed with some before them once more, and what rows of fewer
//     columns write beyond their end the next row writes again. Then kLoads is 1, and Ends ends() has the constants of void store(Sum, y,
//     count);
//   bool kFetches: what the next plane meets is fetched ahead;
//   Op(plane); lanes_of(mask), what load() wants it as; X load<stride>(from, lanes), X fill(); static X weight(weights, tap);
//   static Sum zero(), Sum add(Sum, X, X);
//   void store<stride>(sums of all loads, y, count).
#pragma once

#include <algorithm>

#include "conv_finish.h"
#include "depthwise.h"

namespace ew {
namespace {

// `pixels`: that a load takes, 8, 16 or 32.
EW_INLINE DepthwiseLoad load_at(int64_t column, int64_t columns, int64_t pixels) {
    const int64_t before = std::clamp<int64_t>(-column, 0, pixels), behind = std::clamp<int64_t>(columns - column, 0, pixels);
    return {column, static_cast<uint32_t>(((uint64_t{1} << behind) - 1) & ~((uint64_t{1} << before) - 1))};
}

// One load of each tap for kRows rows of outputs from `row` on.
template <typename Op, int kKernel, int kStride, int kRows>
EW_INLINE void depthwise_sums(const Op& op, const DepthwisePlane& plane, const DepthwiseLoad* loads, int64_t load, int64_t row,
                              typename Op::Sum (&sums)[kRows]) {
    for (auto& sum : sums) sum = Op::zero();
    const int64_t top = (plane.first_row + row) * kStride - plane.pad_row, row_bytes = plane.in_columns * 4;
    for (int64_t tap = 0; tap < plane.taps; ++tap) {
        typename Op::X weights[kKernel];
#pragma GCC unroll 8
        for (int k = 0; k < kKernel; ++k) weights[k] = Op::weight(plane.weights, k * plane.taps + tap);
        const auto [offset, mask] = loads[tap * Op::kLoads + load];
        const auto lanes = Op::lanes_of(mask);
        const uint8_t* x = plane.x + top * row_bytes + offset * 4;
#pragma GCC unroll 32
        for (int r = 0; r < (kRows - 1) * kStride + kKernel; ++r, x += row_bytes) {
            const bool inside = static_cast<uint64_t>(top + r) < static_cast<uint64_t>(plane.in_rows);
            if (!inside && !Op::kFills) continue;
            const typename Op::X value = inside ? op.template load<kStride>(x, lanes) : op.fill();
#pragma GCC unroll 8
            for (int o = 0; o < kRows; ++o) {
                const int k = r - o * kStride;
                if (k >= 0 && k < kKernel) sums[o] = Op::add(sums[o], value, weights[k]);
            }
        }
    }
}

// Rows of outputs, `room` pixels of which are left in y.
template <typename Op, int kRows>
EW_INLINE void overlap_rows(const Op& op, const DepthwisePlane& plane, const typename Op::Sum (&sums)[kRows], int64_t rows, int64_t room,
                            uint8_t* y) {
    const auto ends = op.ends();
    const int64_t columns = plane.columns;
#pragma GCC unroll 8
    for (int o = 0; o < kRows; ++o, y += columns * 4, room -= columns) {
        if (o < rows) ends.store(sums[o], y, room);
    }
}

// kRows rows of outputs from `row` on, or as many as there are; Op::kColumns columns from `column` on.
template <typename Op, int kKernel, int kStride, int kRows>
EW_INLINE void depthwise_rows(const Op& op, const DepthwisePlane& plane, const DepthwiseLoad* loads, int64_t row,
                              int64_t column) {
    if (Op::kFetches) {  // what the next plane meets there
        const uint8_t* ahead = plane.x + ((plane.in_rows + (plane.first_row + row) * kStride) * plane.in_columns + column) * 4;
#pragma GCC unroll 8
        for (int r = 0; r < kRows * kStride; ++r, ahead += plane.in_columns * 4) __builtin_prefetch(ahead);
    }
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
    if constexpr (Op::kOverlaps) {
        overlap_rows<Op, kRows>(op, plane, sums[0], rows, (plane.rows - row) * plane.columns - column, y);
    } else {
#pragma GCC unroll 1
        for (int64_t o = 0; o < rows; ++o, y += plane.columns * 4) {
            typename Op::Sum all[Op::kLoads];
            for (int load = 0; load < Op::kLoads; ++load) all[load] = sums[load][o];
            op.template store<kStride>(all, y, plane.columns - column);
        }
    }
}

// Where neighbouring outputs that are computed together begin.
template <typename Op>
EW_INLINE int64_t begin_of(const DepthwisePlane& plane, int64_t column) {
    return Op::kOverlaps ? std::min(column, std::max<int64_t>(plane.columns - Op::kColumns, 0)) : column;
}

// Those of the outputs from `column` on.
template <typename Op, int kStride>
EW_INLINE void lay_block(const DepthwisePlane& plane, int64_t column, DepthwiseLoad* loads) {
    for (int64_t tap = 0; tap < plane.taps; ++tap) {
        for (int64_t l = 0; l < Op::kLoads; ++l) {
            *loads++ = load_at(column * kStride - plane.pad_column + Op::load_column(kStride, tap, l), plane.in_columns,
                               Op::load_pixels(kStride));
        }
    }
}

template <typename Op, int kStride>
void lay_columns(const DepthwisePlane& plane, DepthwiseLoad* loads) {
    for (int64_t column = 0; column < plane.columns; column += Op::kColumns, loads += plane.taps * Op::kLoads)
        lay_block<Op, kStride>(plane, begin_of<Op>(plane, column), loads);
}

template <typename Op, int kKernel, int kStride>
void depthwise_plane(const DepthwisePlane& plane) {
    const Op op(plane);
    DepthwiseLoad some[Op::kLoads * kMostDepthwiseColumns];
    const DepthwiseLoad* loads = plane.loads;
    for (int64_t next = 0; next < plane.columns; next += Op::kColumns) {
        const int64_t column = begin_of<Op>(plane, next);
        if (!plane.loads) lay_block<Op, kStride>(plane, column, some);
        for (int64_t row = 0; row < plane.rows; row += kDepthwiseRows)
            depthwise_rows<Op, kKernel, kStride, kDepthwiseRows>(op, plane, plane.loads ? loads : some, row, column);
        loads += plane.loads ? plane.taps * Op::kLoads : 0;
    }
}

template <typename Op, int kStride>
DepthwisePlanes planes_by(int64_t kernel_rows) {
    DepthwisePlanes found{nullptr, lay_columns<Op, kStride>, Op::kColumns, Op::kLoads};
    if (kernel_rows == 3) found.compute = depthwise_plane<Op, 3, kStride>;
    if (kernel_rows == 5) found.compute = depthwise_plane<Op, 5, kStride>;
    if (kernel_rows == 7) found.compute = depthwise_plane<Op, 7, kStride>;
    return found;
}

template <typename Op>
DepthwisePlanes planes_of(int64_t kernel_rows, int64_t stride) {
    if (stride == 1) return planes_by<Op, 1>(kernel_rows);
    if (stride == 2) return planes_by<Op, 2>(kernel_rows);
    return {};
}

}  // namespace
}  // namespace ew
