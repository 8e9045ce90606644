// Depthwise convolution: each output channel reads one input channel. 8 bits and float32.
//
// Inputs: x, weights [M, positions] as they are, scale, bias, residual. See kernels/depthwise.h for how it is computed.
#include "../kernels/depthwise.h"

#include <algorithm>
#include <cstring>

#include "conv_finish.h"
#include "conv_geometry.h"
#include "strips.h"

namespace ew {
namespace {

constexpr int64_t kStripBytes = 24 * 1024;  // of padded input: stays in the first cache
constexpr int64_t kMostRow = 6 * 16;        // pixels whose sums a kernel adds up at once
constexpr int64_t kMostLaid = 256;          // columns whose loads are kept; of more, those of a few at a time are worked out again
constexpr int64_t kNarrow = 12;             // columns; with fewer, rows are computed as one, with their padding

class Depthwise final : public StripOperator {
public:
    Status prepare(Setup& setup) override {
        const Tensor *x = setup.input(0), *weights = setup.input(1);
        if (!x || !weights || setup.output_count != 1) return setup.refuse("wants x and weights, and gives one output");
        integer_ = x->dtype == EW_U8;
        if (!(integer_ && x->layout == Layout::kC4) && !(x->dtype == EW_F32 && x->layout == Layout::kPlain)) {
            return setup.refuse("wants x as plain float32 or u8 in C4");
        }
        EW_TRY(read_geometry(setup, *x, *setup.outputs[0], &g_));
        multiplier_ = g_.in_channels > 0 ? g_.out_channels / g_.in_channels : 1;
        if (multiplier_ * g_.in_channels != g_.out_channels ||
            (integer_ && multiplier_ != 1 && multiplier_ != 2 && multiplier_ != 4)) {
            return setup.refuse("wants 1, 2 or 4 outputs for each channel of x");
        }
        EW_TRY(read_weights(setup, *weights));  // first: the file's size bounds the number of outputs
        EW_TRY(read_finish(setup, integer_, g_.positions, &finish_, &scales_));
        const int64_t zero_point = setup.attributes.integer("x_zero_point", 0);
        if (zero_point < 0 || zero_point > 255) return setup.refuse("x_zero_point is out of range");
        for (int64_t i = 0; i < 16; ++i) channels_[i] = static_cast<uint8_t>(i / multiplier_ % 4);
        fill_ = integer_ ? static_cast<uint32_t>(zero_point) * 0x01010101u : 0;
        residual_ = setup.input(4) != nullptr;
        const bool safe = setup.attributes.integer("safe_pairs", 0) == 1;
        kernel_ = &depthwise_kernel(setup.isa, integer_, safe);
        const ConvKernel& conv = conv_kernel(setup.isa, integer_, safe);
        finish_block_ = conv.finish, pack_ = conv.pack;
        setup.kernel = kernel_->name;
        plane_kernel_ = find_plane_kernel();
        return plane_kernel_.compute ? lay_planes(setup) : lay_strips(setup);
    }

    Status prepare_strips(Setup& setup, int64_t) override {
        EW_TRY(prepare(setup));
        return g_.out[0] == 1 ? Status() : setup.refuse("wants planes");
    }

    void run(const Run& run) override {
        run_strip(run, {0, g_.batch, 0, g_.out[1], run.outputs[0]->data, g_.out_pixels * 4});
    }

    void run_strip(const Run& run, const Strip& to) override {
        if (to.samples == 0) return;
        if (plane_kernel_.compute) return run_planes(run, to);
        const int64_t quads = (g_.out_channels + 3) / 4, strips = strips_of(to), places = g_.out[0] * strips;
        // Channels follow each other: the padding around a strip is the same for all.
        run.pool.parallel(to.samples * places * quads, 1, [&](int64_t begin, int64_t end, int32_t thread) {
            uint8_t* scratch = run.scratch + thread * scratch_bytes_;
            int64_t copies = 0, padded = -1;
            for (int64_t item = begin; item < end; ++item) {
                const int64_t place = item / quads % places;
                const Part part = part_of(to, item / quads / places, item % quads, place / strips, place % strips);
                if (place != padded) copies = lay_padding(part, scratch);
                padded = place;
                compute(run, to, part, copies, scratch);
            }
        });
    }

private:
    Status read_weights(const Setup& setup, const Tensor& weights) {
        const int64_t room = static_cast<int64_t>(weights.bytes) / (integer_ ? 1 : 4);
        if (!weights.constant || weights.dtype != (integer_ ? EW_S8 : EW_F32))
            return setup.refuse("wants constant weights of the dtype that fits x");
        if (g_.out_channels > 0 && g_.positions > room / g_.out_channels) return setup.refuse("has too few weights");
        return {};
    }

    // A strip of output rows of one sample, four channels, and one slice of the third dim.
    struct Part {
        int64_t sample, quad, slice, first_row, rows;
    };

    int64_t strips_of(const Strip& to) const { return strip_rows_ > 0 ? (to.rows + strip_rows_ - 1) / strip_rows_ : 0; }

    Part part_of(const Strip& to, int64_t sample, int64_t quad, int64_t slice, int64_t strip) const {
        const int64_t row = strip * strip_rows_;
        return {to.sample + sample, quad, slice, to.first_row + row, std::min(strip_rows_, to.rows - row)};
    }

    ConvStretch stretch_of(const Run& run, const Strip& to, const Part& part) const {
        const Tensor& y = *run.outputs[0];
        const int64_t at = ((part.slice * g_.out[1] + part.first_row - to.first_row) * g_.out[2]) * 4;
        ConvStretch stretch{};
        stretch.outputs = std::min<int64_t>(4, g_.out_channels - part.quad * 4);
        scales_.at(part.quad * 4, &stretch);
        stretch.y = to.data + ((part.sample - to.sample) * planes_of(y) + first_plane(finish_.y, part.quad)) * to.plane_bytes + at;
        stretch.y_plane = to.plane_bytes;
        if (residual_) {  // of a whole run
            const Tensor& from = *run.inputs[4];
            const int64_t plane = stretch.residual_plane = g_.out_pixels * 4;
            stretch.residual =
                from.data + (part.sample * planes_of(from) + first_plane(finish_.residual, part.quad)) * plane + at;
        }
        return stretch;
    }

    DepthwisePlanes find_plane_kernel() const {
        const bool flat = g_.in[0] == 1 && g_.kernel[0] == 1 && g_.pad[0] == 0;
        const bool square = g_.stride[1] == g_.stride[2] && g_.dilation[1] == 1 && g_.dilation[2] == 1;
        const bool bytes = !integer_ || (finish_.direct && finish_.y != EW_F32 && !residual_);
        if (!kernel_->planes || !flat || !square || !bytes || g_.kernel[2] > kMostDepthwiseColumns) return {};
        return kernel_->planes(g_.kernel[1], g_.stride[2], g_.out[2]);
    }

    // float32 y that wants more than a clamp is made from sums in scratch memory, of as many rows as stay in the first cache.
    Status lay_planes(Setup& setup) {
        const int64_t row_bytes = 16 * std::max<int64_t>(g_.out[2], 1);
        through_sums_ = !integer_ && (!finish_.direct || residual_);
        sums_alone_.direct = true;
        const int64_t steps = through_sums_ ? kStripBytes / row_bytes / kDepthwiseRows : 4;
        strip_rows_ = std::clamp<int64_t>(steps, 1, 4) * kDepthwiseRows;
        sums_row_ = (strip_rows_ * g_.out[2] + 15) / 16 * 16;
        int64_t all = 0;
        scratch_bytes_ = through_sums_ ? sums_row_ * 16 : 0;
        if (__builtin_mul_overflow(scratch_bytes_, int64_t{setup.threads}, &all)) return setup.refuse("needs too much memory");
        setup.scratch_bytes = static_cast<uint64_t>(all);
        row_taps_ = integer_ ? (g_.kernel[2] + 3) / 4 : g_.kernel[2];
        packed_.clear();
        if (integer_) pack_planes(*setup.input(1));
        lay_loads();
        return {};
    }

    void lay_loads() {
        loads_.clear();
        if (g_.out[2] > kMostLaid) return;
        const int64_t blocks = (g_.out[2] + plane_kernel_.block - 1) / plane_kernel_.block;
        loads_.resize(static_cast<size_t>(blocks * row_taps_ * plane_kernel_.tap_loads));
        plane_kernel_.lay(plane_of_x(), loads_.data());
    }

    // What is the same for all planes.
    DepthwisePlane plane_of_x() const {
        DepthwisePlane plane{};
        plane.in_rows = g_.in[1], plane.in_columns = g_.in[2];
        plane.pad_row = g_.pad[1], plane.pad_column = g_.pad[2];
        plane.taps = row_taps_;
        plane.fill = fill_;
        plane.columns = g_.out[2];
        plane.loads = loads_.empty() ? nullptr : loads_.data();
        plane.finish = through_sums_ ? &sums_alone_ : &finish_;
        return plane;
    }

    // [quads][rows of the kernel][taps][4 outputs][4 positions]
    void pack_planes(const Tensor& weights) {
        packed_.resize(static_cast<size_t>((g_.out_channels + 3) / 4 * g_.kernel[1] * row_taps_ * 16));
        for (int64_t m = 0; m < g_.out_channels; ++m) {
            for (int64_t p = 0; p < g_.positions; ++p) {
                const int64_t row = m / 4 * g_.kernel[1] + p / g_.kernel[2], column = p % g_.kernel[2];
                const int64_t at = ((row * row_taps_ + column / 4) * 4 + m % 4) * 4 + column % 4;
                packed_[static_cast<size_t>(at)] = weights.data[m * g_.positions + p];
            }
        }
    }

    void run_planes(const Run& run, const Strip& to) const {
        const int64_t quads = (g_.out_channels + 3) / 4, strips = strips_of(to);
        run.pool.parallel(to.samples * quads * strips, 1, [&](int64_t begin, int64_t end, int32_t thread) {
            DepthwisePlane plane = plane_of_x();
            for (int64_t item = begin; item < end; ++item) {
                const Part part = part_of(to, item / strips / quads, item / strips % quads, 0, item % strips);
                compute_planes(run, to, part, reinterpret_cast<float*>(run.scratch + thread * scratch_bytes_), &plane);
            }
        });
    }

    // One of 4 channels, or up to four of one.
    void compute_planes(const Run& run, const Strip& to, const Part& part, float* sums, DepthwisePlane* plane) const {
        const Tensor& x = *run.inputs[0];
        ConvStretch stretch = stretch_of(run, to, part);
        stretch.pixels = part.rows * g_.out[2];
        plane->first_row = part.first_row, plane->rows = part.rows;
        plane->channels = channels_ + (part.quad % multiplier_) * 4;
        const uint8_t* from = x.data + part.sample * planes_of(x) * g_.in_pixels * 4;
        for (int64_t i = 0; i < (integer_ ? 1 : stretch.outputs); ++i) {
            const int64_t channel = part.quad * 4 + i;
            plane->x = from + (integer_ ? part.quad : channel) / multiplier_ * g_.in_pixels * 4;
            plane->weights = integer_ ? packed_.data() + part.quad * g_.kernel[1] * row_taps_ * 16
                                      : run.inputs[1]->data + channel * g_.positions * 4;
            plane->scale = through_sums_ ? &kOne : stretch.scale + i;
            plane->bias = through_sums_ ? &kZero : stretch.bias + i;
            plane->y = through_sums_ ? reinterpret_cast<uint8_t*>(sums + i * sums_row_) : stretch.y + i * stretch.y_plane;
            plane_kernel_.compute(*plane);
        }
        if (through_sums_) finish_block_(finish_, sums, sums_row_, stretch);
    }

    // Columns of a padded row, then where each tap lies, then how many rows fit a strip.
    Status lay_strips(Setup& setup) {
        const int64_t s = g_.stride[2], reach = (g_.kernel[2] - 1) * g_.dilation[2];
        phase_pixels_ = g_.out[2] + reach / s;
        row_bytes_ = phase_pixels_ * s * 4;
        flat_ = s == 1 && g_.stride[1] == 1 && g_.out[2] < kNarrow && !residual_;
        const int64_t overlap = (g_.kernel[1] - 1) * g_.dilation[1];
        x_planes_ = integer_ ? 1 : 4;
        int64_t line = 0;
        if (__builtin_mul_overflow(row_bytes_, g_.kernel[0] * x_planes_, &line)) return setup.refuse("needs too much memory");
        const int64_t fit = (kStripBytes / std::max<int64_t>(line, 1) - overlap - 1) / g_.stride[1] + 1;
        strip_rows_ = std::clamp<int64_t>(fit, std::min<int64_t>(4, g_.out[1]), std::max<int64_t>(g_.out[1], 1));
        in_rows_ = (strip_rows_ - 1) * g_.stride[1] + overlap + 1;
        int64_t bytes = 0, all = 0;
        if (__builtin_mul_overflow(row_bytes_, in_rows_, &bytes) || __builtin_mul_overflow(bytes, g_.kernel[0], &bytes) ||
            bytes > int64_t{1} << 32) {
            return setup.refuse("needs too much memory");
        }
        x_bytes_ = (bytes + kDepthwiseSlack + 63) / 64 * 64;
        flat_plane_ = flat_ ? (strip_rows_ * row_bytes_ + 63) / 64 * 64 : 0;
        // A run counts pixels in 32 bits.
        if (x_bytes_ > int64_t{1} << 32) return setup.refuse("needs too much memory");
        runs_bytes_ = (in_rows_ * g_.kernel[0] * s * static_cast<int64_t>(sizeof(ConvRun)) + 63) / 64 * 64;
        scratch_bytes_ = x_planes_ * x_bytes_ + kSumsBytes + 4 * flat_plane_ + runs_bytes_;
        if (__builtin_mul_overflow(scratch_bytes_, int64_t{setup.threads}, &all)) return setup.refuse("needs too much memory");
        setup.scratch_bytes = static_cast<uint64_t>(all);
        lay_taps(*setup.input(1));
        return {};
    }

    // Bytes from an output row's first pixel to what it meets at a position.
    int64_t offset_of(int64_t position) const {
        const int64_t kernel_x = position % g_.kernel[2], kernel_y = position / g_.kernel[2] % g_.kernel[1];
        const int64_t kernel_z = position / g_.kernel[2] / g_.kernel[1];
        const int64_t column = kernel_x * g_.dilation[2], s = g_.stride[2];
        const int64_t row = kernel_z * in_rows_ + kernel_y * g_.dilation[1];
        return row * row_bytes_ + (column % s * phase_pixels_ + column / s) * 4;
    }

    void lay_taps(const Tensor& weights) {
        offsets_.clear();
        packed_.clear();
        if (!integer_) {
            for (int64_t p = 0; p < g_.positions; ++p) offsets_.push_back(offset_of(p));
            return;
        }
        // Four pixels at most from a tap's first position to its last, and in one row of one phase.
        std::vector<int64_t> tap_of(static_cast<size_t>(g_.positions)), step(static_cast<size_t>(g_.positions));
        for (int64_t row = 0; row < g_.positions; row += g_.kernel[2]) {
            std::vector<std::pair<int64_t, int64_t>> order;
            for (int64_t p = row; p < row + g_.kernel[2]; ++p) order.emplace_back(offset_of(p), p);
            std::sort(order.begin(), order.end());
            for (size_t i = 0; i < order.size(); ++i) {
                const auto [offset, position] = order[i];
                if (i == 0 || offset - offsets_.back() >= 16) offsets_.push_back(offset);
                tap_of[static_cast<size_t>(position)] = static_cast<int64_t>(offsets_.size()) - 1;
                step[static_cast<size_t>(position)] = (offset - offsets_.back()) / 4;
            }
        }
        const auto taps = static_cast<int64_t>(offsets_.size());
        packed_.resize(static_cast<size_t>((g_.out_channels + 3) / 4 * taps * 16));
        for (int64_t m = 0; m < g_.out_channels; ++m) {
            for (int64_t p = 0; p < g_.positions; ++p) {
                const int64_t at =
                    ((m / 4 * taps + tap_of[static_cast<size_t>(p)]) * 4 + m % 4) * 4 + step[static_cast<size_t>(p)];
                packed_[static_cast<size_t>(at)] = weights.data[m * g_.positions + p];
            }
        }
    }

    void compute(const Run& run, const Strip& to, const Part& part, int64_t copies, uint8_t* scratch) const {
        const Tensor& x = *run.inputs[0];
        ConvStretch stretch = stretch_of(run, to, part);
        const int64_t planes = integer_ ? 1 : stretch.outputs;
        for (int64_t i = 0; i < planes; ++i) {
            const int64_t from = integer_ ? part.quad / multiplier_ : (part.quad * 4 + i) / multiplier_;
            const uint8_t* plane_x = x.data + (part.sample * planes_of(x) + from) * g_.in_pixels * 4;
            pack_({plane_x, scratch + i * x_bytes_, runs_in(scratch), copies, g_.stride[2], g_.in_pixels * 4});
        }
        auto* sums = reinterpret_cast<float*>(scratch + x_planes_ * x_bytes_);
        if (flat_) return compute_flat(run, part, scratch, sums, stretch);
        for (int64_t row = 0; row < part.rows; ++row) {
            compute_pixels(run, part.quad, scratch + row * g_.stride[1] * row_bytes_, g_.out[2], sums, stretch);
            stretch.y += g_.out[2] * 4;
            if (stretch.residual) stretch.residual += g_.out[2] * 4;
        }
    }

    static int64_t first_plane(DType dtype, int64_t quad) { return dtype == EW_F32 ? quad * 4 : quad; }

    // All rows as one, with the padding between them; then the rows alone go to y.
    void compute_flat(const Run& run, const Part& part, const uint8_t* x, float* sums, const ConvStretch& stretch) const {
        uint8_t* flat = reinterpret_cast<uint8_t*>(sums) + kSumsBytes;
        ConvStretch whole = stretch;
        whole.y = flat;
        whole.y_plane = flat_plane_;
        compute_pixels(run, part.quad, x, (part.rows - 1) * phase_pixels_ + g_.out[2], sums, whole);
        const int64_t planes = finish_.y == EW_F32 ? stretch.outputs : 1, bytes = g_.out[2] * 4;
        for (int64_t i = 0; i < planes; ++i) {
            for (int64_t row = 0; row < part.rows; ++row) {
                std::memcpy(stretch.y + i * stretch.y_plane + row * bytes, flat + i * flat_plane_ + row * row_bytes_,
                            static_cast<size_t>(bytes));
            }
        }
    }

    // `pixels` neighbouring output pixels; x is where the first one's window begins.
    void compute_pixels(const Run& run, int64_t quad, const uint8_t* x, int64_t pixels, float* sums,
                        const ConvStretch& stretch) const {
        const auto taps = static_cast<int64_t>(offsets_.size());
        DepthwiseRow input{x, offsets_.data(), nullptr, taps, channels_ + (quad % multiplier_) * 4};
        if (integer_) input.weights = packed_.data() + quad * taps * 16;
        if (integer_ && finish_.direct && finish_.y != EW_F32 && !residual_ && kernel_->direct) {
            return kernel_->direct(input, finish_, stretch.scale, stretch.bias, pixels, stretch.y);
        }
        ConvStretch some = stretch;
        for (int64_t first = 0; first < pixels; first += kMostRow) {
            some.pixels = std::min(kMostRow, pixels - first);
            const int64_t vectors = (some.pixels + kernel_->lanes - 1) / kernel_->lanes;
            if (integer_) {
                kernel_->sums(input, vectors, kMostRow, sums);
            } else {
                for (int64_t o = 0; o < stretch.outputs; ++o) {
                    input.x = x + first * 4 + o * x_bytes_;
                    input.weights = run.inputs[1]->data + (quad * 4 + o) * g_.positions * 4;
                    kernel_->sums(input, vectors, kMostRow, sums + o * kMostRow);
                }
            }
            finish_block_(finish_, sums, kMostRow, some);
            input.x += kMostRow * 4;
            some.y += kMostRow * 4;
            if (some.residual) some.residual += kMostRow * 4;
        }
    }

    ConvRun* runs_in(uint8_t* scratch) const { return reinterpret_cast<ConvRun*>(scratch + scratch_bytes_ - runs_bytes_); }

    // Fills the padding of a part, columns sorted by phase. Leaves in the scratch what to copy for each channel; returns how
    // much.
    int64_t lay_padding(const Part& part, uint8_t* scratch) const {
        const int64_t rows = (part.rows - 1) * g_.stride[1] + (g_.kernel[1] - 1) * g_.dilation[1] + 1;
        ConvRun* runs = runs_in(scratch);
        int64_t copies = 0;
        for (int64_t k = 0; k < g_.kernel[0]; ++k) {
            const int64_t z = part.slice * g_.stride[0] + k * g_.dilation[0] - g_.pad[0];
            for (int64_t row = 0; row < rows; ++row) {
                const int64_t y = part.first_row * g_.stride[1] + row - g_.pad[1];
                const bool inside = z >= 0 && z < g_.in[0] && y >= 0 && y < g_.in[1];
                const int64_t pixel = (k * in_rows_ + row) * phase_pixels_ * g_.stride[2];
                for (int64_t phase = 0; phase < g_.stride[2]; ++phase) {
                    copies += lay_row(inside ? (z * g_.in[1] + y) * g_.in[2] : -1, phase, pixel + phase * phase_pixels_,
                                      scratch, runs + copies);
                }
            }
        }
        return copies;
    }

    // Column i * stride + phase - pad for i in [0, phase_pixels_), of the input row that begins at `source` (-1: padding).
    int64_t lay_row(int64_t source, int64_t phase, int64_t pixel, uint8_t* scratch, ConvRun* run) const {
        const int64_t s = g_.stride[2], shift = phase - g_.pad[2];
        int64_t low = phase_pixels_, high = phase_pixels_;
        if (source >= 0) {
            low = std::min(phase_pixels_, shift >= 0 ? 0 : (-shift + s - 1) / s);
            high = std::clamp(g_.in[2] > shift ? (g_.in[2] - shift + s - 1) / s : 0, low, phase_pixels_);
        }
        for (int64_t i = 0; i < x_planes_; ++i) {
            fill_pixels(scratch + i * x_bytes_ + pixel * 4, 0, low);
            fill_pixels(scratch + i * x_bytes_ + pixel * 4, high, phase_pixels_);
        }
        if (low == high) return 0;
        *run = {static_cast<int32_t>(pixel + low), static_cast<int32_t>(high - low), source + low * s + shift};
        return 1;
    }

    void fill_pixels(uint8_t* to, int64_t begin, int64_t end) const {
        for (int64_t i = begin; i < end; ++i) std::memcpy(to + i * 4, &fill_, 4);
    }

    static constexpr int64_t kSumsBytes = 4 * kMostRow * 4;
    static constexpr float kOne = 1, kZero = 0;

    ConvGeometry g_;
    ConvFinish finish_, sums_alone_;
    ConvScales scales_;
    const DepthwiseKernel* kernel_ = nullptr;
    void (*finish_block_)(const ConvFinish&, const float*, int64_t, const ConvStretch&) = nullptr;
    void (*pack_)(const ConvPack&) = nullptr;
    DepthwisePlanes plane_kernel_;
    std::vector<DepthwiseLoad> loads_;  // with plane_kernel_
    std::vector<int64_t> offsets_;   // of the taps
    std::vector<uint8_t> packed_;    // 8-bit: [quads][taps][4 outputs][4], or as pack_planes() says
    uint8_t channels_[16] = {};      // 8-bit: the bytes that each of 4 outputs reads, for each quad of one plane
    int64_t multiplier_ = 1;
    int64_t phase_pixels_ = 0, row_bytes_ = 0, in_rows_ = 0, strip_rows_ = 0;
    int64_t x_planes_ = 1, x_bytes_ = 0, flat_plane_ = 0, runs_bytes_ = 0, scratch_bytes_ = 0;
    int64_t row_taps_ = 0, sums_row_ = 0;  // with plane_kernel_
    uint32_t fill_ = 0;
    bool integer_ = false, residual_ = false, flat_ = false, through_sums_ = false;
};

}  // namespace

Operator* make_depthwise() { return make_depthwise_by_strips(); }
StripOperator* make_depthwise_by_strips() { return new (std::nothrow) Depthwise; }

}  // namespace ew
