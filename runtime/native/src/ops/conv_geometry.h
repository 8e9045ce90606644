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

}  // namespace ew
