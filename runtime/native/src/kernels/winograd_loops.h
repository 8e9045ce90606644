// Winograd's transforms over a vector type. Included by each instruction set's file, which gives
//   static void interleave(V a, V b, V* low, V* high): a0 b0 a1 b1 ...
//   static const WinogradPiece* load_tiles(const WinogradInput&, const uint8_t* plane, const WinogradPiece*, V (&rows)[4][4]):
//     [row of the tile][column] of one vector of tiles; returns the next one's pieces.
#pragma once

#include "simd.h"
#include "winograd.h"

namespace ew {
namespace {

// B' d: four rows become four.
template <typename V>
EW_INLINE void take_apart(const V (&d)[4], V (&to)[4]) {
    to[0] = d[0] - d[2], to[1] = d[1] + d[2], to[2] = d[2] - d[1], to[3] = d[1] - d[3];
}

// A' m: four rows become two.
template <typename V>
EW_INLINE void put_together(const V (&m)[4], V (&to)[2]) {
    to[0] = m[0] + m[1] + m[2], to[1] = m[1] - m[2] - m[3];
}

// For any V: value by value.
template <typename V>
EW_INLINE const WinogradPiece* gather_tiles(const WinogradInput& input, const uint8_t* plane, const WinogradPiece* piece,
                                            V (&rows)[4][4]) {
    float values[4][4][V::kLanes] = {};
    for (bool more = true; more; ++piece) {
        for (int64_t i = 0; i < 16 * V::kLanes; ++i) {
            const int64_t y = i / (4 * V::kLanes), x = i / V::kLanes % 4, lane = i % V::kLanes;
            const bool there = piece->rows >> y & 1 && (x < 2 ? piece->left : piece->right) >> (2 * lane + x % 2) & 1;
            if (there) std::memcpy(&values[y][x][lane], plane + piece->from + y * input.x_row + (2 * lane + x) * 4, 4);
        }
        more = !piece->last;
    }
    for (int y = 0; y < 4; ++y) {
        for (int x = 0; x < 4; ++x) rows[y][x] = V::load(values[y][x]);
    }
    return piece;
}

template <typename V>
void input_of(const WinogradInput& input) {
    const int64_t row = input.vectors * V::kLanes;
    for (int64_t plane = 0; plane < input.planes; ++plane) {
        const uint8_t* x = input.x + plane * input.x_plane;
        const WinogradPiece* piece = input.pieces;
        float* to = input.to + plane * row;
        for (int64_t v = 0; v < input.vectors; ++v, to += V::kLanes) {
            V rows[4][4], half[4][4];
            piece = load_tiles(input, x, piece, rows);
#pragma GCC unroll 4
            for (int y = 0; y < 4; ++y) take_apart(rows[y], half[y]);
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) {
                const V column[4] = {half[0][i], half[1][i], half[2][i], half[3][i]};
                V done[4];
                take_apart(column, done);
#pragma GCC unroll 4
                for (int y = 0; y < 4; ++y) done[y].store(to + (y * 4 + i) * input.to_point);
            }
        }
    }
}

template <typename V>
void output_of(const float* sums, int64_t point, int64_t row, float* to) {
    for (int64_t output = 0; output < 4; ++output, sums += row, to += 2 * row) {
        for (int64_t at = 0; at < row; at += V::kLanes) {
            V half[4][2];
#pragma GCC unroll 4
            for (int x = 0; x < 4; ++x) {
                V column[4];
#pragma GCC unroll 4
                for (int y = 0; y < 4; ++y) column[y] = V::load(sums + (y * 4 + x) * point + at);
                put_together(column, half[x]);
            }
#pragma GCC unroll 2
            for (int y = 0; y < 2; ++y) {
                const V line[4] = {half[0][y], half[1][y], half[2][y], half[3][y]};
                V done[2], low, high;
                put_together(line, done);
                interleave(done[0], done[1], &low, &high);
                low.store(to + y * 8 * row + 2 * at);
                high.store(to + y * 8 * row + 2 * at + V::kLanes);
            }
        }
    }
}

template <typename V>
constexpr WinogradKernel winograd_of() {
    return {input_of<V>, output_of<V>};
}

}  // namespace
}  // namespace ew
