// The inner part of the operator depthwise (ops/depthwise.cpp). docs/notes/native-kernels.md describes it.
//
// The rows of an input plane lie padded in scratch memory, columns sorted by their remainder to the stride, so that the pixels
// of an output row meet neighbouring pixels at each tap. float32: a tap is one position of the kernel. 8 bits: a tap is up to
// four neighbouring positions of a row, and its weights are 4 bytes for each of 4 channels.
#pragma once

#include "conv.h"

namespace ew {

struct DepthwiseRow {
    const uint8_t* x;            // of the first output pixel
    const int64_t* offsets;      // of the taps, in bytes from x
    const uint8_t* weights;      // a tap's are 16 bytes (8-bit) or 4 (float32)
    int64_t taps;
    const uint8_t* channels;     // 8-bit: which byte of a pixel each of the 4 outputs reads
};

// What a tap reads of a row of x for some neighbouring outputs.
struct DepthwiseLoad {
    int64_t offset;  // in pixels, from the row's first
    uint32_t mask;   // of what lies in the row
};

// Some rows of outputs of a plane of x (8-bit: of four channels) as it lies in memory.
struct DepthwisePlane {
    const uint8_t* x;
    int64_t in_rows, in_columns;
    int64_t pad_row, pad_column;
    const uint8_t* weights;      // [rows of the kernel][taps], a tap's being 16 bytes (8-bit; of 4 positions) or 4 (float32)
    int64_t taps;                // of a row of the kernel
    const uint8_t* channels;     // as above
    uint32_t fill;               // 8-bit: what padding holds
    int64_t first_row, rows, columns;  // of outputs
    const ConvFinish* finish;    // direct
    const float *scale, *bias;
    uint8_t* y;                  // at first_row
    const DepthwiseLoad* loads;  // of all columns, as lay() gives them; null: not known yet
};

// For a kernel's rows, a stride and the columns of y.
struct DepthwisePlanes {
    void (*compute)(const DepthwisePlane& plane) = nullptr;
    // What the taps read is the same for all planes and rows: [columns / block][loads of a row's taps].
    void (*lay)(const DepthwisePlane& plane, DepthwiseLoad* loads) = nullptr;
    int64_t block = 1;      // columns of y that are computed at once
    int64_t tap_loads = 1;  // of a tap
};

struct DepthwiseKernel {
    const char* name;
    int64_t lanes;
    // Sums of `vectors` vectors of pixels, as float32: [4][row] of 4 channels (x in 8 bits), or [row] of one (float32). Reads a vector
    // beyond.
    void (*sums)(const DepthwiseRow& input, int64_t vectors, int64_t row, float* sums);
    // 8-bit, where ConvFinish::direct: to the output's bytes at once; null when there is no such kernel.
    void (*direct)(const DepthwiseRow& input, const ConvFinish& finish, const float* scale, const float* bias, int64_t pixels,
                   uint8_t* y);
    // What computes planes at once, for a stride of both dims, without dilation; null, or its compute() is: nothing does.
    DepthwisePlanes (*planes)(int64_t kernel_rows, int64_t stride, int64_t columns) = nullptr;
};

constexpr int kDepthwiseRows = 7;  // of outputs that planes makes at once: planes of 7, 14, 28... pixels a side are common
constexpr int64_t kMostDepthwiseColumns = 16;  // of a kernel that planes takes
constexpr int64_t kDepthwiseSlack = 2 * 64 + 16;  // bytes that may be read behind the last row

const DepthwiseKernel& depthwise_kernel(Isa isa, bool integer, bool safe_pairs);

}  // namespace ew
