// Winograd's transforms with AVX-512.
#if defined(__AVX512F__)
#include "winograd_loops.h"

namespace ew {
namespace {

EW_INLINE void interleave(F32x16 a, F32x16 b, F32x16* low, F32x16* high) {
    const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    low->v = _mm512_permutex2var_ps(a.v, first, b.v);
    high->v = _mm512_permutex2var_ps(a.v, _mm512_add_epi32(first, _mm512_set1_epi32(8)), b.v);
}

// 32 pixels, the first of which is column 0 (or 2) of lane 0, hold two columns of all tiles.
EW_INLINE void load_columns(const uint8_t* from, uint32_t pixels, __m512 (&two)[2]) {
    two[0] = _mm512_mask_loadu_ps(two[0], static_cast<__mmask16>(pixels), from);
    two[1] = _mm512_mask_loadu_ps(two[1], static_cast<__mmask16>(pixels >> 16), from + 64);
}

EW_INLINE const WinogradPiece* load_tiles(const WinogradInput& input, const uint8_t* plane, const WinogradPiece* first,
                                          F32x16 (&rows)[4][4]) {
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    const WinogradPiece* piece = first;
#pragma GCC unroll 4
    for (int y = 0; y < 4; ++y) {
        __m512 left[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()}, right[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
        piece = first;
        for (bool more = true; more; ++piece) {
            const uint32_t there = piece->rows >> y & 1 ? ~uint32_t{0} : 0;
            const uint8_t* from = plane + piece->from + y * input.x_row;
            load_columns(from, piece->left & there, left);
            load_columns(from + 8, piece->right & there, right);
            more = !piece->last;
        }
        rows[y][0].v = _mm512_permutex2var_ps(left[0], even, left[1]);
        rows[y][1].v = _mm512_permutex2var_ps(left[0], odd, left[1]);
        rows[y][2].v = _mm512_permutex2var_ps(right[0], even, right[1]);
        rows[y][3].v = _mm512_permutex2var_ps(right[0], odd, right[1]);
    }
    return piece;
}

}  // namespace

extern const WinogradKernel kWinogradAvx512;
const WinogradKernel kWinogradAvx512 = winograd_of<F32x16>();

}  // namespace ew
#endif
