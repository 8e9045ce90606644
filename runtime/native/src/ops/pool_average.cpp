// The average form of `pool`: in float32, four channels at a time where they are of 8 bits.
#include <algorithm>
#include <cmath>

#include "pool.h"
#include "quantization.h"

namespace ew {
namespace {

class PoolAverage final : public Operator {
public:
    Status prepare(Setup& setup) override {
        const Tensor &x = *setup.input(0), &y = *setup.outputs[0];
        packed_ = is_8_bit(x);
        if (x.dtype != y.dtype || !(packed_ ? !is_plain(x) && !is_plain(y) : is_plain(x, EW_F32) && is_plain(y))) {
            return setup.refuse("wants plain float32 or 8 bits in C4");
        }
        EW_TRY(shape_.read(setup, x, y));
        if (packed_) {
            EW_TRY(read_quantization(setup, "x_", x, &from_));
            EW_TRY(read_quantization(setup, "y_", y, &to_));
        }
        include_pad_ = setup.attributes.integer("include_pad", 0) != 0;
        channels_ = packed_ ? 4 : 1;
        planes_ = y.count() == 0 ? 0 : packed_ ? y.dims[0] * ((y.dims[1] + 3) / 4) : y.dims[0] * y.dims[1];
        kernels_ = &vector_kernels(setup.isa);
        setup.kernel = kernels_->name;
        const Window& width = shape_.windows[2];
        row_floats_ = (width.span() + 15) / 16 * 16 + (width.in + 15) / 16 * 16;
        out_floats_ = (width.out + 15) / 16 * 16 * 2;
        thread_floats_ = static_cast<size_t>((row_floats_ + out_floats_) * channels_ + out_floats_ / 2);
        setup.scratch_bytes = uint64_t{thread_floats_} * 4 * static_cast<uint64_t>(setup.threads);
        return {};
    }

    void run(const Run& run) override {
        const Window* w = shape_.windows;
        if (w[0].whole() && w[1].whole() && w[2].whole()) return global(run);
        const int64_t rows = w[0].out * w[1].out, work = std::max<int64_t>(1, w[2].span() * w[1].kernel * w[0].kernel * channels_);
        run.pool.parallel(planes_ * rows, std::max<int64_t>(1, kGrain / work), [&](int64_t begin, int64_t end, int32_t thread) {
            float* scratch = reinterpret_cast<float*>(run.scratch) + thread_floats_ * static_cast<size_t>(thread);
            for (int64_t i = begin; i < end; ++i) one_row(run, i / rows, i % rows / w[1].out, i % w[1].out, i, scratch);
        });
    }

private:
    void global(const Run& run) const {
        const int64_t count = shape_.planes_in;
        run.pool.parallel(planes_, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, count)), [&](int64_t begin, int64_t end, int32_t) {
            for (int64_t i = begin; i < end; ++i) {
                if (!packed_) {
                    run.outputs[0]->as<float>()[i] = kernels_->fold_row(Fold::kSum, run.inputs[0]->as<float>() + i * count, count, 0.0f) / static_cast<float>(count);
                    continue;
                }
                int64_t sums[4];
                kernels_->sum_c4(run.inputs[0]->data + i * count * 4, count, from_.is_signed, sums);
                float means[4];
                for (int c = 0; c < 4; ++c) {
                    means[c] = static_cast<float>(sums[c] - count * from_.zero) * (from_.scale / static_cast<float>(count));
                }
                kernels_->quantize(to_, means, run.outputs[0]->data + i * 4, 4);
            }
        });
    }

    void one_row(const Run& run, int64_t plane, int64_t d, int64_t h, int64_t at, float* scratch) const {
        const Window &depth = shape_.windows[0], &height = shape_.windows[1], &width = shape_.windows[2];
        const int64_t span = width.span(), half = (span + 15) / 16 * 16;
        const int64_t inside = std::min(width.begin, span), some = std::min(width.in, span - inside);
        float *rows[4], *reads[4], *outs[4];
        for (int64_t c = 0; c < channels_; ++c) {
            rows[c] = scratch + c * row_floats_;
            reads[c] = rows[c] + half;
            outs[c] = scratch + channels_ * row_floats_ + c * out_floats_;
            std::fill(rows[c], rows[c] + span, 0.0f);
        }
        const int64_t first = depth.start(d), top = height.start(h);
        for (int64_t i = depth.below(-first); i < depth.below(depth.in - first); ++i) {  // only taps that lie inside
            for (int64_t k = height.below(-top); k < height.below(height.in - top); ++k) {
                const int64_t z = first + i * depth.dilation, y = top + k * height.dilation;
                const int64_t from = plane * shape_.planes_in + (z * height.in + y) * width.in;
                if (packed_) kernels_->dequantize_c4(from_, run.inputs[0]->data + from * 4, reads, some);
                for (int64_t c = 0; c < channels_; ++c) {
                    kernels_->fold_into(Fold::kSum, packed_ ? reads[c] : run.inputs[0]->as<float>() + from, rows[c] + inside, some);
                }
            }
        }
        const int64_t counts = count_of(depth, d) * count_of(height, h);
        float* factors = scratch + channels_ * (row_floats_ + out_floats_);
        for (int64_t i = 0; i < width.out; ++i) {
            const int64_t n = counts * count_of(width, i);
            factors[i] = n == 0 ? 0.0f : 1.0f / static_cast<float>(n);
        }
        for (int64_t c = 0; c < channels_; ++c) along(rows[c], outs[c], outs[c] + out_floats_ / 2, factors);
        if (packed_) {
            kernels_->quantize_c4(to_, outs, run.outputs[0]->data + at * width.out * 4, width.out);
        } else {
            std::copy(outs[0], outs[0] + width.out, run.outputs[0]->as<float>() + at * width.out);
        }
    }

    int64_t count_of(const Window& window, int64_t at) const {
        return include_pad_ ? window.taps(at, -window.begin, window.in + window.end) : window.taps(at, 0, window.in);
    }

    void along(const float* row, float* y, float* part, const float* factors) const {
        const Window& width = shape_.windows[2];
        kernels_->every(row, width.stride, y, width.out);
        for (int64_t k = 1; k < width.kernel; ++k) {
            const float* from = row + k * width.dilation;
            if (width.stride != 1) kernels_->every(from, width.stride, part, width.out);
            kernels_->fold_into(Fold::kSum, width.stride == 1 ? from : part, y, width.out);
        }
        kernels_->binary(Pair::kMul, y, 1, factors, 1, y, width.out);
    }

    PoolShape shape_;
    Quantization from_, to_;
    bool packed_ = false, include_pad_ = false;
    int64_t channels_ = 1, planes_ = 0, row_floats_ = 0, out_floats_ = 0;
    size_t thread_floats_ = 0;
    const VectorKernels* kernels_ = nullptr;
};

}  // namespace

Operator* make_pool_average() { return new (std::nothrow) PoolAverage; }

}  // namespace ew
