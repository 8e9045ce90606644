// Winograd's transforms with AVX2.
#if defined(__AVX2__)
#include "winograd_loops.h"

namespace ew {
namespace {

EW_INLINE void interleave(F32x8 a, F32x8 b, F32x8* low, F32x8* high) {
    const __m256 even = _mm256_unpacklo_ps(a.v, b.v), odd = _mm256_unpackhi_ps(a.v, b.v);
    low->v = _mm256_permute2f128_ps(even, odd, 0x20), high->v = _mm256_permute2f128_ps(even, odd, 0x31);
}

EW_INLINE const WinogradPiece* load_tiles(const WinogradInput& input, const uint8_t* plane, const WinogradPiece* pieces,
                                          F32x8 (&rows)[4][4]) {
    return gather_tiles(input, plane, pieces, rows);
}

}  // namespace

extern const WinogradKernel kWinogradAvx2;
const WinogradKernel kWinogradAvx2 = winograd_of<F32x8>();

}  // namespace ew
#endif
