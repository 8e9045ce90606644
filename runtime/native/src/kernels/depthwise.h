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

struct DepthwiseKernel {
    const char* name;
    int64_t lanes;
    // Sums of `vectors` vectors of pixels: [4][row] of 4 channels (8-bit), or [row] of one (float32). Reads a vector beyond.
    void (*sums)(const DepthwiseRow& input, int64_t vectors, int64_t row, void* sums);
    // 8-bit, where ConvFinish::direct: to the output's bytes at once; null when there is no such kernel.
    void (*direct)(const DepthwiseRow& input, const ConvFinish& finish, const float* scale, const float* bias, int64_t pixels,
                   uint8_t* y);
};

constexpr int64_t kDepthwiseSlack = 2 * 64 + 16;  // bytes that may be read behind the last row

const DepthwiseKernel& depthwise_kernel(Isa isa, bool integer, bool safe_pairs);

}  // namespace ew
