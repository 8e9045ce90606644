// reduce: y = x folded along `axes` (all when there are none). function: sum mean max min prod l1 l2 sumsquare; float32, s64, s32.
// y's dims may have ones for the axes, or not.
#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>

#include "../kernels/vectors.h"
#include "checks.h"

namespace ew {
namespace {

struct Named {
    std::string_view name;
    Fold fold;
    bool mean, root;
};

constexpr Named kFunctions[] = {{"sum", Fold::kSum, false, false},     {"mean", Fold::kSum, true, false},
                                {"max", Fold::kMax, false, false},     {"min", Fold::kMin, false, false},
                                {"prod", Fold::kProduct, false, false}, {"l1", Fold::kAbsolute, false, false},
                                {"l2", Fold::kSquare, false, true},    {"sumsquare", Fold::kSquare, false, false}};

// Neighbouring axes of one kind, merged: a size and the distance in x.
struct Axes {
    int rank = 0;
    int64_t dims[EW_MAX_RANK] = {}, strides[EW_MAX_RANK] = {};

    int64_t offset(int64_t index) const {
        int64_t at = 0;
        for (int i = rank - 1; i >= 0; --i) {
            at += index % dims[i] * strides[i];
            index /= dims[i];
        }
        return at;
    }
    int64_t count() const {
        int64_t n = 1;
        for (int i = 0; i < rank; ++i) n *= dims[i];
        return n;
    }
};

template <typename T>
T start_of(Fold fold) {
    using Limits = std::numeric_limits<T>;
    if (fold == Fold::kMax) return Limits::has_infinity ? -Limits::infinity() : Limits::lowest();
    if (fold == Fold::kMin) return Limits::has_infinity ? Limits::infinity() : Limits::max();
    return fold == Fold::kProduct ? T{1} : T{0};
}

template <typename T>
T fold_whole(Fold fold, T total, T x) {
    using U = std::make_unsigned_t<T>;
    const U a = static_cast<U>(total), b = static_cast<U>(x);
    switch (fold) {
        case Fold::kSum: return static_cast<T>(a + b);
        case Fold::kAbsolute: return static_cast<T>(a + (x < 0 ? U{0} - b : b));
        case Fold::kSquare: return static_cast<T>(a + b * b);
        case Fold::kProduct: return static_cast<T>(a * b);
        case Fold::kMax: return std::max(total, x);
        case Fold::kMin: return std::min(total, x);
    }
    return total;
}

class Reduce final : public Operator {
public:
    Status prepare(Setup& setup) override {
        EW_TRY(check_operands(setup, 1, 1));
        const Tensor &x = *setup.input(0), &y = *setup.outputs[0];
        const auto asked = setup.attributes.text("function", "");
        const auto* found = std::find_if(std::begin(kFunctions), std::end(kFunctions), [&](const Named& n) { return n.name == asked; });
        if (found == std::end(kFunctions)) return setup.refuse("has no such function");
        function_ = *found;
        if (!is_plain(x) || !is_plain(y) || x.dtype != y.dtype) return setup.refuse("wants plain tensors of one dtype");
        if (x.dtype != EW_F32 && x.dtype != EW_S64 && x.dtype != EW_S32) return setup.refuse("has no such dtype");
        EW_TRY(split_axes(setup, x));
        folds_ = x.count() == 0 ? 0 : folded_.count();  // beside an axis of 0 the others may be of any length
        if (y.count() != kept_.count() * inner_) return setup.refuse("has a y of another size");
        kernels_ = &vector_kernels(setup.isa);
        setup.kernel = x.dtype == EW_F32 ? kernels_->name : "generic";
        return {};
    }

    void run(const Run& run) override {
        const Tensor &x = *run.inputs[0], &y = *run.outputs[0];
        if (y.count() == 0) return;
        if (x.dtype == EW_S64) return whole(run.pool, x.as<int64_t>(), y.as<int64_t>());
        if (x.dtype == EW_S32) return whole(run.pool, x.as<int32_t>(), y.as<int32_t>());
        floats(run.pool, x.as<float>(), y.as<float>());
    }

private:
    // kept_ and folded_ are all but the last of the merged axes: that is a row to fold (row_) or a row of results (inner_).
    Status split_axes(const Setup& setup, const Tensor& x) {
        uint32_t folded = 0;
        for (int64_t axis : setup.attributes.integers("axes")) {
            if (axis < 0 || axis >= x.rank) return setup.refuse("has an axis that is none");
            folded |= 1u << axis;
        }
        if (setup.attributes.integers("axes").empty()) folded = ~0u;
        kept_ = {}, folded_ = {};
        row_ = inner_ = 1;
        int64_t stride = 1;
        bool last = true, last_folded = false;
        for (int i = x.rank - 1; i >= 0; --i) {
            const bool fold = folded >> i & 1;
            if (x.dims[i] == 1) continue;
            if (last && stride == 1 && row_ == 1 && inner_ == 1) last_folded = fold;
            if (last && fold == last_folded) {
                (fold ? row_ : inner_) *= x.dims[i];
            } else {
                last = false;
                Axes& axes = fold ? folded_ : kept_;
                axes.dims[axes.rank] = x.dims[i];
                axes.strides[axes.rank++] = stride;
            }
            stride *= x.dims[i];
        }
        for (Axes* axes : {&kept_, &folded_}) {
            std::reverse(axes->dims, axes->dims + axes->rank);
            std::reverse(axes->strides, axes->strides + axes->rank);
        }
        return {};
    }

    template <typename T>
    void whole(ThreadPool& pool, const T* x, T* y) const {
        const int64_t count = folds_ * row_;
        pool.parallel(kept_.count() * inner_, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, count)), [&](int64_t begin, int64_t end, int32_t) {
            for (int64_t i = begin; i < end; ++i) {
                T total = start_of<T>(function_.fold);
                const T* from = x + kept_.offset(i / inner_) + i % inner_;
                for (int64_t f = 0; f < folds_; ++f) {
                    const T* row = from + folded_.offset(f);
                    for (int64_t k = 0; k < row_; ++k) total = fold_whole(function_.fold, total, row[k]);
                }
                if (function_.mean) total = count == 0 ? 0 : static_cast<T>(total / count);
                // A sum of squares that wrapped around may be below 0, and has no root.
                if (function_.root) total = total < 0 ? 0 : static_cast<T>(std::sqrt(static_cast<double>(total)));
                y[i] = total;
            }
        });
    }

    void floats(ThreadPool& pool, const float* x, float* y) const {
        constexpr int64_t kPart = 1024;  // results at a time, where they lie side by side
        const int64_t parts = (inner_ + kPart - 1) / kPart;
        const int64_t work = std::max<int64_t>(1, folds_ * row_ * std::min(inner_, kPart));
        pool.parallel(kept_.count() * parts, std::max<int64_t>(1, kGrain / work), [&](int64_t begin, int64_t end, int32_t) {
            for (int64_t i = begin; i < end; ++i) {
                const int64_t first = i % parts * kPart, some = std::min(kPart, inner_ - first);
                const float* from = x + kept_.offset(i / parts) + first;
                float* to = y + i / parts * inner_ + first;
                std::fill(to, to + some, start_of<float>(function_.fold));
                for (int64_t f = 0; f < folds_; ++f) {
                    if (inner_ == 1) {
                        *to = kernels_->fold_row(function_.fold, from + folded_.offset(f), row_, *to);
                    } else {
                        kernels_->fold_into(function_.fold, from + folded_.offset(f), to, some);
                    }
                }
                finish(to, some, folds_ * row_);
            }
        });
    }

    void finish(float* y, int64_t count, int64_t folded) const {
        for (int64_t i = 0; i < count; ++i) {
            if (function_.mean) y[i] /= static_cast<float>(folded);
            if (function_.root) y[i] = std::sqrt(y[i]);
        }
    }

    Named function_{};
    Axes kept_, folded_;
    int64_t row_ = 1, inner_ = 1, folds_ = 1;
    const VectorKernels* kernels_ = nullptr;
};

}  // namespace

Operator* make_reduce() { return new (std::nothrow) Reduce; }

}  // namespace ew
