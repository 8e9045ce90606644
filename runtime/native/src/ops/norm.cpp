// layernorm and rmsnorm (the mean is taken as 0), groupnorm. float32 -> float32 or 8 bits (y_scale, y_zero_point). Inputs x, gamma
// and beta (float32, optional), attribute epsilon.
//
// layernorm, rmsnorm: without `last`, axis = 1 of [N, C, ...]: over C for each position; y may be C4. With last=1: over all axes
// from `axis` on, gamma and beta per element; y is plain. groupnorm: groups; over the channels of a group and all positions.
#include <algorithm>

#include "quantization.h"

namespace ew {
namespace {

Status read_factors(const Setup& setup, int64_t count, Norm* norm) {
    for (int i = 1; i < 3; ++i) {
        const Tensor* tensor = setup.input(i);
        if (!tensor) continue;
        if (!is_plain(*tensor, EW_F32) || tensor->count() != count) return setup.refuse("wants plain float32 gamma and beta, one per channel");
    }
    norm->epsilon = setup.attributes.real("epsilon", 1e-5f);
    return {};
}

// Gamma and beta may be computed, so their place is known only at run time.
Norm with_factors(const Norm& norm, const Run& run, int32_t inputs) {
    Norm out = norm;
    if (inputs > 1 && run.inputs[1]) out.gamma = run.inputs[1]->as<float>();
    if (inputs > 2 && run.inputs[2]) out.beta = run.inputs[2]->as<float>();
    return out;
}

class Normalize : public Operator {
public:
    explicit Normalize(bool root_mean_square) { norm_.root_mean_square = root_mean_square; }

    Status prepare(Setup& setup) override {
        EW_TRY(check_operands(setup, 1, 3));
        const Tensor &x = *setup.input(0), &y = *setup.outputs[0];
        inputs_ = setup.input_count;
        if (!is_plain(x, EW_F32) || !same_dims(x, y) || !(y.dtype == EW_F32 || is_8_bit(y))) return setup.refuse("wants plain float32 and equal dims");
        EW_TRY(read_quantization(setup, "y_", y, &norm_.to));
        norm_.quantized = is_8_bit(y);
        const int64_t axis = setup.attributes.integer("axis", 1);
        if (axis < 0 || axis >= x.rank) return setup.refuse("has an axis that is none");
        rows_ = setup.attributes.integer("last", 0) != 0;
        const auto first = static_cast<int32_t>(axis);
        if (!rows_ && axis != 1) return setup.refuse("normalises over axis 1, or over the last ones");
        if (rows_ ? !is_plain(y) : norm_.quantized && is_plain(y)) return setup.refuse("has a y of the wrong layout");
        outer_ = x.count() == 0 ? 0 : x.count(0, first);
        channels_ = rows_ ? x.count(first, x.rank) : x.dims[1];
        positions_ = rows_ ? 1 : x.count(2, x.rank);
        EW_TRY(read_factors(setup, channels_, &norm_));
        kernels_ = &vector_kernels(setup.isa);
        setup.kernel = kernels_->name;
        row_bytes_ = rows_ && norm_.quantized ? (static_cast<size_t>(channels_) * 4 + 63) / 64 * 64 : 0;
        setup.scratch_bytes = uint64_t{row_bytes_} * static_cast<uint64_t>(setup.threads);
        return {};
    }

    void run(const Run& run) override {
        const Norm norm = with_factors(norm_, run, inputs_);
        const float* x = run.inputs[0]->as<float>();
        uint8_t* y = run.outputs[0]->data;
        const int64_t grain = std::max<int64_t>(1, kGrain / 4 / std::max<int64_t>(1, channels_));
        if (rows_) {
            run.pool.parallel(outer_, grain, [&](int64_t begin, int64_t end, int32_t thread) {
                auto* part = reinterpret_cast<float*>(run.scratch + row_bytes_ * static_cast<size_t>(thread));
                for (int64_t i = begin; i < end; ++i) {
                    float* to = norm.quantized ? part : reinterpret_cast<float*>(y) + i * channels_;
                    kernels_->norm_row(norm, x + i * channels_, to, channels_);
                    if (norm.quantized) kernels_->quantize(norm.to, to, y + i * channels_, channels_);
                }
            });
            return;
        }
        const int64_t width = 2 * kernels_->lanes, tiles = (positions_ + width - 1) / width;
        const int64_t stored = norm.quantized ? (channels_ + 3) / 4 * 4 : channels_;  // of y, in its elements per position
        run.pool.parallel(outer_ * tiles, std::max<int64_t>(1, grain / width), [&](int64_t begin, int64_t end, int32_t) {
            for (int64_t i = begin; i < end; ++i) {
                const int64_t at = i % tiles * width, batch = i / tiles;
                uint8_t* to = y + batch * stored * positions_ * (norm.quantized ? 1 : 4) + at * 4;
                kernels_->norm_columns(norm, x + batch * channels_ * positions_ + at, channels_, positions_, to, std::min(width, positions_ - at));
            }
        });
    }

private:
    Norm norm_;
    int32_t inputs_ = 0;
    bool rows_ = false;
    int64_t outer_ = 0, channels_ = 0, positions_ = 0;
    size_t row_bytes_ = 0;
    const VectorKernels* kernels_ = nullptr;
};

class GroupNorm final : public Operator {
public:
    Status prepare(Setup& setup) override {
        EW_TRY(check_operands(setup, 1, 3));
        const Tensor &x = *setup.input(0), &y = *setup.outputs[0];
        inputs_ = setup.input_count;
        if (!is_plain(x, EW_F32) || !is_plain(y, EW_F32) || !same_dims(x, y) || x.rank < 2) return setup.refuse("wants plain float32 and equal dims");
        groups_ = setup.attributes.integer("groups", 0);
        channels_ = x.dims[1];
        if (groups_ < 1 || channels_ % groups_ != 0) return setup.refuse("has groups that do not divide the channels");
        positions_ = x.count(2, x.rank);
        outer_ = x.count() == 0 ? 0 : x.dims[0];
        EW_TRY(read_factors(setup, channels_, &norm_));
        kernels_ = &vector_kernels(setup.isa);
        setup.kernel = kernels_->name;
        return {};
    }

    void run(const Run& run) override {
        const Norm norm = with_factors(norm_, run, inputs_);
        const float* x = run.inputs[0]->as<float>();
        float* y = run.outputs[0]->as<float>();
        const int64_t each = channels_ / groups_;
        run.pool.parallel(outer_ * groups_, 1, [&](int64_t begin, int64_t end, int32_t) {
            for (int64_t i = begin; i < end; ++i) {
                const int64_t at = i * each * positions_;
                float mean, variance;
                kernels_->moments(x + at, each * positions_, &mean, &variance);
                const float inverse = 1.0f / std::sqrt(variance + norm.epsilon);
                for (int64_t c = 0; c < each; ++c) {
                    const int64_t channel = i % groups_ * each + c, from = at + c * positions_;
                    const float factor = inverse * (norm.gamma ? norm.gamma[channel] : 1.0f);
                    const float shift = (norm.beta ? norm.beta[channel] : 0.0f) - mean * factor;
                    kernels_->scale_shift(x + from, y + from, positions_, factor, shift);
                }
            }
        });
    }

private:
    Norm norm_;
    int32_t inputs_ = 0;
    int64_t outer_ = 0, groups_ = 1, channels_ = 0, positions_ = 0;
    const VectorKernels* kernels_ = nullptr;
};

}  // namespace

Operator* make_groupnorm() { return new (std::nothrow) GroupNorm; }
Operator* make_layernorm() { return new (std::nothrow) Normalize(false); }
Operator* make_rmsnorm() { return new (std::nothrow) Normalize(true); }

}  // namespace ew
