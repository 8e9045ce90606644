// Winograd's transforms with AVX2.
#if defined(__AVX2__)
#include "conv_finish.h"
#include "lanes_avx2.h"
#include "winograd_loops.h"

namespace ew {
namespace {

EW_INLINE void interleave(F32x8 a, F32x8 b, F32x8* low, F32x8* high) {
    const __m256 even = _mm256_unpacklo_ps(a.v, b.v), odd = _mm256_unpackhi_ps(a.v, b.v);
    low->v = _mm256_permute2f128_ps(even, odd, 0x20), high->v = _mm256_permute2f128_ps(even, odd, 0x31);
}

// Where bits are set, what is there with the bits of `fill` turned; else 0.
EW_INLINE __m256 load_turned(const uint8_t* from, uint32_t bits, __m256i fill) {
    const __m256i mask = lanes_of_bits(bits);
    const __m256i there = _mm256_maskload_epi32(reinterpret_cast<const int*>(from), mask);
    return _mm256_castsi256_ps(_mm256_xor_si256(there, _mm256_and_si256(mask, fill)));
}

// Two neighbouring columns of eight tiles, onto `fill` and what other pieces gave; bits as a piece's `left`.
EW_INLINE void add_columns(const uint8_t* from, uint32_t bits, __m256i fill, F32x8* even, F32x8* odd) {
    const __m256 low = load_turned(from, bits, fill), high = load_turned(from + 32, bits >> 8, fill);
    const __m256d evens = _mm256_castps_pd(_mm256_shuffle_ps(low, high, 0x88)), odds = _mm256_castps_pd(_mm256_shuffle_ps(low, high, 0xdd));
    even->v = _mm256_xor_ps(even->v, _mm256_castpd_ps(_mm256_permute4x64_pd(evens, 0xd8)));
    odd->v = _mm256_xor_ps(odd->v, _mm256_castpd_ps(_mm256_permute4x64_pd(odds, 0xd8)));
}

EW_INLINE const WinogradPiece* load_tiles(const WinogradInput& input, const uint8_t* plane, const WinogradPiece* piece,
                                          F32x8 (&rows)[4][4]) {
    const __m256i fill = _mm256_set1_epi32(static_cast<int>(input.fill));
    for (auto& row : rows) {
        for (F32x8& column : row) column.v = _mm256_castsi256_ps(fill);
    }
    for (bool more = true; more; ++piece) {
        const uint8_t* from = plane + piece->from;
        for (int y = 0; y < 4; ++y, from += input.x_row) {
            if (!(piece->rows >> y & 1)) continue;
            add_columns(from, piece->left, fill, &rows[y][0], &rows[y][1]);
            add_columns(from + 8, piece->right, fill, &rows[y][2], &rows[y][3]);
        }
        more = !piece->last;
    }
    return piece;
}

struct Words256 {
    __m256i v;
    static EW_INLINE Words256 of(F32x8::Int pairs) { return {pairs.v}; }
    EW_INLINE F32x8::Int bits() const { return {v}; }
    friend EW_INLINE Words256 operator+(Words256 a, Words256 b) { return {_mm256_add_epi16(a.v, b.v)}; }
    friend EW_INLINE Words256 operator-(Words256 a, Words256 b) { return {_mm256_sub_epi16(a.v, b.v)}; }
};

// Some vectors of tiles times some outputs. Weights of lines that come later are fetched, one line for four entries.
template <int kVectors, int kOutputs>
EW_INLINE void add_up(const ConvBlock& block, const uint8_t* x, const uint8_t* w, const uint8_t* ahead, uint8_t* to) {
    __m256i sums[kOutputs][kVectors];
#pragma GCC unroll 8
    for (int i = 0; i < kOutputs * kVectors; ++i) sums[i / kVectors][i % kVectors] = _mm256_setzero_si256();
    for (int64_t left = block.entries; left > 0; left -= 4, ahead += kLineBytes) {
        __builtin_prefetch(ahead);
        for (int64_t e = left < 4 ? left : 4; e > 0; --e, x += block.x_stride, w += kLineBytes) {
            __m256i values[kVectors];
#pragma GCC unroll 2
            for (int t = 0; t < kVectors; ++t) values[t] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + t * 32));
#pragma GCC unroll 8
            for (int o = 0; o < kOutputs; ++o) {
                const __m256i weight = _mm256_set1_epi32(four_bytes(w + o * 4));
#pragma GCC unroll 2
                for (int t = 0; t < kVectors; ++t) sums[o][t] = add_to(sums[o][t], _mm256_madd_epi16(values[t], weight));
            }
        }
    }
#pragma GCC unroll 8
    for (int o = 0; o < kOutputs; ++o, to += block.vectors * 32) {
#pragma GCC unroll 2
        for (int t = 0; t < kVectors; ++t) _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + t * 32), sums[o][t]);
    }
}

void multiply(const ConvFinish&, const ConvBlock& block, const ConvStretch& stretch) {
    const int64_t quarter = block.line_bytes / 4;
    const uint8_t* w = block.w;
    for (int64_t line = 0; line < stretch.outputs; line += kLine, w += block.line_bytes) {
        uint8_t* to = block.partial + line * block.vectors * 32;
        for (int64_t v = 0; v < block.vectors; v += 2) {
            const uint8_t* x = block.x + v * 32;
            for (int64_t o = 0; o < kLine; o += 4) {
                const uint8_t* ahead = w + block.line_bytes + o / 4 * quarter;
                uint8_t* sums = to + (o * block.vectors + v) * 32;
                if (v + 1 < block.vectors) add_up<2, 4>(block, x, w + o * 4, ahead, sums);
                else add_up<1, 4>(block, x, w + o * 4, ahead, sums);
            }
        }
    }
}

}  // namespace

extern const WinogradKernel kWinogradAvx2, kWinogradBytesAvx2;
const WinogradKernel kWinogradAvx2 = winograd_of<F32x8>();
const WinogradKernel kWinogradBytesAvx2 = {bytes_input_of<F32x8, Words256>, output_of<F32x8, F32x8::Int>, "s16_avx2", 4, multiply};

}  // namespace ew
#endif
