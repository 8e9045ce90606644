// resize, as ONNX's: function nearest (any dtype, plain or C4), linear (float32, or 8 bits in C4), cubic (float32). scales: a number
// for each axis, 0 for that of the sizes; the other attributes are in resize_taps.h. Channels of C4 are not resized.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "../kernels/vectors.h"
#include "checks.h"
#include "resize_taps.h"
#include "strided_copy.h"

namespace ew {
namespace {

constexpr size_t rounded(size_t bytes) { return (bytes + 63) / 64 * 64; }

class Resize final : public Operator {
public:
    Status prepare(Setup& setup) override {
        EW_TRY(check_operands(setup, 1, 1));
        const Tensor &x = *setup.input(0), &y = *setup.outputs[0];
        if (x.dtype != y.dtype || x.layout != y.layout || x.rank != y.rank || x.rank < 1) return setup.refuse("wants x and y alike");
        packed_ = !is_plain(x);
        const std::vector<double>& scales = setup.attributes.reals("scales");
        if (scales.size() != static_cast<size_t>(x.rank)) return setup.refuse("wants a scale for each axis");
        const auto function = setup.attributes.text("function", "nearest");
        nearest_ = function == "nearest";
        if (!nearest_ && x.dtype != EW_F32 && !(packed_ && function == "linear")) return setup.refuse("cannot do this with its dtype");
        if (packed_ && (x.rank < 3 || x.dims[1] != y.dims[1])) return setup.refuse("does not resize the channels of C4");
        rank_ = x.rank;
        empty_ = y.count() == 0;
        size_t tables = 0;
        for (int i = 0; i < rank_ && !empty_; ++i) {
            const bool quads = packed_ && i == 1;
            const int64_t in = quads ? (x.dims[1] + 3) / 4 : x.dims[i], out = quads ? in : y.dims[i];
            const double scale = scales[static_cast<size_t>(i)] == 0 ? static_cast<double>(out) / static_cast<double>(in) : scales[static_cast<size_t>(i)];
            EW_TRY(axes_[i].read(setup, in, out, quads ? 1.0f : static_cast<float>(scale)));
            in_[i] = in;
            tables += rounded(axes_[i].table_bytes());
        }
        strides_of(rank_, in_, strides_);
        element_ = packed_ ? 4 : static_cast<int64_t>(size_of(x.dtype));
        is_signed_ = x.dtype == EW_S8;
        lanes_ = packed_ ? 4 : 1;
        kernels_ = &vector_kernels(setup.isa);
        setup.kernel = nearest_ ? "generic" : kernels_->name;
        tables_ = tables;
        if (empty_ || nearest_) {
            row_bytes_ = 0;
        } else {
            row_bytes_ = rounded(static_cast<size_t>(in_[rank_ - 1] * lanes_) * 4) * 2 + rounded(static_cast<size_t>(y.dims[rank_ - 1] * lanes_) * 4);
        }
        setup.scratch_bytes = empty_ ? 0 : tables + uint64_t{row_bytes_} * static_cast<uint64_t>(setup.threads);
        return {};
    }

    void run(const Run& run) override {
        if (empty_) return;
        uint8_t* table = run.scratch;
        int64_t rows = 1;
        for (int i = 0; i < rank_; ++i) {
            axes_[i].fill(table);
            table += rounded(axes_[i].table_bytes());
            if (i < rank_ - 1) rows *= axes_[i].out();
        }
        const int64_t row = axes_[rank_ - 1].out();
        run.pool.parallel(rows, std::max<int64_t>(1, kGrain / row), [&](int64_t begin, int64_t end, int32_t thread) {
            uint8_t* scratch = run.scratch + tables_ + row_bytes_ * static_cast<size_t>(thread);
            for (int64_t i = begin; i < end; ++i) {
                uint8_t* to = run.outputs[0]->data + i * row * element_;
                nearest_ ? copy_row(run.inputs[0]->data, i, to) : blend_row(run.inputs[0]->data, i, to, scratch);
            }
        });
    }

private:
    // Positions along all axes but the last, of an output's row.
    void locate(int64_t row, int64_t* at) const {
        for (int i = rank_ - 2; i >= 0; --i) {
            at[i] = row % axes_[i].out();
            row /= axes_[i].out();
        }
    }

    template <typename T>
    void pick(const uint8_t* from, uint8_t* to) const {
        const ResizeAxis& last = axes_[rank_ - 1];
        for (int64_t i = 0; i < last.out(); ++i) std::memcpy(to + i * sizeof(T), from + last.index(i, 0) * sizeof(T), sizeof(T));
    }

    void copy_row(const uint8_t* x, int64_t row, uint8_t* to) const {
        int64_t at[EW_MAX_RANK] = {}, offset = 0;
        locate(row, at);
        for (int i = 0; i < rank_ - 1; ++i) offset += axes_[i].index(at[i], 0) * strides_[i];
        const uint8_t* from = x + offset * element_;
        if (axes_[rank_ - 1].copies()) {
            std::memcpy(to, from, static_cast<size_t>(axes_[rank_ - 1].out() * element_));
        } else if (element_ == 4) {
            pick<uint32_t>(from, to);
        } else if (element_ == 1) {
            pick<uint8_t>(from, to);
        } else if (element_ == 2) {
            pick<uint16_t>(from, to);
        } else {
            pick<uint64_t>(from, to);
        }
    }

    // The rows that the outer axes' taps name, weighed and added, then the taps along the row.
    void blend_row(const uint8_t* x, int64_t row, uint8_t* to, uint8_t* scratch) const {
        const int64_t width = in_[rank_ - 1] * lanes_, out = axes_[rank_ - 1].out() * lanes_;
        auto* total = reinterpret_cast<float*>(scratch);
        auto* part = reinterpret_cast<float*>(scratch + rounded(static_cast<size_t>(width) * 4));
        auto* result = packed_ ? reinterpret_cast<float*>(scratch + 2 * rounded(static_cast<size_t>(width) * 4)) : reinterpret_cast<float*>(to);
        const Quantization raw{1.0f, 0, is_signed_};
        int64_t at[EW_MAX_RANK] = {};
        int tap[EW_MAX_RANK] = {};
        locate(row, at);
        for (bool first = true, more = true; more; first = false) {
            int64_t offset = 0;
            float weight = 1;
            for (int i = 0; i < rank_ - 1; ++i) {
                offset += axes_[i].index(at[i], tap[i]) * strides_[i];
                weight *= axes_[i].weight(at[i], tap[i]);
            }
            more = false;
            for (int i = rank_ - 2; i >= 0 && !more; --i) {
                more = ++tap[i] < axes_[i].taps();
                if (!more) tap[i] = 0;
            }
            if (weight == 0 && !first) continue;
            const float* from = reinterpret_cast<const float*>(x + offset * element_);
            if (packed_) {
                kernels_->dequantize(raw, x + offset * element_, part, width);
                from = part;
            }
            if (first) {
                kernels_->scale_shift(from, total, width, weight, 0.0f);
            } else {
                kernels_->add_scaled(from, total, width, weight);
            }
        }
        blend_along(total, result);
        if (packed_) kernels_->quantize(raw, result, to, out);
    }

    void blend_along(const float* total, float* result) const {
        const ResizeAxis& last = axes_[rank_ - 1];
        for (int64_t i = 0; i < last.out(); ++i) {
            for (int64_t lane = 0; lane < lanes_; ++lane) {
                float sum = 0;
                for (int t = 0; t < last.taps(); ++t) sum += last.weight(i, t) * total[last.index(i, t) * lanes_ + lane];
                result[i * lanes_ + lane] = sum;
            }
        }
    }

    ResizeAxis axes_[EW_MAX_RANK];
    int rank_ = 0;
    int64_t in_[EW_MAX_RANK] = {}, strides_[EW_MAX_RANK] = {}, element_ = 4, lanes_ = 1;
    bool packed_ = false, nearest_ = true, empty_ = true, is_signed_ = false;
    size_t tables_ = 0, row_bytes_ = 0;
    const VectorKernels* kernels_ = nullptr;
};

}  // namespace

Operator* make_resize() { return new (std::nothrow) Resize; }

}  // namespace ew
