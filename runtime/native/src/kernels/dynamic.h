// The inner parts of the operator dynamic_linear (ops/dynamic_linear.cpp): linear layers whose inputs are rounded to 8 bits as they
// come, each pixel (a token) by the range of each group of its channels.
//
// Of a group real = scale * (byte - zero). So that no zero is subtracted from bytes, a product is
//   x_scale * (sum of byte * weight) * w_scale + (-x_scale * zero) * (w_scale * sum of weights)
// whose second factors of x and of the weights are made once: `shifts`, and the second 16 of a line's terms.
#pragma once

#include "conv.h"

namespace ew {

// Rounds what some pixels meet: [planes][x_plane] floats to a tile [entries][width][4 bytes] with scales and shifts [groups][width].
// Beyond `pixels` there are zeros.
struct DynamicRounding {
    const float* x;       // of the first plane
    int64_t x_plane;      // elements
    int64_t planes;
    int64_t group;        // planes of one range: all of them, or a multiple of 4 that divides them
    int64_t pixels, width;  // width: a multiple of the lanes
    uint8_t* tile;
    float *scales, *shifts;
};

struct DynamicBlock {
    const uint8_t* x;   // the tile
    const float *scales, *shifts;
    int64_t width;      // of the tile
    int64_t groups, entries;  // entries: of a group
    const uint8_t* w;   // of the first line: [lines][groups * entries][16][4 bytes]
    const float* terms; // of the first line: [lines][groups][2][16], scales and scales times sums of weights
};

struct DynamicKernel {
    const char* name;
    int64_t lanes;
    int64_t vectors;  // of a tile: so many, or one
    int64_t spare;    // pixels for which lines() is faster than one more vector
    void (*round)(const DynamicRounding& rounding);
    // stretch.outputs outputs from the start of a line, for all pixels of the tile, a multiple of the lanes.
    void (*dense)(const ConvFinish& finish, const DynamicBlock& block, const ConvStretch& stretch);
    // As dense(), for at most `spare` pixels; null where that is 0.
    void (*lines)(const ConvFinish& finish, const DynamicBlock& block, const ConvStretch& stretch);
};

const DynamicKernel& dynamic_kernel(Isa isa);

}  // namespace ew
