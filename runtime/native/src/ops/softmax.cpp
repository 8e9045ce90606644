// softmax and log_softmax along `axis`, float32; in place or not.
#include <algorithm>

#include "../kernels/vectors.h"
#include "checks.h"

namespace ew {
namespace {

class Softmax : public Operator {
public:
    explicit Softmax(bool logarithm) : logarithm_(logarithm) {}

    Status prepare(Setup& setup) override {
        EW_TRY(check_operands(setup, 1, 1));
        const Tensor &x = *setup.input(0), &y = *setup.outputs[0];
        if (!is_plain(x, EW_F32) || !is_plain(y, EW_F32) || !same_dims(x, y)) return setup.refuse("wants plain float32 tensors of equal dims");
        const int64_t axis = setup.attributes.integer("axis", -1);
        if (axis < 0 || axis >= x.rank) return setup.refuse("has an axis that is none");
        dim_ = x.dims[axis];
        inner_ = x.count(static_cast<int32_t>(axis) + 1, x.rank);
        outer_ = x.count() == 0 ? 0 : x.count(0, static_cast<int32_t>(axis));
        kernels_ = &vector_kernels(setup.isa);
        setup.kernel = kernels_->name;
        return {};
    }

    void run(const Run& run) override {
        const float* x = run.inputs[0]->as<float>();
        float* y = run.outputs[0]->as<float>();
        const int64_t grain = std::max<int64_t>(1, kGrain / 8 / std::max<int64_t>(1, dim_));
        if (inner_ == 1) {
            run.pool.parallel(outer_, grain, [&](int64_t begin, int64_t end, int32_t) {
                for (int64_t i = begin; i < end; ++i) kernels_->softmax_row(x + i * dim_, y + i * dim_, dim_, logarithm_);
            });
            return;
        }
        const int64_t width = kernels_->lanes, tiles = (inner_ + width - 1) / width;
        run.pool.parallel(outer_ * tiles, std::max<int64_t>(1, grain / width), [&](int64_t begin, int64_t end, int32_t) {
            for (int64_t i = begin; i < end; ++i) {
                const int64_t column = i % tiles * width, at = i / tiles * dim_ * inner_ + column;
                kernels_->softmax_columns(x + at, y + at, dim_, inner_, std::min(width, inner_ - column), logarithm_);
            }
        });
    }

private:
    const bool logarithm_;
    int64_t outer_ = 0, dim_ = 0, inner_ = 0;
    const VectorKernels* kernels_ = nullptr;
};

}  // namespace

Operator* make_log_softmax() { return new (std::nothrow) Softmax(true); }
Operator* make_softmax() { return new (std::nothrow) Softmax(false); }

}  // namespace ew
