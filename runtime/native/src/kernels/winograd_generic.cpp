// Winograd's transforms, readable, and the table that picks them.
#define EW_UNROLL_TILES
#include "winograd_loops.h"

namespace ew {
namespace {

void interleave(F32x1 a, F32x1 b, F32x1* low, F32x1* high) { *low = a, *high = b; }
const WinogradPiece* load_tiles(const WinogradInput& input, const uint8_t* plane, const WinogradPiece* pieces,
                                F32x1 (&rows)[4][4]) {
    return gather_tiles(input, plane, pieces, rows);
}

struct Words {
    int16_t low, high;
    static Words of(F32x1::Int pair) { return {static_cast<int16_t>(pair.v & 0xffff), static_cast<int16_t>(pair.v >> 16)}; }
    F32x1::Int bits() const { return {static_cast<int32_t>(static_cast<uint32_t>(high) << 16 | static_cast<uint16_t>(low))}; }
    friend Words operator+(Words a, Words b) { return {static_cast<int16_t>(a.low + b.low), static_cast<int16_t>(a.high + b.high)}; }
    friend Words operator-(Words a, Words b) { return {static_cast<int16_t>(a.low - b.low), static_cast<int16_t>(a.high - b.high)}; }
};

Words words_at(const uint8_t* from) {
    Words words;
    std::memcpy(&words, from, sizeof words);
    return words;
}

void multiply(const ConvFinish&, const ConvBlock& block, const ConvStretch& stretch) {
    for (int64_t i = 0; i < stretch.outputs * block.vectors; ++i) {
        const int64_t output = i / block.vectors;
        const uint8_t* x = block.x + i % block.vectors * 4;
        const uint8_t* w = block.w + output / kLine * block.line_bytes + output % kLine * 4;
        uint32_t sum = 0;  // wraps, as the vector instructions do
        for (int64_t e = 0; e < block.entries; ++e, x += block.x_stride, w += kLineBytes) {
            const Words a = words_at(x), b = words_at(w);
            sum += static_cast<uint32_t>(a.low * b.low) + static_cast<uint32_t>(a.high * b.high);
        }
        std::memcpy(block.partial + i * 4, &sum, 4);
    }
}

constexpr WinogradKernel kGeneric = winograd_of<F32x1>();
constexpr WinogradKernel kBytesGeneric = {bytes_input_of<F32x1, Words>, output_of<F32x1, F32x1::Int>, "s16_generic", 1, multiply};

}  // namespace

#if defined(__x86_64__)
extern const WinogradKernel kWinogradAvx2, kWinogradBytesAvx2, kWinogradAvx512;
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

const WinogradKernel& winograd_bytes_kernel(Isa isa) {
    (void)isa;
#if defined(__x86_64__)
    if (isa >= Isa::kAvx2) return kWinogradBytesAvx2;
#endif
    return kBytesGeneric;
}

}  // namespace ew
