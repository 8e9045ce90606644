// The transforms of Winograd's F(2x2, 3x3): 4x4 values of the input and 4x4 weights, multiplied point by point and added up
// over the channels, give 2x2 outputs with 16 multiplications instead of 36 (Lavin and Gray 2016, arXiv:1509.09308).
//
// Lanes are such tiles of 2x2 outputs. At each of the 16 points the sums over the channels are a dense layer of conv.h.
// Bytes become 16 bits, two channels in a lane: what is added to four of them lies within 1,020, four times the weights within
// 1,152. Sums of such products are four times those of the convolution, exactly.
#pragma once

#include <cstdint>

#include "conv.h"

namespace ew {

constexpr int64_t kPoints = 16;  // of a tile, row by row

// Neighbouring tiles of one vector that lie in one row of them.
struct WinogradPiece {
    int64_t from;          // bytes from a plane's start to the upper left value that a tile in lane 0 would meet
    uint32_t left, right;  // bits 2 * lane and 2 * lane + 1: columns 0 and 1 (2 and 3) of a tile that are in the input
    uint16_t rows;         // of the tiles' four, a bit each: those in the input
    uint16_t last;         // of its vector
};

struct WinogradInput {
    const uint8_t* x;  // of the first plane
    int64_t x_plane;   // bytes
    int64_t x_row;     // bytes
    int64_t planes;
    const WinogradPiece* pieces;
    int64_t vectors;
    uint32_t fill;     // 4 bytes: what padding is
    uint8_t* to;       // [point][plane][vector]; of bytes [point][plane][channels 0 and 2, then 1 and 3][vector]
    int64_t to_point;  // bytes
};

struct WinogradKernel {
    void (*input)(const WinogradInput& input);
    // Sums [point][output][row] of 4 outputs, points `point` bytes apart, to two rows of pixels each: first the upper ones of all
    // outputs, [output][2 * row], then the lower ones. Row is a multiple of the lanes.
    void (*output)(const uint8_t* sums, int64_t point, int64_t row, float* to);
    // Of bytes; float32 has conv's.
    const char* name;
    int64_t vectors;  // of tiles that are computed at once
    // One point's sums of stretch.outputs outputs, whole lines, from block.entries pairs of channels to block.partial.
    void (*multiply)(const ConvFinish&, const ConvBlock& block, const ConvStretch& stretch);
};

const WinogradKernel& winograd_kernel(Isa isa);
// Of bytes: there are two, on kAvx2 and kGeneric.
const WinogradKernel& winograd_bytes_kernel(Isa isa);

}  // namespace ew
