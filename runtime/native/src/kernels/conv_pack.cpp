// Filling tiles of conv where no instruction set has a way of its own.
#include "conv_pack.h"

#include <algorithm>
#include <cstring>

namespace ew {

// What a piece's pixels meet, to a row of a tile.
static void copy_piece(const ConvPiece& piece, const uint8_t* from, int64_t step, uint8_t* to) {
    for (int64_t lane = 0; lane < kPiecePixels; ++lane) {
        if (piece.lanes >> lane & 1) std::memcpy(to + lane * 4, from + piece.from + lane * step * 4, 4);
    }
}

void fill_generic(const ConvTile& tile) {
    for (int64_t plane = 0; plane < tile.planes; ++plane) {
        for (int64_t s = 0; s < tile.spot_count; ++s) {
            uint8_t* to = tile.tile + plane * tile.tile_plane + s * tile.row_bytes;
            const ConvPiece* piece = tile.spots[s].pieces;
            for (int64_t at = 0; at < tile.row_bytes; at += kPiecePixels * 4, ++piece) {
                for (int64_t i = at; i < std::min(at + kPiecePixels * 4, tile.row_bytes); i += 4) std::memcpy(to + i, &tile.fill, 4);
                const uint8_t* x = tile.x + plane * tile.x_plane + tile.spots[s].shift;
                copy_piece(*piece, x, tile.step, to + at);
                while (!piece->last) copy_piece(*++piece, x, tile.step, to + at);
            }
        }
    }
}

void pack_generic(const ConvPack& pack) {
    for (const ConvRun* run = pack.runs; run != pack.runs + pack.run_count; ++run) {
        uint8_t* to = pack.to + run->pixel * 4;
        const uint8_t* from = pack.x + run->source * 4;
        if (pack.step == 1) {
            std::memcpy(to, from, static_cast<size_t>(run->count) * 4);
        } else {
            for (int32_t i = 0; i < run->count; ++i) std::memcpy(to + i * 4, from + i * pack.step * 4, 4);
        }
    }
}

}  // namespace ew
