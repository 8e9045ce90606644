// The windows of `pool` (pool.cpp, pool_average.cpp).
#pragma once

#include <algorithm>

#include "checks.h"

namespace ew {

// One spatial axis: outputs, inputs, and where windows lie.
struct Window {
    int64_t in = 1, out = 1, kernel = 1, stride = 1, dilation = 1, begin = 0, end = 0;  // begin and end: pads

    int64_t start(int64_t at) const { return at * stride - begin; }
    // How many of a window's taps lie within [low, high).
    int64_t taps(int64_t at, int64_t low, int64_t high) const { return below(high - start(at)) - below(low - start(at)); }
    bool whole() const { return out == 1 && kernel == in && begin == 0 && dilation == 1; }
    // Of inputs with their padding that windows touch.
    int64_t span() const { return out == 0 ? 0 : (out - 1) * stride + (kernel - 1) * dilation + 1; }

    // How many of a window's taps lie less than `distance` from its start.
    int64_t below(int64_t distance) const { return distance <= 0 ? 0 : std::min(kernel, (distance + dilation - 1) / dilation); }
};

// Missing leading axes are of size 1. The engine's kernels work on rows along the last.
struct PoolShape {
    Window windows[3];
    int64_t planes_in = 0, planes_out = 0;  // elements of a channel

    Status read(const Setup& setup, const Tensor& x, const Tensor& y);
};

Operator* make_pool_max();
Operator* make_pool_average();

}  // namespace ew
