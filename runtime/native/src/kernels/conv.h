// The inner parts of the operator conv (ops/conv.cpp). docs/notes/native-kernels.md describes them.
//
// An entry is 4 input channels (8-bit) or 1 (float32) at one position of the kernel: 4 bytes of each pixel either way. A tile
// holds, for some neighbouring pixels of the output, what each entry meets: [entries][pixels][4 bytes]. Dense weights are
// lines of 16 outputs: [M / 16][entries][16][4 bytes]. block() takes vectors of pixels times 4 outputs; line() takes a few
// pixels times vectors of outputs, for what is left over when pixels do not fill a vector.
#pragma once

#include <cstdint>

#include "../cpu.h"
#include "../tensor.h"
#include "functions.h"

namespace ew {

constexpr int64_t kLine = 16;                // outputs of a line of dense weights
constexpr int64_t kLineBytes = kLine * 4;    // of one entry
constexpr int64_t kQuad = 4;                 // outputs of a block
constexpr int64_t kMostVectors = 6;          // of a tile, on any instruction set
constexpr int64_t kMostPixels = kMostVectors * 16;

// What becomes of the sums: the same for the whole operator.
struct ConvFinish {
    bool integer = false;         // sums are int32, else float32
    Function activation = Function::kNone;
    float alpha = 0, beta = 0;
    bool residual_first = false;  // before the activation, not after it
    DType residual = EW_F32;
    float residual_scale = 1;
    float residual_zero_point = 0;
    DType y = EW_F32;
    float y_inverse_scale = 1;
    int32_t y_zero_point = 0;
    // 8-bit y without a residual and with at most a clamp: the clamp is done on the bytes, by block() itself.
    bool direct = false;
    int32_t low = 0, high = 255;
};

// 4 outputs (fewer at the end) for `pixels` pixels. Planes are of 4 bytes a pixel: an output (float32), or 4 of them (8-bit).
struct ConvStretch {
    int64_t pixels;
    int64_t outputs;
    const float* scale;  // of these outputs; readable up to a line
    const float* bias;
    uint8_t* y;          // of the first output's plane, at the first pixel
    int64_t y_plane;     // bytes
    const uint8_t* residual = nullptr;  // as y
    int64_t residual_plane = 0;
};

struct ConvBlock {
    const uint8_t* x;     // of the tile's first entry
    int64_t x_stride;     // bytes from entry to entry
    const uint8_t* w;
    int64_t entries;
    const int32_t* index; // sparse: which entries; null: all
    void* sums;           // [4][vectors * lanes]
};

// Pixels that lie side by side, `step` apart in the input; source -1: padding.
struct ConvRun {
    int32_t pixel, count;
    int64_t source;
};

struct ConvPack {
    const uint8_t* x;   // of the first plane
    int64_t x_plane;    // bytes
    int64_t planes;
    uint8_t* tile;      // of the first plane's entry
    int64_t tile_plane; // bytes
    const ConvRun* runs;
    int64_t run_count;
    int64_t step;
    uint32_t fill;      // 4 bytes
};

struct ConvKernel {
    const char* name;
    int64_t lanes;    // pixels of a vector
    int64_t vectors;  // of a tile, at most
    int64_t spare;    // pixels for which line() is faster than one more vector
    // sums = 4 outputs x vectors of pixels.
    void (*dense)(int64_t vectors, const ConvBlock& block);
    // The same with `outputs` (1, 2, 4) sums and weights [entries][outputs][4 bytes].
    void (*sparse)(int64_t vectors, int64_t outputs, const ConvBlock& block);
    void (*finish)(const ConvFinish& finish, const void* sums, int64_t row, const ConvStretch& stretch);
    // All outputs of some lines (weights `line_bytes` apart) for `stretch.pixels` <= spare pixels, to the end.
    void (*lines)(const ConvFinish& finish, const ConvBlock& block, int64_t line_bytes, const ConvStretch& stretch);
    void (*pack)(const ConvPack& pack);
};

// safe_pairs: no two neighbouring weights exceed 128 in sum of magnitudes.
const ConvKernel& conv_kernel(Isa isa, bool integer, bool safe_pairs);

}  // namespace ew
