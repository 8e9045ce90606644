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
constexpr int64_t kMostVectors = 7;          // of a tile, on any instruction set
constexpr int64_t kMostPixels = kMostVectors * 16;
constexpr int64_t kMostTogether = 4;         // tiles
constexpr int64_t kOrderEntries = 128;       // of a line that have an order of their own
#if defined(__aarch64__) || defined(__arm__)
constexpr bool kAnyShifts = true;            // whether this processor has kernels for which ConvKernel::shifts
#else
constexpr bool kAnyShifts = false;
#endif
constexpr int64_t kPiecePixels = 16;         // of a row of a tile that are packed at once

// What becomes of the sums: the same for the whole operator.
struct ConvFinish {
    bool integer = false;         // sums are int32, else float32
    Function activation = Function::kNone;
    float alpha = 0, beta = 0;
    bool coarse = false;          // gelu: steps of y are so large that gelu_coarse() does
    bool residual_first = false;  // before the activation, not after it
    DType residual = EW_F32;
    float residual_scale = 1;
    float residual_zero_point = 0;
    bool gated = false;           // the residual, float32 and after the activation, is a factor
    // Before the residual, and after the activation: to steps of inner_scale, at least inner_low and at most inner_high of them;
    // then inner_shift is added.
    bool rounds = false;
    float inner_inverse_scale = 1, inner_scale = 1;
    float inner_low = 0, inner_high = 0, inner_shift = 0;
    DType y = EW_F32;
    float y_inverse_scale = 1;
    int32_t y_zero_point = 0;
    int32_t low = 0, high = 255;  // of 8-bit y
    // After scale, bias and residual there is at most a clamp: to [alpha, beta] (float32 y), or to [low, high] (8-bit y; its
    // scale and zero point are in the operator's scale, bias and residual_scale, and all values fit an int32). Kernels do it
    // in registers.
    bool direct = false;
    bool clamps = false;          // direct: the clamp is more than the dtype's own
};

// Some outputs for `pixels` pixels. Planes are of 4 bytes a pixel: an output (float32), or 4 of them (8-bit).
struct ConvStretch {
    int64_t pixels;
    int64_t outputs;
    const float* scale;  // of these outputs; readable up to a whole line
    const float* bias;
    uint8_t* y;          // of the first output's plane, at the first pixel
    int64_t y_plane;     // bytes
    const uint8_t* residual = nullptr;  // as y
    int64_t residual_plane = 0;
    int64_t factor_at = 0;  // from an output's scale to its factor, which comes behind the activation; 0: it has none

    float factor(int64_t output) const { return factor_at > 0 ? scale[factor_at + output] : 1.0f; }

    // Past `count` outputs, a multiple of 4.
    void advance(const ConvFinish& finish, int64_t count) {
        outputs -= count;
        scale += count, bias += count;
        y += (finish.y == EW_F32 ? count : count / 4) * y_plane;
        if (residual) residual += (finish.residual == EW_F32 ? count : count / 4) * residual_plane;
    }
};

// A tile and the weights of some blocks of outputs.
struct ConvBlock {
    const uint8_t* x;       // of the tile's first entry
    int64_t x_stride;       // bytes from entry to entry
    int64_t vectors;        // of pixels
    const uint8_t* w;       // dense: of the first line; sparse: of all blocks
    int64_t line_bytes;     // dense: from line to line
    int64_t entries;        // dense: to add, of each line
    // Dense, of the first line: for each kOrderEntries entries the number of pairs, then which entries of the tile the weights meet. Those
    // of a pair are neighbours, come first, and their products fit 16 bits when all four of an output are added. Null: as they come.
    const uint8_t* order;
    int64_t order_bytes;    // from line to line
    bool resumes, ends;     // dense: whether sums begin with what partial holds, and whether they go to y or to partial
    int64_t outputs;        // sparse: of a block (1, 2 or 4)
    const int32_t* index;   // sparse: of all blocks
    const int32_t* start;   // sparse: of the first block, in the first part of the entries
    int64_t parts;          // sparse: of the entries
    int64_t part_blocks;    // sparse: from a block's start to the same block's in the next part
    uint8_t* partial;       // where entries come in several parts: room for the sums of all outputs
    float* sums;            // room for [kLine][kMostPixels]
    const int32_t* begins;  // of the first output: 128 times the sum of its weights, where ConvKernel::shifts
};

// Pixels that lie side by side, `step` apart in the input.
struct ConvRun {
    int32_t pixel, count;
    int64_t source;
};

// Runs of one plane.
struct ConvPack {
    const uint8_t* x;
    uint8_t* to;
    const ConvRun* runs;
    int64_t run_count;
    int64_t step;
    int64_t x_plane;  // bytes to the plane that comes next
};

// Neighbouring lanes of 16 pixels of a tile that meet neighbouring pixels of the input; the others meet other pieces or padding.
struct ConvPiece {
    int64_t from;     // bytes: what lane 0 would meet
    uint32_t pixels;  // of a step of 2: those to read, from `from` on
    uint16_t lanes;
    uint16_t last;    // of its 16 pixels
};

// One position of the kernel: what the pixels of a tile meet there, `shift` bytes further on than the pieces say.
struct ConvSpot {
    const ConvPiece* pieces;
    int64_t shift;
};

struct ConvTile {
    const uint8_t* x;    // of the first plane
    int64_t x_plane;     // bytes
    int64_t planes;
    uint8_t* tile;       // of the first plane's first spot
    int64_t tile_plane;  // bytes
    int64_t row_bytes;   // from spot to spot
    const ConvSpot* spots;
    int64_t spot_count;
    int64_t step;
    uint32_t fill;       // 4 bytes
};

struct ConvKernel {
    const char* name;
    int64_t lanes;    // pixels of a vector
    int64_t vectors;  // of a tile, at most
    int64_t together; // tiles that a few lines of dense weights meet before the next ones come, at most kMostTogether
    int64_t list_vectors[3];  // of one that meets lists of 1, 2 and 4 outputs
    int64_t spare;    // pixels for which line() is faster than one more vector
    // stretch.outputs outputs (from the start of a line) for stretch.pixels pixels, to the end.
    void (*dense)(const ConvFinish& finish, const ConvBlock& block, const ConvStretch& stretch);
    void (*sparse)(const ConvFinish& finish, const ConvBlock& block, const ConvStretch& stretch);
    // As dense(), for stretch.pixels <= spare pixels.
    void (*lines)(const ConvFinish& finish, const ConvBlock& block, const ConvStretch& stretch);
    // Sums [4][row], row a multiple of the lanes, of stretch.outputs <= 4 outputs.
    void (*finish)(const ConvFinish& finish, const float* sums, int64_t row, const ConvStretch& stretch);
    // Sums [pixels][row] of pixels from first_pixel on, row a multiple of kLine.
    void (*finish_columns)(const ConvFinish& finish, const float* sums, int64_t row, int64_t first_pixel, int64_t pixels,
                           const ConvStretch& stretch);
    void (*pack)(const ConvPack& pack);
    void (*fill)(const ConvTile& tile);
    // bfloat16: float32 rows of a tile, of `planes` planes, to rows of pairs of planes, from the tile's start on; else null.
    void (*pair)(uint8_t* tile, int64_t planes, int64_t positions, int64_t row_bytes);
    bool orders = false;  // dense() and lines() take ConvBlock::order
    bool shifts = false;  // fill() packs bytes less 128, for instructions whose factors are both signed
};

// safe_pairs: no two neighbouring weights exceed 128 in sum of magnitudes.
const ConvKernel& conv_kernel(Isa isa, bool integer, bool safe_pairs);
// For bfloat16, dense; null where the processor has no instruction for it.
const ConvKernel* brain_kernel(Isa isa);

}  // namespace ew
