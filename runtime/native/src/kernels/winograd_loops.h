// Winograd's transforms over a vector type. Included by each instruction set's file, which gives
//   static void interleave(V a, V b, V* low, V* high): a0 b0 a1 b1 ...
//   static const WinogradPiece* load_tiles(const WinogradInput&, const uint8_t* plane, const WinogradPiece*, V (&rows)[4][4]):
//     [row of the tile][column] of one vector of tiles; returns the next one's pieces.
// and, where it has kernels for bytes, a type S of two 16-bit numbers in each lane, with + and -, static S of(V::Int) and Int bits().
#pragma once

#include <type_traits>

#include "simd.h"
#include "winograd.h"

// A tile's values are in registers where all loops over it are unrolled. The readable kernels stay small.
#if !defined(EW_UNROLL_TILES)
#define EW_UNROLL_TILES _Pragma("GCC unroll 16")
#endif

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

// B' d B, to the 16 points.
template <typename V, typename T>
EW_INLINE void transform_tiles(const T (&rows)[4][4], uint8_t* to, int64_t to_point) {
    T half[4][4];
EW_UNROLL_TILES
    for (int y = 0; y < 4; ++y) take_apart(rows[y], half[y]);
EW_UNROLL_TILES
    for (int i = 0; i < 4; ++i) {
        const T column[4] = {half[0][i], half[1][i], half[2][i], half[3][i]};
        T done[4];
        take_apart(column, done);
EW_UNROLL_TILES
        for (int y = 0; y < 4; ++y) {
            auto* at = reinterpret_cast<float*>(to + (y * 4 + i) * to_point);
            if constexpr (std::is_same_v<T, V>) done[y].store(at);
            else V::from_bits(done[y].bits()).store(at);
        }
    }
}

// For any V: value by value.
template <typename V>
EW_INLINE const WinogradPiece* gather_tiles(const WinogradInput& input, const uint8_t* plane, const WinogradPiece* piece,
                                            V (&rows)[4][4]) {
    uint32_t values[16 * V::kLanes];
    for (uint32_t& value : values) value = input.fill;
    for (bool more = true; more; ++piece) {
        for (int64_t i = 0; i < 16 * V::kLanes; ++i) {
            const int64_t y = i / (4 * V::kLanes), x = i / V::kLanes % 4, lane = i % V::kLanes;
            const bool there = piece->rows >> y & 1 && (x < 2 ? piece->left : piece->right) >> (2 * lane + x % 2) & 1;
            if (there) std::memcpy(values + i, plane + piece->from + y * input.x_row + (2 * lane + x) * 4, 4);
        }
        more = !piece->last;
    }
    for (int i = 0; i < 16; ++i) rows[i / 4][i % 4] = V::load(reinterpret_cast<const float*>(values + i * V::kLanes));
    return piece;
}

template <typename V>
void input_of(const WinogradInput& input) {
    const int64_t row = input.vectors * V::kLanes * 4;
    for (int64_t plane = 0; plane < input.planes; ++plane) {
        const uint8_t* x = input.x + plane * input.x_plane;
        const WinogradPiece* piece = input.pieces;
        uint8_t* to = input.to + plane * row;
        for (int64_t v = 0; v < input.vectors; ++v, to += V::kLanes * 4) {
            V rows[4][4];
            piece = load_tiles(input, x, piece, rows);
            transform_tiles<V>(rows, to, input.to_point);
        }
    }
}

// Channels 0 and 2 of each four, then 1 and 3.
template <typename V, typename S>
void bytes_input_of(const WinogradInput& input) {
    const int64_t row = input.vectors * V::kLanes * 4;
    const auto low_bytes = V::Int::all(0x00ff00ff);
    for (int64_t plane = 0; plane < input.planes; ++plane) {
        const uint8_t* x = input.x + plane * input.x_plane;
        const WinogradPiece* piece = input.pieces;
        uint8_t* to = input.to + plane * 2 * row;
        for (int64_t v = 0; v < input.vectors; ++v, to += V::kLanes * 4) {
            V rows[4][4];
            S even[4][4], odd[4][4];
            piece = load_tiles(input, x, piece, rows);
EW_UNROLL_TILES
            for (int i = 0; i < 16; ++i) {
                const auto bytes = rows[i / 4][i % 4].bits();
                even[i / 4][i % 4] = S::of(bytes & low_bytes);
                odd[i / 4][i % 4] = S::of(bytes.template right<8>() & low_bytes);
            }
            transform_tiles<V>(even, to, input.to_point);
            transform_tiles<V>(odd, to + row, input.to_point);
        }
    }
}

// A' m A, of float32 or of four times the sums in int32.
template <typename V, typename T>
void output_of(const uint8_t* sums, int64_t point, int64_t row, float* to) {
    for (int64_t output = 0; output < 4; ++output, sums += row * 4, to += 2 * row) {
        for (int64_t at = 0; at < row; at += V::kLanes) {
            T half[4][2];
EW_UNROLL_TILES
            for (int x = 0; x < 4; ++x) {
                T column[4];
EW_UNROLL_TILES
                for (int y = 0; y < 4; ++y) {
                    const V loaded = V::load(reinterpret_cast<const float*>(sums + (y * 4 + x) * point) + at);
                    if constexpr (std::is_same_v<T, V>) column[y] = loaded;
                    else column[y] = loaded.bits();
                }
                put_together(column, half[x]);
            }
EW_UNROLL_TILES
            for (int y = 0; y < 2; ++y) {
                const T line[4] = {half[0][y], half[1][y], half[2][y], half[3][y]};
                T done[2];
                V ends[2], low, high;
                put_together(line, done);
                for (int i = 0; i < 2; ++i) {
                    if constexpr (std::is_same_v<T, V>) ends[i] = done[i];
                    else ends[i] = V::from_int(done[i].template right<2>());
                }
                interleave(ends[0], ends[1], &low, &high);
                low.store(to + y * 8 * row + 2 * at);
                high.store(to + y * 8 * row + 2 * at + V::kLanes);
            }
        }
    }
}

template <typename V>
constexpr WinogradKernel winograd_of() {
    return {input_of<V>, output_of<V, V>, nullptr, 0, nullptr};
}

}  // namespace
}  // namespace ew
