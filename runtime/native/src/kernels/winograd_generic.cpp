// Winograd's transforms, readable, and the table that picks them.
#include "winograd_loops.h"

namespace ew {
namespace {

void interleave(F32x1 a, F32x1 b, F32x1* low, F32x1* high) { *low = a, *high = b; }
const WinogradPiece* load_tiles(const WinogradInput& input, const uint8_t* plane, const WinogradPiece* pieces,
                                F32x1 (&rows)[4][4]) {
    return gather_tiles(input, plane, pieces, rows);
}

constexpr WinogradKernel kGeneric = winograd_of<F32x1>();

}  // namespace

#if defined(__x86_64__)
extern const WinogradKernel kWinogradAvx2, kWinogradAvx512;
#elif defined(__aarch64__)
extern const WinogradKernel kWinogradNeon;
#elif defined(EDGEWISE_VEC4)
extern const WinogradKernel kWinogradVec4;
#endif

const WinogradKernel& winograd_kernel(Isa isa) {
    (void)isa;
#if defined(__x86_64__)
    if (isa >= Isa::kAvx512) return kWinogradAvx512;
    if (isa >= Isa::kAvx2) return kWinogradAvx2;
#elif defined(__aarch64__)
    if (isa >= Isa::kNeon) return kWinogradNeon;
#elif defined(EDGEWISE_VEC4)
    if (isa >= Isa::kVec4) return kWinogradVec4;
#endif
    return kGeneric;
}

}  // namespace ew
