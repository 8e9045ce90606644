// How conv cuts the pixels of y into tiles.
#pragma once

#include <algorithm>
#include <cstdint>

namespace ew {

// Which pixels of a sample; no vectors: the spare ones that are computed with outputs as lanes.
struct Tile {
    int64_t first, pixels, vectors;

    // One of `count` parts of nearly equal size.
    Tile part(int64_t index, int64_t count, int64_t lanes) const {
        const int64_t share = vectors / count, more = vectors % count;
        const int64_t skipped = (index * share + std::min(index, more)) * lanes, some = share + (index < more);
        return {first + skipped, std::min(some * lanes, pixels - skipped), some};
    }
};

// The tiles of some pixels: whole vectors over tiles of nearly equal size; what is left over is one more vector, or a tile of its own.
struct Tiling {
    int64_t pixels = 0, lanes = 1, vectors = 0, spare = 0, whole = 0, count = 0;

    int64_t most_pixels() const { return (whole > 0 ? (vectors + whole - 1) / whole : 1) * lanes; }
    int64_t spare_width() const { return (spare + 15) / 16 * 16; }  // with what rounds them up

    // In quarters of a vector.
    int64_t cost_of(int64_t tile) const {
        if (tile == whole) return spare > 0 ? (spare + 3) / 4 : 0;
        return 4 * (vectors / whole + (tile < vectors % whole));
    }

    Tile at(int64_t tile) const {
        if (tile == whole) return {pixels - spare, spare, 0};
        return Tile{0, pixels - spare, vectors}.part(tile, whole, lanes);
    }
};

}  // namespace ew
