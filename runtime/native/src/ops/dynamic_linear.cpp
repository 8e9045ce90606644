// Linear layers that read float32 and multiply in 8 bits: each pixel (a token) is rounded as it comes, by the range of each group of
// its channels. kernels/dynamic.h says how.
//
// Inputs: x [N, C, ..] and y [N, M, ..] of as many pixels; weights s8 [M / 16][C / 4][16][4], a scale that is left out, bias, residual, and
// terms [M / 16][groups][2][16] float32. Attribute group: channels that share a range, all or a multiple of 4 that divides them; beside it
// those of conv that say what becomes of sums.
#include <algorithm>

#include "../kernels/dynamic.h"
#include "conv_finish.h"
#include "conv_geometry.h"

namespace ew {
namespace {

constexpr int64_t kPieceCycles = 4000;  // that are worth a piece of their own
constexpr int64_t kMostChannels = 60000;  // whose products of 255 by -128 fit an int32

// Pixels of a sample that are multiplied together; spare ones do not fill a vector, and outputs are the lanes.
struct Tile {
    int64_t first, pixels, width;
    bool spare;
};

class DynamicLinear final : public Operator {
public:
    Status prepare(Setup& setup) override {
        const Tensor *x = setup.input(0), *weights = setup.input(1), *terms = setup.input(5);
        if (!x || !weights || !terms || setup.output_count != 1) return setup.refuse("wants x, weights and terms, and gives one output");
        if (x->dtype != EW_F32 || x->layout != Layout::kPlain) return setup.refuse("wants x as plain float32");
        EW_TRY(read_geometry(setup, *x, *setup.outputs[0], &geometry_));
        if (!geometry_.pointwise) return setup.refuse("wants as many pixels of y as of x");
        EW_TRY(read_weights(setup, *weights, *terms));
        EW_TRY(read_finish(setup, false, geometry_.in_channels, &finish_, &scales_));
        has_residual_ = setup.input(4) != nullptr;
        kernel_ = &dynamic_kernel(setup.isa);
        setup.kernel = kernel_->name;
        cut();
        return reserve(setup);
    }

    void run(const Run& run) override {
        const int64_t samples = geometry_.batch, tiles = samples * tiles_;
        if (tiles == 0) return;
        const int64_t channels = geometry_.in_channels;
        // A channel of a vector takes some four cycles to round.
        run.pool.parallel(tiles, std::max<int64_t>(1, kPieceCycles / (4 * channels * kernel_->vectors)), [&](int64_t begin, int64_t end, int32_t) {
            for (int64_t i = begin; i < end; ++i) kernel_->round(rounding_of(run, i));
        });
        const int64_t unit_cycles = 2 * entries_ * kernel_->vectors;
        run.pool.parallel(tiles * lines_, std::max<int64_t>(1, kPieceCycles / unit_cycles), [&](int64_t begin, int64_t end, int32_t) {
            while (begin < end) {
                const int64_t line = begin % lines_, some = std::min(end - begin, lines_ - line);
                compute(run, begin / lines_, line, some);
                begin += some;
            }
        });
    }

private:
    Status read_weights(const Setup& setup, const Tensor& weights, const Tensor& terms) {
        const int64_t channels = geometry_.in_channels;
        group_ = setup.attributes.integer("group", 0);
        if (channels > kMostChannels) return setup.refuse("has too many channels");
        if (group_ < 1 || group_ > channels || channels % group_ != 0 || (group_ != channels && group_ % 4 != 0)) {
            return setup.refuse("wants all channels in a group, or a multiple of 4 that divides them");
        }
        groups_ = channels / group_;
        entries_ = groups_ * ((group_ + 3) / 4);
        lines_ = geometry_.out_channels / kLine + (geometry_.out_channels % kLine > 0);
        if (!weights.constant || weights.dtype != EW_S8 || !terms.constant || terms.dtype != EW_F32) {
            return setup.refuse("wants weights as constant int8 and terms as constant float32");
        }
        const auto room = static_cast<int64_t>(weights.bytes) / kLineBytes, rows = terms.count() / (2 * kLine);
        if (lines_ < 1 || entries_ > room / lines_ || groups_ > rows / lines_) return setup.refuse("has too few weights");
        return {};
    }

    void cut() {
        const int64_t pixels = geometry_.in_pixels, left = pixels % kernel_->lanes;
        spare_ = left <= kernel_->spare ? left : 0;
        vectors_ = (pixels - spare_ + kernel_->lanes - 1) / kernel_->lanes;
        full_ = vectors_ / kernel_->vectors;
        whole_ = full_ + vectors_ % kernel_->vectors;
        tiles_ = whole_ + (spare_ > 0);
        const int64_t lanes = kernel_->lanes;
        width_ = vectors_ * lanes + (spare_ + lanes - 1) / lanes * lanes;
    }

    Tile at(int64_t tile) const {
        const int64_t lanes = kernel_->lanes, pixels = geometry_.in_pixels;
        if (tile == whole_) return {pixels - spare_, spare_, (spare_ + lanes - 1) / lanes * lanes, true};
        const int64_t most = kernel_->vectors, width = (tile < full_ ? most : 1) * lanes;
        const int64_t first = (tile < full_ ? tile * most : vectors_ - (whole_ - tile)) * lanes;
        return {first, std::min(width, pixels - spare_ - first), width, false};
    }

    // For each pixel of each sample: its bytes, then scales and shifts.
    Status reserve(Setup& setup) {
        int64_t all = 0;
        if (__builtin_mul_overflow(geometry_.batch, width_, &all) || __builtin_mul_overflow(all, entries_ * 4 + groups_ * 8, &bytes_)) {
            return setup.refuse("needs too much memory");
        }
        setup.scratch_bytes = static_cast<uint64_t>(bytes_);
        return {};
    }

    // Where a tile lies in the scratch: behind those before it.
    uint8_t* place_of(const Run& run, int64_t sample, const Tile& tile) const {
        const int64_t first = tile.spare ? vectors_ * kernel_->lanes : tile.first;
        return run.scratch + (sample * width_ + first) * (entries_ * 4 + groups_ * 8);
    }

    DynamicRounding rounding_of(const Run& run, int64_t index) const {
        const int64_t sample = index / tiles_;
        const Tile tile = at(index % tiles_);
        DynamicRounding r{};
        r.x = run.inputs[0]->as<float>() + sample * geometry_.in_channels * geometry_.in_pixels + tile.first;
        r.x_plane = geometry_.in_pixels;
        r.planes = geometry_.in_channels, r.group = group_;
        r.pixels = tile.pixels, r.width = tile.width;
        r.tile = place_of(run, sample, tile);
        r.scales = reinterpret_cast<float*>(r.tile + entries_ * 4 * tile.width);
        r.shifts = r.scales + groups_ * tile.width;
        return r;
    }

    void compute(const Run& run, int64_t index, int64_t line, int64_t lines) const {
        const int64_t sample = index / tiles_, plane = geometry_.out_pixels * 4, output = line * kLine;
        const Tile tile = at(index % tiles_);
        const Tensor& y = *run.outputs[0];
        DynamicBlock block{};
        block.x = place_of(run, sample, tile);
        block.scales = reinterpret_cast<const float*>(block.x + entries_ * 4 * tile.width);
        block.shifts = block.scales + groups_ * tile.width;
        block.width = tile.width;
        block.groups = groups_, block.entries = entries_ / groups_;
        block.w = run.inputs[1]->data + line * entries_ * kLineBytes;
        block.terms = run.inputs[5]->as<float>() + line * groups_ * 2 * kLine;
        ConvStretch stretch{};
        stretch.pixels = tile.pixels;
        stretch.outputs = std::min(lines * kLine, geometry_.out_channels - output);
        scales_.at(output, &stretch);
        stretch.y_plane = stretch.residual_plane = plane;
        stretch.y = y.data + (sample * planes_of(y) + (finish_.y == EW_F32 ? output : output / 4)) * plane + tile.first * 4;
        if (has_residual_) {
            const Tensor& from = *run.inputs[4];
            stretch.residual = from.data + (sample * planes_of(from) + (finish_.residual == EW_F32 ? output : output / 4)) * plane + tile.first * 4;
        }
        (tile.spare ? kernel_->lines : kernel_->dense)(finish_, block, stretch);
    }

    ConvGeometry geometry_;
    ConvFinish finish_;
    ConvScales scales_;
    const DynamicKernel* kernel_ = nullptr;
    int64_t group_ = 0, groups_ = 0, entries_ = 0, lines_ = 0;  // entries_: of all groups
    int64_t spare_ = 0, vectors_ = 0;  // of pixels that do not fill a vector, and vectors of the others
    int64_t full_ = 0, whole_ = 0, tiles_ = 0;  // tiles of many vectors, all of vectors, and all
    int64_t width_ = 0, bytes_ = 0;
    bool has_residual_ = false;
};

}  // namespace

Operator* make_dynamic_linear() { return new (std::nothrow) DynamicLinear; }

}  // namespace ew
