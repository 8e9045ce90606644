#include "conv_geometry.h"

#include <algorithm>

namespace ew {
namespace {

constexpr int64_t kMostStep = int64_t{1} << 24;       // a kernel's size, stride, dilation or padding
constexpr int64_t kMostPixelsOfPlane = int64_t{1} << 40;
constexpr int64_t kMostPositions = int64_t{1} << 24;  // of a kernel

// Fills the last of `to` from an attribute; absent: leaves it as it is.
Status read_list(const Setup& setup, const char* key, int32_t spatial, int64_t least, int64_t* to) {
    const auto& values = setup.attributes.integers(key);
    if (values.empty()) return {};
    if (values.size() != static_cast<size_t>(spatial)) return setup.refuse("%s wants a number per spatial dim", key);
    for (int32_t i = 0; i < spatial; ++i) {
        const int64_t value = values[static_cast<size_t>(i)];
        if (value < least || value > kMostStep) return setup.refuse("%s is out of range", key);
        to[3 - spatial + i] = value;
    }
    return {};
}

Status read_pads(const Setup& setup, int32_t spatial, int64_t* begins, int64_t* ends) {
    const auto& values = setup.attributes.integers("pads");
    if (values.empty()) return {};
    if (values.size() != static_cast<size_t>(2 * spatial)) return setup.refuse("pads wants two numbers per spatial dim");
    for (int64_t value : values) {
        if (value < 0 || value > kMostStep) return setup.refuse("pads are out of range");
    }
    std::copy_n(values.begin(), spatial, begins + 3 - spatial);
    std::copy_n(values.begin() + spatial, spatial, ends + 3 - spatial);
    return {};
}

// A kernel of one position that moves by one, without padding.
bool is_pointwise(const ConvGeometry& g) {
    bool same = g.positions == 1;
    for (int i = 0; i < 3; ++i) same = same && g.stride[i] == 1 && g.pad[i] == 0 && g.in[i] == g.out[i];
    return same;
}

}  // namespace

Status read_geometry(const Setup& setup, const Tensor& x, const Tensor& y, ConvGeometry* geometry) {
    ConvGeometry& g = *geometry;
    g = ConvGeometry();
    if (x.rank < 2 || x.rank > 5 || y.rank != x.rank) return setup.refuse("wants x and y of 2 to 5 dims");
    const int32_t spatial = x.rank - 2;
    g.batch = x.dims[0], g.in_channels = x.dims[1], g.out_channels = y.dims[1];
    if (g.in_channels < 1) return setup.refuse("wants channels");
    if (y.dims[0] != g.batch) return setup.refuse("wants y of as many samples as x");
    std::copy_n(x.dims + 2, spatial, g.in + 3 - spatial);
    std::copy_n(y.dims + 2, spatial, g.out + 3 - spatial);
    int64_t ends[3] = {0, 0, 0};
    EW_TRY(read_list(setup, "kernel", spatial, 1, g.kernel));
    EW_TRY(read_list(setup, "strides", spatial, 1, g.stride));
    EW_TRY(read_list(setup, "dilations", spatial, 1, g.dilation));
    EW_TRY(read_pads(setup, spatial, g.pad, ends));
    for (int i = 0; i < 3; ++i) {
        const int64_t room = g.in[i] + g.pad[i] + ends[i] - ((g.kernel[i] - 1) * g.dilation[i] + 1);
        const int64_t size = room < 0 ? 0 : room / g.stride[i] + 1;
        if (size != g.out[i])
            return setup.refuse("y has %lld pixels along a dim, not %lld", static_cast<long long>(g.out[i]),
                                static_cast<long long>(size));
        if (__builtin_mul_overflow(g.in_pixels, g.in[i], &g.in_pixels) || g.in_pixels > kMostPixelsOfPlane ||
            __builtin_mul_overflow(g.out_pixels, g.out[i], &g.out_pixels) || g.out_pixels > kMostPixelsOfPlane) {
            return setup.refuse("has too many pixels");
        }
        if (g.kernel[i] > kMostPositions / g.positions) return setup.refuse("its kernel is too large");
        g.positions *= g.kernel[i];
    }
    g.pointwise = is_pointwise(g);
    return {};
}

}  // namespace ew
