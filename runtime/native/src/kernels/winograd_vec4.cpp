// Winograd's transforms in the compiler's vectors of four.
#if defined(EDGEWISE_VEC4)
#include "winograd_loops.h"

namespace ew {
namespace {

EW_INLINE void interleave(F32x4 a, F32x4 b, F32x4* low, F32x4* high) {
    low->v = __builtin_shufflevector(a.v, b.v, 0, 4, 1, 5), high->v = __builtin_shufflevector(a.v, b.v, 2, 6, 3, 7);
}

EW_INLINE const WinogradPiece* load_tiles(const WinogradInput& input, const uint8_t* plane, const WinogradPiece* pieces,
                                          F32x4 (&rows)[4][4]) {
    return gather_tiles(input, plane, pieces, rows);
}

}  // namespace

extern const WinogradKernel kWinogradVec4;
const WinogradKernel kWinogradVec4 = winograd_of<F32x4>();

}  // namespace ew
#endif
