// A row of outputs of a dense float32 layer whose kernel steps over more than one column: straight from the planes of x
// (ops/conv_rows.cpp). docs/notes/native-kernels.md says when that pays.
#pragma once

#include "conv.h"

namespace ew {

constexpr int64_t kRowPixels = 14;      // of a row, at once: 14, 28, 56 and 112 are common
constexpr int64_t kRowStep = 2;         // columns of x from an output pixel to the next
constexpr int64_t kWindowColumns = 48;  // that are copied for so many pixels
constexpr int64_t kMostRowColumns = kWindowColumns - (kRowPixels - 1) * kRowStep;  // of the kernel

struct ConvRow {
    const uint8_t* x;       // of the first plane, at the row where the first of `rows` lies
    int64_t x_plane, x_row; // bytes
    int64_t in_columns, pad;
    int64_t planes;
    int64_t rows, columns;  // of the kernel: rows are those that lie in x
    const uint8_t* w;       // of the first line, at the first of these rows
    int64_t plane_bytes;    // of weights
    int64_t line_bytes;
    uint8_t* windows;       // room for [2][planes][rows][kWindowColumns] floats, 64-byte aligned
};

struct ConvRowKernel {
    const char* name;
    // Outputs stretch.outputs, from the start of a line on, of stretch.pixels >= kRowPixels pixels that make up a row; finish is direct
    // to float32, without a residual.
    void (*compute)(const ConvFinish& finish, const ConvRow& row, const ConvStretch& stretch);
    int64_t most_weights_bytes;  // all meet each row, from the second cache at best
};

// Null where there is none.
const ConvRowKernel* conv_row_kernel(Isa isa);

}  // namespace ew
