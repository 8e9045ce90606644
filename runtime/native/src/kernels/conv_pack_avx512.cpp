// Fills tiles with AVX-512: 16 pixels at a time, masked at the ends of a run.
#if defined(__AVX512F__)
#include <immintrin.h>

#include <cstring>

#include "conv_pack.h"
#include "simd.h"

namespace ew {
namespace {

EW_INLINE __mmask16 first(int64_t count) { return count >= 16 ? 0xffff : static_cast<__mmask16>((1u << count) - 1); }

EW_INLINE void copy_run(const ConvRun& run, const uint8_t* from, uint8_t* to) {
    for (int64_t i = 0; i < run.count; i += 16) {
        const __mmask16 mask = first(run.count - i);
        _mm512_mask_storeu_epi32(to + i * 4, mask, _mm512_maskz_loadu_epi32(mask, from + i * 4));
    }
}

// Every second pixel. Of 2 * count - 1 pixels, none beyond is touched.
EW_INLINE void halve_run(const ConvRun& run, const uint8_t* from, uint8_t* to) {
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    for (int64_t i = 0; i < run.count; i += 16) {
        const int64_t pixels = 2 * (run.count - i) - 1;
        const __m512i low = _mm512_maskz_loadu_epi32(first(pixels), from + i * 8);
        const __m512i high = pixels > 16 ? _mm512_maskz_loadu_epi32(first(pixels - 16), from + i * 8 + 64) : low;
        _mm512_mask_storeu_epi32(to + i * 4, first(run.count - i), _mm512_permutex2var_epi32(low, even, high));
    }
}

// Pixels further apart come one by one: a gather of 16 takes some 70 cycles, so many loads and stores 16.
EW_INLINE void copy_apart(const uint8_t* from, int64_t step, int64_t count, uint8_t* to) {
    for (int64_t i = 0; i < count; ++i) std::memcpy(to + i * 4, from + i * step * 4, 4);
}

// Whether the next plane's pixels are fetched ahead where this spot meets them: the first and last positions see nearly all.
EW_INLINE bool fetches(const ConvTile& tile, int64_t spot) { return spot == 0 || spot + 1 == tile.spot_count; }

// Every second pixel to a row.
EW_INLINE void halve_row(const ConvTile& tile, const ConvPiece* piece, const uint8_t* x, __m512i fill, bool ahead, uint8_t* to) {
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    for (const uint8_t* end = to + tile.row_bytes; to != end; to += 64) {
        __m512i low = fill, high = fill;
        for (bool more = true; more; ++piece) {
            if (ahead) {
                __builtin_prefetch(x + tile.x_plane + piece->from);
                __builtin_prefetch(x + tile.x_plane + piece->from + 64);
            }
            low = _mm512_mask_loadu_epi32(low, static_cast<__mmask16>(piece->pixels), x + piece->from);
            high = _mm512_mask_loadu_epi32(high, static_cast<__mmask16>(piece->pixels >> 16), x + piece->from + 64);
            more = !piece->last;
        }
        _mm512_storeu_si512(to, _mm512_permutex2var_epi32(low, even, high));
    }
}

void fill_halved(const ConvTile& tile) {
    const __m512i fill = _mm512_set1_epi32(static_cast<int32_t>(tile.fill));
    for (int64_t plane = 0; plane < tile.planes; ++plane) {
        uint8_t* to = tile.tile + plane * tile.tile_plane;
        for (int64_t s = 0; s < tile.spot_count; ++s, to += tile.row_bytes) {
            const uint8_t* x = tile.x + plane * tile.x_plane + tile.spots[s].shift;
            halve_row(tile, tile.spots[s].pieces, x, fill, fetches(tile, s), to);
        }
    }
}

void fill_near(const ConvTile& tile) {
    const __m512i fill = _mm512_set1_epi32(static_cast<int32_t>(tile.fill));
    for (int64_t plane = 0; plane < tile.planes; ++plane) {
        uint8_t* to = tile.tile + plane * tile.tile_plane;
        for (int64_t s = 0; s < tile.spot_count; ++s) {
            const uint8_t* x = tile.x + plane * tile.x_plane + tile.spots[s].shift;
            const ConvPiece* piece = tile.spots[s].pieces;
            for (const uint8_t* end = to + tile.row_bytes; to != end; to += 64, ++piece) {
                if (fetches(tile, s)) __builtin_prefetch(x + tile.x_plane + piece->from);
                __m512i row = _mm512_mask_loadu_epi32(fill, piece->lanes, x + piece->from);
                for (; !piece->last; row = _mm512_mask_loadu_epi32(row, piece->lanes, x + piece->from)) ++piece;
                _mm512_storeu_si512(to, row);
            }
        }
    }
}

void fill_apart(const ConvTile& tile) {
    const __m512i fill = _mm512_set1_epi32(static_cast<int32_t>(tile.fill));
    for (int64_t plane = 0; plane < tile.planes; ++plane) {
        uint8_t* to = tile.tile + plane * tile.tile_plane;
        for (int64_t s = 0; s < tile.spot_count; ++s) {
            const uint8_t* x = tile.x + plane * tile.x_plane + tile.spots[s].shift;
            const ConvPiece* piece = tile.spots[s].pieces;
            for (const uint8_t* end = to + tile.row_bytes; to != end; to += 64) {
                _mm512_storeu_si512(to, fill);
                for (bool more = true; more; ++piece) {
                    const int lane = __builtin_ctz(piece->lanes | 0x10000u), count = __builtin_popcount(piece->lanes);
                    copy_apart(x + piece->from + lane * tile.step * 4, tile.step, count, to + lane * 4);
                    more = !piece->last;
                }
            }
        }
    }
}

}  // namespace

void fill_avx512(const ConvTile& tile) {
    if (tile.step == 1) return fill_near(tile);
    if (tile.step == 2) return fill_halved(tile);
    fill_apart(tile);
}

void pack_avx512(const ConvPack& pack) {
    for (const ConvRun* run = pack.runs; run != pack.runs + pack.run_count; ++run) {
        uint8_t* to = pack.to + run->pixel * 4;
        const uint8_t* from = pack.x + run->source * 4;
        if (pack.step == 1) copy_run(*run, from, to);
        else if (pack.step == 2) halve_run(*run, from, to);
        else copy_apart(from, pack.step, run->count, to);
    }
}

}  // namespace ew
#endif
