// Fills tiles with AVX-512: 16 pixels at a time, masked at the ends of a run.
#if defined(__AVX512F__)
#include <immintrin.h>

#include "conv_pack.h"
#include "simd.h"

namespace ew {
namespace {

EW_INLINE __mmask16 first(int64_t count) { return count >= 16 ? 0xffff : static_cast<__mmask16>((1u << count) - 1); }

EW_INLINE void fill_run(const ConvRun& run, __m512i fill, uint8_t* to) {
    for (int64_t i = 0; i < run.count; i += 16) _mm512_mask_storeu_epi32(to + i * 4, first(run.count - i), fill);
}

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

EW_INLINE void gather_run(const ConvRun& run, const uint8_t* from, __m512i steps, int64_t step, uint8_t* to) {
    for (int64_t i = 0; i < run.count; i += 16) {
        const __mmask16 mask = first(run.count - i);
        _mm512_mask_storeu_epi32(to + i * 4, mask,
                                 _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), mask, steps, from + i * step * 4, 4));
    }
}

// Whether the next plane's pixels are fetched ahead where this spot meets them: the first and last positions see nearly all.
EW_INLINE bool fetches(const ConvTile& tile, int64_t spot) { return spot == 0 || spot + 1 == tile.spot_count; }

// Whether `next` meets, pixel by pixel, the right-hand neighbours of what `spot` meets.
EW_INLINE bool beside(const ConvSpot& spot, const ConvSpot& next, int64_t vectors) {
    const int64_t apart = spot.shift + 4 - next.shift;
    for (const ConvPiece *p = spot.pieces, *q = next.pieces; vectors > 0; ++p, ++q) {
        const bool empty = p->pixels == 0 && q->pixels == 0;
        if (p->last != q->last || !(empty || p->from + apart == q->from)) return false;
        vectors -= p->last;
    }
    return true;
}

// Every second pixel to a row; kPair: and those between, which `next` meets, to the row after it.
template <bool kPair>
EW_INLINE void halve_row(const ConvTile& tile, const ConvPiece* piece, const ConvPiece* next, const uint8_t* x, __m512i fill,
                         bool ahead, uint8_t* to) {
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    for (const uint8_t* end = to + tile.row_bytes; to != end; to += 64) {
        __m512i low = fill, high = fill;
        for (bool more = true; more; ++piece) {
            const uint32_t pixels = kPair ? piece->pixels | next++->pixels << 1 : piece->pixels;
            if (ahead) {
                __builtin_prefetch(x + tile.x_plane + piece->from);
                __builtin_prefetch(x + tile.x_plane + piece->from + 64);
            }
            low = _mm512_mask_loadu_epi32(low, static_cast<__mmask16>(pixels), x + piece->from);
            high = _mm512_mask_loadu_epi32(high, static_cast<__mmask16>(pixels >> 16), x + piece->from + 64);
            more = !piece->last;
        }
        _mm512_storeu_si512(to, _mm512_permutex2var_epi32(low, even, high));
        if (kPair) _mm512_storeu_si512(to + tile.row_bytes, _mm512_permutex2var_epi32(low, odd, high));
    }
}

// A step of 2: neighbouring positions share what is loaded.
void fill_halved(const ConvTile& tile) {
    const __m512i fill = _mm512_set1_epi32(static_cast<int32_t>(tile.fill));
    bool paired[kMostSpots];
    for (int64_t s = 0; s < tile.spot_count; ++s) {
        paired[s] = s + 1 < tile.spot_count && beside(tile.spots[s], tile.spots[s + 1], tile.row_bytes / 64);
        if (paired[s]) paired[++s] = false;
    }
    for (int64_t plane = 0; plane < tile.planes; ++plane) {
        uint8_t* to = tile.tile + plane * tile.tile_plane;
        for (int64_t s = 0; s < tile.spot_count; ++s, to += tile.row_bytes) {
            const ConvSpot* spot = tile.spots + s;
            const uint8_t* x = tile.x + plane * tile.x_plane + spot->shift;
            if (!paired[s]) {
                halve_row<false>(tile, spot->pieces, nullptr, x, fill, fetches(tile, s), to);
            } else {
                halve_row<true>(tile, spot->pieces, spot[1].pieces, x, fill, fetches(tile, s), to);
                ++s, to += tile.row_bytes;
            }
        }
    }
}

// kStep: that of the tile, 0 where it is not 1.
template <int kStep>
EW_INLINE __m512i loaded(const ConvPiece& piece, const uint8_t* x, __m512i steps, __m512i rest) {
    if (kStep == 1) return _mm512_mask_loadu_epi32(rest, piece.lanes, x + piece.from);
    return _mm512_mask_i32gather_epi32(rest, piece.lanes, steps, x + piece.from, 4);
}

template <int kStep>
void fill_all(const ConvTile& tile) {
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i steps = _mm512_mullo_epi32(lanes, _mm512_set1_epi32(static_cast<int32_t>(tile.step)));
    const __m512i fill = _mm512_set1_epi32(static_cast<int32_t>(tile.fill));
    for (int64_t plane = 0; plane < tile.planes; ++plane) {
        uint8_t* to = tile.tile + plane * tile.tile_plane;
        for (int64_t s = 0; s < tile.spot_count; ++s) {
            const uint8_t* x = tile.x + plane * tile.x_plane + tile.spots[s].shift;
            const ConvPiece* piece = tile.spots[s].pieces;
            for (const uint8_t* end = to + tile.row_bytes; to != end; to += 64, ++piece) {
                if (fetches(tile, s)) __builtin_prefetch(x + tile.x_plane + piece->from);
                __m512i row = loaded<kStep>(*piece, x, steps, fill);
                while (!piece->last) row = loaded<kStep>(*++piece, x, steps, row);
                _mm512_storeu_si512(to, row);
            }
        }
    }
}

}  // namespace

void fill_avx512(const ConvTile& tile) {
    if (tile.step == 1) return fill_all<1>(tile);
    if (tile.step == 2) return fill_halved(tile);
    fill_all<0>(tile);
}

void pack_avx512(const ConvPack& pack) {
    const __m512i fill = _mm512_set1_epi32(static_cast<int32_t>(pack.fill));
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i steps = _mm512_mullo_epi32(lanes, _mm512_set1_epi32(static_cast<int32_t>(pack.step)));
    for (int64_t plane = 0; plane < pack.planes; ++plane) {
        const uint8_t* x = pack.x + plane * pack.x_plane;
        uint8_t* tile = pack.tile + plane * pack.tile_plane;
        for (const ConvRun* run = pack.runs; run != pack.runs + pack.run_count; ++run) {
            uint8_t* to = tile + run->pixel * 4;
            if (run->source < 0) fill_run(*run, fill, to);
            else if (pack.step == 1) copy_run(*run, x + run->source * 4, to);
            else if (pack.step == 2) halve_run(*run, x + run->source * 4, to);
            else gather_run(*run, x + run->source * 4, steps, pack.step, to);
        }
    }
}

}  // namespace ew
#endif
