// Fills tiles with AVX2: 8 pixels at a time, masked where a piece does not fill them.
#if defined(__AVX2__)
#include <immintrin.h>

#include <cstring>

#include "conv_pack.h"
#include "lanes_avx2.h"

namespace ew {
namespace {

constexpr int64_t kAhead = 8;  // planes, which take a few cycles each

EW_INLINE __m256i load(const uint8_t* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }
EW_INLINE void store(uint8_t* to, __m256i pixels) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), pixels); }

// The pixels whose bits are set in the lowest 8 of `lanes`; elsewhere those of `others`.
EW_INLINE __m256i load_lanes(__m256i others, uint32_t lanes, const uint8_t* from) {
    const __m256i mask = lanes_of_bits(lanes);
    return _mm256_blendv_epi8(others, _mm256_maskload_epi32(reinterpret_cast<const int*>(from), mask), mask);
}

// kPicks: of each four pixels of low two (lowest bits), then two of high.
template <int kPicks>
EW_INLINE __m256i halves(__m256i low, __m256i high) {
    const __m256 pixels = _mm256_shuffle_ps(_mm256_castsi256_ps(low), _mm256_castsi256_ps(high), kPicks);
    return _mm256_permute4x64_epi64(_mm256_castps_si256(pixels), 0xd8);
}

// Every second one of 15 pixels; none beyond is touched.
EW_INLINE __m256i load_halved(const uint8_t* from) { return halves<0xd8>(load(from), load(from + 28)); }

EW_INLINE void copy_apart(const uint8_t* from, int64_t step, int64_t count, uint8_t* to) {
    for (int64_t i = 0; i < count; ++i) std::memcpy(to + i * 4, from + i * step * 4, 4);
}

// kVectors vectors of a row of a tile. Returns the piece after them.
template <int kVectors>
EW_INLINE const ConvPiece* fill_near(const ConvPiece* piece, const uint8_t* x, __m256i fill, uint8_t* to) {
    if (piece->lanes == 0xffff >> (16 - kVectors * 8)) {
        for (int v = 0; v < kVectors; ++v) store(to + v * 32, load(x + piece->from + v * 32));
        return piece + 1;
    }
    __m256i row[2] = {fill, fill};
    for (bool more = true; more; ++piece) {
        for (int v = 0; v < kVectors; ++v) row[v] = load_lanes(row[v], piece->lanes >> (v * 8), x + piece->from + v * 32);
        more = !piece->last;
    }
    for (int v = 0; v < kVectors; ++v) store(to + v * 32, row[v]);
    return piece;
}

// As fill_near, of every second pixel of x.
template <int kVectors>
EW_INLINE const ConvPiece* fill_halved(const ConvPiece* piece, const uint8_t* x, __m256i fill, uint8_t* to) {
    if (piece->lanes == 0xffff >> (16 - kVectors * 8)) {
        for (int v = 0; v < kVectors; ++v) store(to + v * 32, load_halved(x + piece->from + v * 64));
        return piece + 1;
    }
    __m256i row[4] = {fill, fill, fill, fill};
    for (bool more = true; more; ++piece) {
        for (int v = 0; v < 2 * kVectors; ++v) row[v] = load_lanes(row[v], piece->pixels >> (v * 8), x + piece->from + v * 32);
        more = !piece->last;
    }
    for (int v = 0; v < kVectors; ++v) store(to + v * 32, halves<0x88>(row[2 * v], row[2 * v + 1]));
    return piece;
}

// As fill_near, of every `step`th pixel.
template <int kVectors>
EW_INLINE const ConvPiece* fill_apart(const ConvPiece* piece, const uint8_t* x, int64_t step, __m256i fill, uint8_t* to) {
    for (int v = 0; v < kVectors; ++v) store(to + v * 32, fill);
    for (bool more = true; more; ++piece) {
        const int lane = __builtin_ctz(piece->lanes | 0x10000u), count = __builtin_popcount(piece->lanes);
        copy_apart(x + piece->from + lane * step * 4, step, count, to + lane * 4);
        more = !piece->last;
    }
    return piece;
}

template <int kVectors>
EW_INLINE const ConvPiece* fill_piece(const ConvPiece* piece, const uint8_t* x, int64_t step, __m256i fill, uint8_t* to) {
    if (step == 1) return fill_near<kVectors>(piece, x, fill, to);
    if (step == 2) return fill_halved<kVectors>(piece, x, fill, to);
    return fill_apart<kVectors>(piece, x, step, fill, to);
}

// Whether a row of a tile is one stretch of the plane, without padding.
bool is_stretch(const ConvTile& tile) {
    const ConvPiece* piece = tile.spots->pieces;
    for (int64_t at = 0; at < tile.row_bytes; at += 64, ++piece) {
        const int lanes = at + 32 < tile.row_bytes ? 0xffff : 0xff;
        if (piece->lanes != lanes || piece->from != tile.spots->pieces->from + at) return false;
    }
    return tile.spot_count == 1 && tile.step == 1;
}

// The same stretch of all planes.
template <int kVectors>
EW_INLINE void copy_stretch(const ConvTile& tile) {
    const uint8_t* x = tile.x + tile.spots->shift + tile.spots->pieces->from;
    uint8_t* to = tile.tile;
    for (int64_t plane = 0; plane < tile.planes; ++plane, x += tile.x_plane, to += tile.tile_plane) {
#pragma GCC unroll 2
        for (int i = 0; i < kVectors; i += 2) __builtin_prefetch(x + kAhead * tile.x_plane + i * 32);
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) store(to + v * 32, load(x + v * 32));
    }
}

// The last eight overlap those before them, so that none beyond is touched. The processor's own fetching ends with a plane's rows.
template <int kStep>
EW_INLINE void copy_run(const uint8_t* from, int64_t count, int64_t x_plane, uint8_t* to) {
    if (count < 8) return copy_apart(from, kStep, count, to);
    for (int64_t i = 0;; i += 8) {
        if (i > count - 8) i = count - 8;
        __builtin_prefetch(from + i * kStep * 4 + x_plane);
        store(to + i * 4, kStep == 2 ? load_halved(from + i * 8) : load(from + i * 4));
        if (i == count - 8) return;
    }
}

}  // namespace

void fill_avx2(const ConvTile& tile) {
    if (is_stretch(tile)) {
        if (tile.row_bytes == 96) return copy_stretch<3>(tile);
        if (tile.row_bytes == 64) return copy_stretch<2>(tile);
    }
    const __m256i fill = _mm256_set1_epi32(static_cast<int32_t>(tile.fill));
    for (int64_t plane = 0; plane < tile.planes; ++plane) {
        uint8_t* to = tile.tile + plane * tile.tile_plane;
        for (int64_t s = 0; s < tile.spot_count; ++s, to += tile.row_bytes) {
            const uint8_t* x = tile.x + plane * tile.x_plane + tile.spots[s].shift;
            const ConvPiece* piece = tile.spots[s].pieces;
            // The next plane's pixels are fetched: the first and last positions see nearly all.
            const bool ahead = s == 0 || s + 1 == tile.spot_count;
            for (int64_t at = 0; at < tile.row_bytes; at += 64) {
                if (ahead) __builtin_prefetch(x + tile.x_plane + piece->from);
                if (at + 32 < tile.row_bytes) piece = fill_piece<2>(piece, x, tile.step, fill, to + at);
                else piece = fill_piece<1>(piece, x, tile.step, fill, to + at);
            }
        }
    }
}

void pack_avx2(const ConvPack& pack) {
    for (const ConvRun* run = pack.runs; run != pack.runs + pack.run_count; ++run) {
        uint8_t* to = pack.to + run->pixel * 4;
        const uint8_t* from = pack.x + run->source * 4;
        if (pack.step == 1) copy_run<1>(from, run->count, pack.x_plane, to);
        else if (pack.step == 2) copy_run<2>(from, run->count, pack.x_plane, to);
        else copy_apart(from, pack.step, run->count, to);
    }
}

}  // namespace ew
#endif
