// Fills tiles on NEON (conv.h). Included by *_neon*.cpp, each of which may want x less 128.
#pragma once

#include "conv_pack.h"
#include "simd.h"

namespace ew {
namespace {

// Copies pixels, of 4 bytes each; less 128 means with the highest bit of each byte flipped.
template <bool kShifts>
struct Pixels {
    static EW_INLINE uint32x4_t shifted(uint32x4_t four) { return kShifts ? veorq_u32(four, vdupq_n_u32(0x80808080u)) : four; }
    static EW_INLINE void copy_one(const uint8_t* from, uint8_t* to) {
        uint32_t pixel;
        std::memcpy(&pixel, from, 4);
        if (kShifts) pixel ^= 0x80808080u;
        std::memcpy(to, &pixel, 4);
    }
    static EW_INLINE void copy_four(const uint8_t* from, uint8_t* to) {
        vst1q_u8(to, vreinterpretq_u8_u32(shifted(vreinterpretq_u32_u8(vld1q_u8(from)))));
    }
    static EW_INLINE void copy(const uint8_t* from, int64_t count, uint8_t* to) {
        for (; count >= 4; count -= 4, from += 16, to += 16) copy_four(from, to);
        for (; count > 0; --count, from += 4, to += 4) copy_one(from, to);
    }
    static EW_INLINE void copy_every(const uint8_t* from, int64_t step, int64_t count, uint8_t* to) {
        if (step == 2) {  // reads a pixel more than it takes
            for (; count > 4; count -= 4, from += 32, to += 16) {
                const uint32x4x2_t pairs = vld2q_u32(reinterpret_cast<const uint32_t*>(from));
                vst1q_u8(to, vreinterpretq_u8_u32(shifted(pairs.val[0])));
            }
        }
        for (; count > 0; --count, from += step * 4, to += 4) copy_one(from, to);
    }
};

template <bool kShifts>
EW_INLINE void fill_piece(const ConvPiece& piece, const uint8_t* x, int64_t step, uint8_t* to) {
    if (piece.lanes == 0) return;
    const int64_t first = __builtin_ctz(piece.lanes), count = __builtin_popcount(piece.lanes);
    const uint8_t* from = x + piece.from + first * step * 4;
    if (step == 1) Pixels<kShifts>::copy(from, count, to + first * 4);
    else Pixels<kShifts>::copy_every(from, step, count, to + first * 4);
}

template <bool kShifts>
EW_INLINE const ConvPiece* fill_sixteen(const ConvTile& tile, const ConvPiece* piece, const uint8_t* x, int64_t count, uint8_t* to) {
    if (piece->lanes == (1 << count) - 1 && tile.step == 1) {
        const uint8_t* from = x + piece->from;
        for (int64_t i = 0; i < count; i += 4) Pixels<kShifts>::copy_four(from + i * 4, to + i * 4);
        return piece + 1;
    }
    const uint32x4_t fill = Pixels<kShifts>::shifted(vdupq_n_u32(tile.fill));
    for (int64_t i = 0; i < count; i += 4) vst1q_u8(to + i * 4, vreinterpretq_u8_u32(fill));
    for (;; ++piece) {
        fill_piece<kShifts>(*piece, x, tile.step, to);
        if (piece->last) return piece + 1;
    }
}

// A tile's rows are whole vectors of 4 pixels.
template <bool kShifts>
void fill_neon(const ConvTile& tile) {
    for (int64_t plane = 0; plane < tile.planes; ++plane) {
        for (int64_t s = 0; s < tile.spot_count; ++s) {
            uint8_t* to = tile.tile + plane * tile.tile_plane + s * tile.row_bytes;
            const ConvPiece* piece = tile.spots[s].pieces;
            const uint8_t* x = tile.x + plane * tile.x_plane + tile.spots[s].shift;
            for (int64_t left = tile.row_bytes / 4; left > 0; left -= kPiecePixels, to += kPiecePixels * 4)
                piece = fill_sixteen<kShifts>(tile, piece, x, left < kPiecePixels ? left : kPiecePixels, to);
        }
    }
}

constexpr ConvKernel shifting(ConvKernel kernel) {
    kernel.shifts = true;
    return kernel;
}

}  // namespace
}  // namespace ew
