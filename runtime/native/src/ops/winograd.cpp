// Convolution 3x3 with a stride of 1 in float32 and 8 bits, by Winograd's F(2x2, 3x3) (kernels/winograd.h).
//
// Inputs: x, weights, scale, bias, residual, as conv's; weights are transformed: [lines / G][16 points][G lines][channels][16
// outputs], G being the attribute `lines`. For u8 in C4 they are four times as large, in 16 bits, and there are pairs of channels (0 and
// 2, 1 and 3 of each four) in place of channels, [16 outputs][2]. The compiler chooses it where it is faster than conv
// (packing.winograd_pays).
#include <algorithm>
#include <cstring>

#include "../kernels/winograd.h"
#include "conv_finish.h"
#include "conv_geometry.h"

namespace ew {
namespace {

constexpr int64_t kApart = 64;  // bytes between points, or all sixteen would want the same lines of the first cache

// Neighbouring tiles in one row of them.
struct TileRun {
    int64_t lane, pixel;     // of the first tile: its lane, and its upper left pixel
    int64_t pixels, rows;    // of outputs: across, and 1 at a lower border, else 2
};

// What a thread's scratch holds.
struct Transformed {
    int64_t sample = -1, block = -1;
};

class Winograd final : public Operator {
public:
    Status prepare(Setup& setup) override {
        const Tensor *x = setup.input(0), *weights = setup.input(1);
        if (!x || !weights || setup.output_count != 1) return setup.refuse("wants x and weights, and gives one output");
        const bool bytes = x->dtype == EW_U8;
        if (!(bytes ? x->layout == Layout::kC4 : x->dtype == EW_F32 && x->layout == Layout::kPlain) || x->rank != 4)
            return setup.refuse("wants x as plain float32 or u8 in C4, of 4 dims");
        EW_TRY(read_geometry(setup, *x, *setup.outputs[0], &geometry_));
        EW_TRY(check_window(setup));
        planes_ = planes_of(*x), outputs_ = geometry_.out_channels;
        entries_ = bytes ? 2 * planes_ : planes_;
        lines_ = (outputs_ + kLine - 1) / kLine;
        together_ = setup.attributes.integer("lines", 1);
        if (together_ < 1 || together_ > kMostLines || lines_ % together_ != 0)
            return setup.refuse("wants a number of lines that divides all");
        if (!weights->constant || weights->dtype != (bytes ? EW_S16 : EW_F32))
            return setup.refuse("wants constant weights, in float32 or for u8 in 16 bits");
        const int64_t room = static_cast<int64_t>(weights->bytes) / (kPoints * kLineBytes);
        if (entries_ > room / std::max<int64_t>(1, lines_)) return setup.refuse("has too few weights");
        EW_TRY(read_finish(setup, bytes, geometry_.in_channels * 9, &finish_, &scales_));
        has_residual_ = setup.input(4) != nullptr;
        EW_TRY(choose_kernels(setup, bytes));
        lay_blocks();
        return reserve(setup);
    }

    void run(const Run& run) override {
        if (geometry_.batch == 0) return;
        const int64_t groups = lines_ / together_, threads = run.pool.threads();
        for (int64_t thread = 0; thread < threads; ++thread) {
            *transformed_in(run.scratch + thread * scratch_bytes_) = Transformed();
        }
        run.pool.parallel(geometry_.batch * blocks_ * groups, 1, [&](int64_t begin, int64_t end, int32_t thread) {
            uint8_t* scratch = run.scratch + thread * scratch_bytes_;
            for (int64_t i = begin; i < end;) {
                const int64_t first = i % groups, last = std::min(groups, first + end - i);
                compute(run, i / groups / blocks_, i / groups % blocks_, first, last, scratch);
                i += last - first;
            }
        });
    }

private:
    static constexpr int64_t kMostLines = 64, kTransformedBytes = 64;
    static constexpr int kMostInputs = 1820;  // of u8: four times the sum of 9 products of each fits 32 bits

    Status choose_kernels(Setup& setup, bool bytes) {
        if (!bytes) {
            kernel_ = &conv_kernel(setup.isa, false, false), transforms_ = &winograd_kernel(setup.isa);
            multiply_ = kernel_->dense, at_once_ = kernel_->vectors;
            setup.kernel = kernel_->name;
            return {};
        }
        const int64_t zero_point = setup.attributes.integer("x_zero_point", 0);
        if (zero_point < 0 || zero_point > 255) return setup.refuse("x_zero_point is out of range");
        if (geometry_.in_channels > kMostInputs) return setup.refuse("wants at most %d channels of u8", kMostInputs);
        fill_ = static_cast<uint32_t>(zero_point) * 0x01010101u;
        kernel_ = &conv_kernel(includes(setup.isa, Isa::kAvx2) ? Isa::kAvx2 : Isa::kGeneric, false, false);
        transforms_ = &winograd_bytes_kernel(setup.isa);
        multiply_ = transforms_->multiply, at_once_ = transforms_->vectors;
        setup.kernel = transforms_->name;
        return {};
    }

    Status check_window(const Setup& setup) {
        const ConvGeometry& g = geometry_;
        for (int i = 1; i < 3; ++i) {
            const bool fits = g.kernel[i] == 3 && g.stride[i] == 1 && g.dilation[i] == 1;
            if (!fits) return setup.refuse("wants a kernel of 3x3 and steps of 1");
        }
        across_ = (g.out[2] + 1) / 2;
        tiles_ = (g.out[1] + 1) / 2 * across_;
        return {};
    }

    void lay_blocks() {
        const int64_t lanes = kernel_->lanes;
        vectors_ = (tiles_ + lanes - 1) / lanes;
        blocks_ = (vectors_ + at_once_ - 1) / at_once_;
        most_ = blocks_ > 0 ? (vectors_ + blocks_ - 1) / blocks_ * lanes : lanes;
    }

    Status reserve(Setup& setup) {
        const int64_t sums = kPoints * (together_ * kLine * most_ * 4 + kApart), rows = 16 * most_ * 4;
        int64_t all = 0;
        if (__builtin_mul_overflow(entries_, kPoints * most_ * 4, &sums_at_) || sums_at_ > INT64_MAX / 2)
            return setup.refuse("needs too much memory");
        sums_at_ = (sums_at_ + kPoints * kApart + 63) / 64 * 64;
        rows_at_ = sums_at_ + sums;
        scratch_bytes_ = rows_at_ + rows + 64 + kTransformedBytes;  // ends read a vector beyond
        if (__builtin_mul_overflow(scratch_bytes_, int64_t{setup.threads}, &all)) return setup.refuse("needs too much memory");
        setup.scratch_bytes = static_cast<uint64_t>(all);
        return {};
    }

    Transformed* transformed_in(uint8_t* scratch) const {
        return reinterpret_cast<Transformed*>(scratch + scratch_bytes_ - kTransformedBytes);
    }

    // Some groups of lines of the outputs of one block of tiles.
    void compute(const Run& run, int64_t sample, int64_t which, int64_t first, int64_t last, uint8_t* scratch) const {
        const int64_t share = vectors_ / blocks_, more = vectors_ % blocks_, lanes = kernel_->lanes;
        const int64_t begin = (which * share + std::min(which, more)) * lanes, vectors = share + (which < more);
        const int64_t row = vectors * lanes, tiles = std::min(row, tiles_ - begin);
        Transformed* there = transformed_in(scratch);
        if (there->sample != sample || there->block != which) transform(run, sample, begin, tiles, vectors, scratch);
        *there = {sample, which};
        TileRun runs[kMostPixels];
        const int64_t run_count = make_runs(begin, tiles, runs);
        for (int64_t group = first; group < last; ++group) {
            multiply(run, group, vectors, scratch);
            ConvStretch stretch = stretch_at(run, sample, group * together_ * kLine);
            const uint8_t* sums = scratch + sums_at_;
            for (int64_t left = together_ * kLine; left > 0 && stretch.outputs > 0; left -= 4, sums += 16 * row) {
                auto* rows = reinterpret_cast<float*>(scratch + rows_at_);
                transforms_->output(sums, point_bytes(together_ * kLine, vectors), row, rows);
                for (int64_t i = 0; i < run_count; ++i) finish(runs[i], rows, row, stretch);
                stretch.advance(finish_, 4);
            }
        }
    }

    void transform(const Run& run, int64_t sample, int64_t first, int64_t tiles, int64_t vectors, uint8_t* scratch) const {
        WinogradPiece pieces[kMostPixels];
        make_pieces(first, tiles, pieces);
        WinogradInput input{};
        input.x_plane = geometry_.in_pixels * 4, input.x_row = geometry_.in[2] * 4;
        input.x = run.inputs[0]->data + sample * planes_ * input.x_plane;
        input.planes = planes_;
        input.pieces = pieces;
        input.vectors = vectors;
        input.fill = fill_;
        input.to = scratch;
        input.to_point = point_bytes(entries_, vectors);
        transforms_->input(input);
    }

    int64_t point_bytes(int64_t rows, int64_t vectors) const { return rows * vectors * kernel_->lanes * 4 + kApart; }

    void make_pieces(int64_t first, int64_t tiles, WinogradPiece* next) const {
        const ConvGeometry& g = geometry_;
        const int64_t lanes = kernel_->lanes;
        for (int64_t tile = 0; tile < tiles; ++next) {
            const int64_t lane = tile % lanes, column = (first + tile) % across_, y = (first + tile) / across_ * 2 - g.pad[1];
            const int64_t count = std::min({lanes - lane, tiles - tile, across_ - column}), x = 2 * column - g.pad[2];
            *next = {(y * g.in[2] + x - 2 * lane) * 4, 0, 0, 0, 0};
            for (int64_t i = 0; i < 2 * count; ++i) {
                const auto bit = uint32_t{1} << (2 * lane + i);
                if (x + i >= 0 && x + i < g.in[2]) next->left |= bit;
                if (x + i + 2 >= 0 && x + i + 2 < g.in[2]) next->right |= bit;
            }
            for (int64_t i = 0; i < 4; ++i) next->rows |= static_cast<uint16_t>((y + i >= 0 && y + i < g.in[1]) << i);
            tile += count;
            next->last = tile % lanes == 0 || tile == tiles;
        }
    }

    void multiply(const Run& run, int64_t group, int64_t vectors, uint8_t* scratch) const {
        ConvStretch stretch = stretch_at(run, 0, 0);
        stretch.outputs = together_ * kLine;
        ConvBlock block{};
        block.x_stride = vectors * kernel_->lanes * 4;
        block.vectors = vectors;
        block.line_bytes = entries_ * kLineBytes;
        block.entries = entries_;
        block.w = run.inputs[1]->data + group * kPoints * together_ * block.line_bytes;
        block.x = scratch;
        block.partial = scratch + sums_at_;
        for (int64_t point = 0; point < kPoints; ++point) {
            multiply_(finish_, block, stretch);
            block.w += together_ * block.line_bytes;
            block.x += point_bytes(entries_, vectors);
            block.partial += point_bytes(together_ * kLine, vectors);
        }
    }

    int64_t make_runs(int64_t first, int64_t tiles, TileRun* runs) const {
        const TileRun* begin = runs;
        const int64_t width = geometry_.out[2];
        for (int64_t lane = 0; lane < tiles;) {
            const int64_t line = (first + lane) / across_, column = (first + lane) % across_;
            const int64_t count = std::min(across_ - column, tiles - lane);
            *runs++ = {lane, line * 2 * width + column * 2, std::min(2 * count, width - 2 * column),
                       std::min<int64_t>(2, geometry_.out[1] - 2 * line)};
            lane += count;
        }
        return runs - begin;
    }

    // Four outputs' two rows of pixels, for a run of tiles.
    void finish(const TileRun& tiles, const float* rows, int64_t row, ConvStretch stretch) const {
        stretch.pixels = tiles.pixels;
        stretch.y += tiles.pixel * 4;
        if (stretch.residual) stretch.residual += tiles.pixel * 4;
        for (int64_t i = 0; i < tiles.rows; ++i, rows += 8 * row) {
            kernel_->finish(finish_, rows + 2 * tiles.lane, 2 * row, stretch);
            stretch.y += geometry_.out[2] * 4;
            if (stretch.residual) stretch.residual += geometry_.out[2] * 4;
        }
    }

    ConvStretch stretch_at(const Run& run, int64_t sample, int64_t output) const {
        const Tensor& y = *run.outputs[0];
        const int64_t plane = geometry_.out_pixels * 4;
        const auto at = [&](const Tensor& tensor) {
            return tensor.data + (sample * planes_of(tensor) + (tensor.dtype == EW_F32 ? output : output / 4)) * plane;
        };
        ConvStretch stretch{};
        stretch.outputs = outputs_ - output;
        scales_.at(output, &stretch);
        stretch.y = at(y);
        stretch.y_plane = stretch.residual_plane = plane;
        if (has_residual_) stretch.residual = at(*run.inputs[4]);
        return stretch;
    }

    ConvGeometry geometry_;
    ConvFinish finish_;
    ConvScales scales_;
    const ConvKernel* kernel_ = nullptr;
    const WinogradKernel* transforms_ = nullptr;
    decltype(ConvKernel::dense) multiply_ = nullptr;
    uint32_t fill_ = 0;
    int64_t planes_ = 0, entries_ = 0, outputs_ = 0, lines_ = 0, together_ = 1;
    int64_t at_once_ = 1;  // vectors
    int64_t tiles_ = 0, across_ = 0, vectors_ = 0, blocks_ = 0;  // tiles in rows of so many; all in so many vectors and blocks
    int64_t most_ = 0;  // lanes of a block
    int64_t sums_at_ = 0, rows_at_ = 0, scratch_bytes_ = 0;
    bool has_residual_ = false;
};

}  // namespace

Operator* make_winograd() { return new (std::nothrow) Winograd; }

}  // namespace ew
