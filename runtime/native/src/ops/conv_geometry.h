// Where each output pixel of a convolution reads its input: what conv and depthwise share.
#pragma once

#include "../kernels/conv.h"
#include "../op.h"

namespace ew {

// Up to three spatial dims; those that a tensor lacks are 1 and come first.
struct ConvGeometry {
    int64_t batch = 0, in_channels = 0, out_channels = 0;
    int64_t in[3] = {1, 1, 1}, out[3] = {1, 1, 1};
    int64_t kernel[3] = {1, 1, 1}, stride[3] = {1, 1, 1}, dilation[3] = {1, 1, 1}, pad[3] = {0, 0, 0};
    int64_t in_pixels = 1, out_pixels = 1, positions = 1;
    bool pointwise = false;  // output pixel p reads input pixel p alone
};

// From the attributes kernel, strides, dilations and pads. Refuses what does not give y's dims.
Status read_geometry(const Setup& setup, const Tensor& x, const Tensor& y, ConvGeometry* geometry);

// Neighbouring output pixels of one row.
struct ConvRow {
    int64_t begin, end;  // columns
    int64_t y, z;        // the input row and slice of the kernel's first position
};

// The rows of `count` output pixels from `first` on. `rows` has room for `count`. Returns how many there are.
int64_t make_rows(const ConvGeometry& geometry, int64_t first, int64_t count, ConvRow* rows);

// What these pixels meet at one position of the kernel, then `spare` pixels of padding. `runs` has room for 3 a row and 1.
// Returns how many there are.
int64_t make_runs(const ConvGeometry& geometry, const ConvRow* rows, int64_t row_count, int64_t position, int64_t spare,
                  ConvRun* runs);

}  // namespace ew
