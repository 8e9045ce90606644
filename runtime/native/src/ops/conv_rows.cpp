#include "conv_rows.h"

#include <algorithm>

namespace ew {
namespace {

constexpr int64_t kFewInputs = 4;                        // for which packing takes so long that half a vector may be empty
constexpr int64_t kRowCycles = 4000;                     // that are worth a piece of their own

// Of a row, with those that are computed twice: at most a sixth.
bool fills_blocks(int64_t pixels) {
    return pixels >= kRowPixels && (pixels + kRowPixels - 1) / kRowPixels * kRowPixels * 6 <= pixels * 7;
}

// By measurements (docs/notes/native-kernels.md): of 3, 5 and 7 columns, all lanes of two vectors in use, and not too many weights.
bool pays(const ConvGeometry& g, int64_t most_weights_bytes) {
    const int64_t lines = (g.out_channels + kLine - 1) / kLine, entries = g.in_channels * g.positions;
    const bool few = entries > 0 && lines <= most_weights_bytes / kLineBytes / entries;
    const bool odd = g.kernel[2] >= 3 && g.kernel[2] <= 7 && g.kernel[2] % 2 == 1 && g.kernel[1] >= 3;
    return few && odd && (g.out_channels % (2 * kLine) == 0 || g.in_channels <= kFewInputs) && fills_blocks(g.out[2]);
}

}  // namespace

bool ConvRows::prepare(Setup& setup, const ConvGeometry& g, const ConvFinish& finish) {
    kernel_ = conv_row_kernel(setup.isa);
    geometry_ = g;
    const bool flat = g.in[0] == 1 && g.out[0] == 1 && g.kernel[0] == 1 && g.pad[0] == 0;
    const bool near = g.stride[2] == kRowStep && g.dilation[1] == 1 && g.dilation[2] == 1 && g.kernel[2] <= kMostRowColumns;
    const bool plain = finish.direct && finish.y == EW_F32 && !setup.input(4);
    const bool takes = kernel_ && flat && near && plain && pays(g, kernel_->most_weights_bytes);
    if (takes) setup.kernel = kernel_->name;
    return takes;
}

int64_t ConvRows::windows_bytes() const { return 2 * geometry_.in_channels * geometry_.kernel[1] * kWindowColumns * 4; }

void ConvRows::run(const Run& run, const ConvFinish& finish, const ConvScales& scales, int64_t thread_bytes) const {
    const ConvGeometry& g = geometry_;
    const int64_t cycles = g.in_channels * g.positions * g.out[2] * ((g.out_channels + kLine - 1) / kLine);
    const int64_t grain = std::max<int64_t>(1, kRowCycles / std::max<int64_t>(cycles, 1));
    run.pool.parallel(g.batch * g.out[1], grain, [&](int64_t begin, int64_t end, int32_t thread) {
        for (int64_t item = begin; item < end; ++item) compute_row(run, finish, scales, item, run.scratch + thread * thread_bytes);
    });
}

// A row of all outputs.
void ConvRows::compute_row(const Run& run, const ConvFinish& finish, const ConvScales& scales, int64_t item, uint8_t* windows) const {
    const ConvGeometry& g = geometry_;
    const int64_t sample = item / g.out[1], y = item % g.out[1], top = y * g.stride[1] - g.pad[1];
    const int64_t first = std::clamp<int64_t>(-top, 0, g.kernel[1]), last = std::clamp<int64_t>(g.in[1] - top, first, g.kernel[1]);
    ConvRow row{};
    row.x_plane = g.in_pixels * 4, row.x_row = g.in[2] * 4;
    row.x = run.inputs[0]->data + sample * g.in_channels * row.x_plane + (top + first) * row.x_row;
    row.in_columns = g.in[2], row.pad = g.pad[2];
    row.planes = g.in_channels;
    row.rows = last - first, row.columns = g.kernel[2];
    row.plane_bytes = g.positions * kLineBytes, row.line_bytes = g.in_channels * row.plane_bytes;
    row.w = run.inputs[1]->data + first * g.kernel[2] * kLineBytes;
    row.windows = windows;
    ConvStretch stretch{};
    stretch.pixels = g.out[2], stretch.outputs = g.out_channels;
    scales.at(0, &stretch);
    stretch.y_plane = g.out_pixels * 4;
    stretch.y = run.outputs[0]->data + sample * g.out_channels * stretch.y_plane + y * g.out[2] * 4;
    kernel_->compute(finish, row, stretch);
}

}  // namespace ew
