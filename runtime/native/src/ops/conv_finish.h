// The attributes and operands that say what becomes of sums: what conv and depthwise share.
#pragma once

#include <vector>

#include "../kernels/conv.h"
#include "../op.h"

namespace ew {

struct ConvScales {
    std::vector<float> scale, bias;  // per output, with a line of spare ones; behind the scales, as many factors if there are any
    int64_t factor_at = 0;           // the first of these

    // Those from an output on.
    void at(int64_t output, ConvStretch* stretch) const {
        stretch->scale = scale.data() + output, stretch->bias = bias.data() + output;
        stretch->factor_at = factor_at;
    }
};

// Inputs 2, 3 and 4 are scale, bias and residual; output 0 is y. Scales of two rows are followed by a factor for each output, which
// comes behind the activation. `products` are added up for each of y's values.
Status read_finish(const Setup& setup, bool integer, int64_t products, ConvFinish* finish, ConvScales* scales);

// Bytes of a pixel's plane: one channel (float32), or four (8-bit).
inline int64_t planes_of(const Tensor& tensor) {
    return tensor.layout == Layout::kC4 ? (tensor.dims[1] + 3) / 4 : tensor.dims[1];
}

}  // namespace ew
