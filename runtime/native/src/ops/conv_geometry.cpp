#include "conv_geometry.h"

#include <algorithm>

namespace ew {
namespace {

constexpr int64_t kMostStep = int64_t{1} << 24;       // a kernel's size, stride, dilation or padding
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

int64_t ceil_divide(int64_t a, int64_t b) { return a >= 0 ? (a + b - 1) / b : -(-a / b); }

// A kernel of one position that moves by one, without padding.
bool is_pointwise(const ConvGeometry& g) {
    bool same = g.positions == 1;
    for (int i = 0; i < 3; ++i) same = same && g.stride[i] == 1 && g.pad[i] == 0 && g.in[i] == g.out[i];
    return same;
}

struct Row {
    ConvRun* next;
    int64_t pixel;  // of the tile

    void add(int64_t count, int64_t source) {
        if (count <= 0) return;
        *next++ = {static_cast<int32_t>(pixel), static_cast<int32_t>(count), source};
        pixel += count;
    }
};

// Output columns [begin, end) of one row; `row_start` is the input row's first pixel, `shift` the input column of output 0.
void add_row(const ConvGeometry& g, int64_t row_start, int64_t shift, int64_t begin, int64_t end, Row* row) {
    const int64_t low = std::clamp(ceil_divide(-shift, g.stride[2]), begin, end);
    const int64_t high = std::clamp(ceil_divide(g.in[2] - shift, g.stride[2]), low, end);
    row->add(low - begin, -1);
    row->add(high - low, row_start + low * g.stride[2] + shift);
    row->add(end - high, -1);
}

}  // namespace

Status read_geometry(const Setup& setup, const Tensor& x, const Tensor& y, ConvGeometry* geometry) {
    ConvGeometry& g = *geometry;
    g = ConvGeometry();
    if (x.rank < 2 || x.rank > 5 || y.rank != x.rank) return setup.refuse("wants x and y of 2 to 5 dims");
    const int32_t spatial = x.rank - 2;
    g.batch = x.dims[0], g.in_channels = x.dims[1], g.out_channels = y.dims[1];
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
        if (size != g.out[i]) return setup.refuse("y has %lld pixels along a dim, not %lld", static_cast<long long>(g.out[i]), static_cast<long long>(size));
        g.in_pixels *= g.in[i], g.out_pixels *= g.out[i];
        if (g.kernel[i] > kMostPositions / g.positions) return setup.refuse("its kernel is too large");
        g.positions *= g.kernel[i];
    }
    g.pointwise = is_pointwise(g);
    return {};
}

int64_t make_runs(const ConvGeometry& g, int64_t position, int64_t first, int64_t count, int64_t spare, ConvRun* runs) {
    Row row{runs, 0};
    if (g.pointwise) {
        row.add(count, first);
    } else {
        const int64_t kernel_x = position % g.kernel[2], kernel_y = position / g.kernel[2] % g.kernel[1];
        const int64_t kernel_z = position / g.kernel[2] / g.kernel[1];
        const int64_t shift = kernel_x * g.dilation[2] - g.pad[2];
        for (int64_t p = first, end = first + count; p < end;) {
            const int64_t line = p / g.out[2], begin = p % g.out[2];
            const int64_t stop = std::min(g.out[2], begin + end - p);
            const int64_t y = line % g.out[1] * g.stride[1] + kernel_y * g.dilation[1] - g.pad[1];
            const int64_t z = line / g.out[1] * g.stride[0] + kernel_z * g.dilation[0] - g.pad[0];
            if (y < 0 || y >= g.in[1] || z < 0 || z >= g.in[0]) row.add(stop - begin, -1);
            else add_row(g, (z * g.in[1] + y) * g.in[2], shift, begin, stop, &row);
            p += stop - begin;
        }
    }
    row.add(spare, -1);
    return row.next - runs;
}

}  // namespace ew
