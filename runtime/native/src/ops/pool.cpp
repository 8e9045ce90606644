// pool: the largest (function max) or the mean (average) of windows over the spatial axes. Attributes kernel, strides, dilations,
// pads (begins, then ends). Plain float32, or 8 bits in C4: max of equal quantization; average with x_scale, x_zero_point, y_scale,
// y_zero_point, and include_pad=1 where padding counts as zeros. A window without any input gives the lowest value, or 0.
#include "pool.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "../kernels/vectors.h"

namespace ew {
namespace {

// Rows of 32-bit lanes: float32, or the four channels of a position. A window's rows are folded into one, then along it.
class PoolMax final : public Operator {
public:
    Status prepare(Setup& setup) override {
        const Tensor &x = *setup.input(0), &y = *setup.outputs[0];
        float_ = x.dtype == EW_F32;
        if (x.dtype != y.dtype || !(float_ ? is_plain(x) && is_plain(y) : is_8_bit(x) && !is_plain(x) && !is_plain(y))) {
            return setup.refuse("wants plain float32 or 8 bits in C4");
        }
        signed_ = x.dtype == EW_S8;
        EW_TRY(shape_.read(setup, x, y));
        planes_ = float_ ? y.dims[0] * y.dims[1] : y.dims[0] * ((y.dims[1] + 3) / 4);
        if (y.count() == 0) planes_ = 0;
        kernels_ = &vector_kernels(setup.isa);
        setup.kernel = kernels_->name;
        lane_floats_ = static_cast<size_t>(shape_.windows[2].span() + shape_.windows[2].out + 31) / 16 * 16;
        setup.scratch_bytes = uint64_t{lane_floats_} * 4 * static_cast<uint64_t>(setup.threads);
        return {};
    }

    void run(const Run& run) override {
        const auto* x = run.inputs[0]->as<float>();
        auto* y = run.outputs[0]->as<float>();
        const Window &depth = shape_.windows[0], &height = shape_.windows[1], &width = shape_.windows[2];
        const int64_t work = width.span() * height.kernel * depth.kernel, rows = depth.out * height.out;
        run.pool.parallel(planes_ * rows, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, work)), [&](int64_t begin, int64_t end, int32_t thread) {
            float* row = reinterpret_cast<float*>(run.scratch) + lane_floats_ * static_cast<size_t>(thread);
            for (int64_t i = begin; i < end; ++i) {
                const int64_t plane = i / rows, d = i % rows / height.out, h = i % height.out;
                fold_rows(x + plane * shape_.planes_in, depth.start(d), height.start(h), row);
                fold_along(row, row + width.span(), y + i * width.out);
            }
        });
    }

private:
    void fold(const float* x, float* total, int64_t count) const {
        if (float_) return kernels_->fold_into(Fold::kMax, x, total, count);
        kernels_->max_bytes(reinterpret_cast<const uint8_t*>(x), reinterpret_cast<uint8_t*>(total), count * 4, signed_);
    }

    // The window's rows into one, with the lowest value where there is no input.
    void fold_rows(const float* plane, int64_t d, int64_t h, float* row) const {
        const Window &depth = shape_.windows[0], &height = shape_.windows[1], &width = shape_.windows[2];
        const int64_t span = width.span(), inside = std::clamp<int64_t>(width.begin, 0, span);
        const int64_t some = std::clamp<int64_t>(width.in, 0, span - inside);
        if (float_) {
            std::fill(row, row + span, -HUGE_VALF);
        } else {
            std::memset(row, signed_ ? 0x80 : 0, static_cast<size_t>(span) * 4);
        }
        bool first = true;
        // Only taps that lie inside: padding may be far larger than the input, and windows with it.
        for (int64_t i = depth.below(-d); i < depth.below(depth.in - d); ++i) {
            for (int64_t k = height.below(-h); k < height.below(height.in - h); ++k) {
                const int64_t z = d + i * depth.dilation, at = h + k * height.dilation;
                const float* from = plane + (z * height.in + at) * width.in;
                if (first) {
                    std::memcpy(row + inside, from, static_cast<size_t>(some) * 4);
                } else {
                    fold(from, row + inside, some);
                }
                first = false;
            }
        }
    }

    void fold_along(const float* row, float* part, float* y) const {
        const Window& width = shape_.windows[2];
        for (int64_t k = 0; k < width.kernel; ++k) {
            const float* from = row + k * width.dilation;
            if (width.stride != 1) {
                kernels_->every(from, width.stride, k == 0 ? y : part, width.out);
                if (k > 0) fold(part, y, width.out);
            } else if (k == 0) {
                std::memcpy(y, from, static_cast<size_t>(width.out) * 4);
            } else {
                fold(from, y, width.out);
            }
        }
    }

    PoolShape shape_;
    bool float_ = true, signed_ = false;
    int64_t planes_ = 0;
    size_t lane_floats_ = 0;
    const VectorKernels* kernels_ = nullptr;
};

class Pool final : public Operator {
public:
    Status prepare(Setup& setup) override {
        EW_TRY(check_operands(setup, 1, 1));
        const auto function = setup.attributes.text("function", "");
        if (function != "max" && function != "average") return setup.refuse("has no such function");
        inner_.reset(function == "max" ? make_pool_max() : make_pool_average());
        return inner_ ? inner_->prepare(setup) : Status::fail(EW_OUT_OF_MEMORY, "no memory for %.100s", setup.name);
    }
    void run(const Run& run) override { inner_->run(run); }

private:
    std::unique_ptr<Operator> inner_;
};

}  // namespace

Status PoolShape::read(const Setup& setup, const Tensor& x, const Tensor& y) {
    constexpr int64_t kLargest = int64_t{1} << 30, kMostTaps = int64_t{1} << 28;
    const int spatial = x.rank - 2;
    if (spatial < 1 || spatial > 3 || y.rank != x.rank || x.dims[0] != y.dims[0] || x.dims[1] != y.dims[1]) {
        return setup.refuse("wants one to three spatial axes, and equal N and C");
    }
    const std::vector<int64_t>&kernel = setup.attributes.integers("kernel"), &strides = setup.attributes.integers("strides"),
                         &dilations = setup.attributes.integers("dilations"), &pads = setup.attributes.integers("pads");
    const auto axes = static_cast<size_t>(spatial);
    if (kernel.size() != axes || (!strides.empty() && strides.size() != axes) || (!dilations.empty() && dilations.size() != axes) ||
        (!pads.empty() && pads.size() != 2 * axes)) {
        return setup.refuse("wants a kernel, stride, dilation and two pads for each axis");
    }
    int64_t taps = 1;
    for (size_t i = 0; i < axes; ++i) {
        Window& window = windows[3 - axes + i];
        window = {x.dims[2 + i], y.dims[2 + i], kernel[i], strides.empty() ? 1 : strides[i], dilations.empty() ? 1 : dilations[i],
                  pads.empty() ? 0 : pads[i], pads.empty() ? 0 : pads[axes + i]};
        const bool fits = window.kernel > 0 && window.kernel <= kLargest && window.stride > 0 && window.stride <= kLargest && window.dilation > 0 &&
                          window.dilation <= kLargest && window.begin >= 0 && window.begin <= kLargest && window.end >= 0 && window.end <= kLargest &&
                          window.out <= kLargest && window.in <= kLargest;
        // Rows of windows are copied, so what they span is memory: no more than what the input and its padding may be.
        if (!fits || (window.out > 0 && window.span() > window.in + window.begin + window.end + window.stride)) {
            return setup.refuse("has windows that lie outside of its input");
        }
        if (window.kernel > kMostTaps / taps) return setup.refuse("has windows that are too large");
        taps *= window.kernel;
    }
    planes_in = x.count(2, x.rank);
    planes_out = y.count(2, y.rank);
    return {};
}

Operator* make_pool() { return new (std::nothrow) Pool; }
Operator* make_pool_max() { return new (std::nothrow) PoolMax; }

}  // namespace ew
