// Winograd's transforms with NEON.
#if defined(__aarch64__)
#include "winograd_loops.h"

namespace ew {
namespace {

EW_INLINE void interleave(F32x4 a, F32x4 b, F32x4* low, F32x4* high) {
    low->v = vzip1q_f32(a.v, b.v), high->v = vzip2q_f32(a.v, b.v);
}

EW_INLINE const WinogradPiece* load_tiles(const WinogradInput& input, const uint8_t* plane, const WinogradPiece* pieces,
                                          F32x4 (&rows)[4][4]) {
    return gather_tiles(input, plane, pieces, rows);
}

}  // namespace

extern const WinogradKernel kWinogradNeon;
const WinogradKernel kWinogradNeon = winograd_of<F32x4>();

}  // namespace ew
#endif
