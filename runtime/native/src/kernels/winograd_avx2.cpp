// Winograd's transforms with AVX2.
#if defined(__AVX2__)
#include "lanes_avx2.h"
#include "winograd_loops.h"

namespace ew {
namespace {

EW_INLINE void interleave(F32x8 a, F32x8 b, F32x8* low, F32x8* high) {
    const __m256 even = _mm256_unpacklo_ps(a.v, b.v), odd = _mm256_unpackhi_ps(a.v, b.v);
    low->v = _mm256_permute2f128_ps(even, odd, 0x20), high->v = _mm256_permute2f128_ps(even, odd, 0x31);
}

// Two neighbouring columns of eight tiles, onto what other pieces gave; bits as a piece's `left`.
EW_INLINE void add_columns(const uint8_t* from, uint32_t bits, F32x8* even, F32x8* odd) {
    const __m256 low = _mm256_maskload_ps(reinterpret_cast<const float*>(from), lanes_of_bits(bits));
    const __m256 high = _mm256_maskload_ps(reinterpret_cast<const float*>(from + 32), lanes_of_bits(bits >> 8));
    const __m256d evens = _mm256_castps_pd(_mm256_shuffle_ps(low, high, 0x88)), odds = _mm256_castps_pd(_mm256_shuffle_ps(low, high, 0xdd));
    even->v = _mm256_or_ps(even->v, _mm256_castpd_ps(_mm256_permute4x64_pd(evens, 0xd8)));
    odd->v = _mm256_or_ps(odd->v, _mm256_castpd_ps(_mm256_permute4x64_pd(odds, 0xd8)));
}

EW_INLINE const WinogradPiece* load_tiles(const WinogradInput& input, const uint8_t* plane, const WinogradPiece* piece,
                                          F32x8 (&rows)[4][4]) {
    for (auto& row : rows) {
        for (F32x8& column : row) column = F32x8::all(0.0f);
    }
    for (bool more = true; more; ++piece) {
        const uint8_t* from = plane + piece->from;
        for (int y = 0; y < 4; ++y, from += input.x_row) {
            if (!(piece->rows >> y & 1)) continue;
            add_columns(from, piece->left, &rows[y][0], &rows[y][1]);
            add_columns(from + 8, piece->right, &rows[y][2], &rows[y][3]);
        }
        more = !piece->last;
    }
    return piece;
}

}  // namespace

extern const WinogradKernel kWinogradAvx2;
const WinogradKernel kWinogradAvx2 = winograd_of<F32x8>();

}  // namespace ew
#endif
