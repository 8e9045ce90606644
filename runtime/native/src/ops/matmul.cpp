// matmul: y [.., M, N] = alpha * a [.., M, K] * b [.., K, N], float32; transpose_a, transpose_b: their last two axes are swapped.
// The batch axes broadcast as in numpy.
#include <algorithm>

#include "../kernels/vectors.h"
#include "broadcast.h"

namespace ew {
namespace {

// The batch axes of a tensor, seen as a tensor of their own.
Tensor batches_of(const Tensor& tensor) {
    Tensor out = tensor;
    out.rank = tensor.rank - 2;
    return out;
}

class MatMul final : public Operator {
public:
    Status prepare(Setup& setup) override {
        EW_TRY(check_operands(setup, 2, 2));
        const Tensor &a = *setup.input(0), &b = *setup.input(1), &y = *setup.outputs[0];
        for (const Tensor* tensor : {&a, &b, &y}) {
            if (!is_plain(*tensor, EW_F32) || tensor->rank < 2) return setup.refuse("wants plain float32 matrices");
        }
        const bool swap_a = setup.attributes.integer("transpose_a", 0) != 0;
        swap_b_ = setup.attributes.integer("transpose_b", 0) != 0;
        const int64_t *da = a.dims + a.rank - 2, *db = b.dims + b.rank - 2, *dy = y.dims + y.rank - 2;
        columns_ = dy[1];
        product_ = {};
        product_.rows = dy[0];
        product_.k = da[swap_a ? 0 : 1];
        if (da[swap_a ? 1 : 0] != dy[0] || db[swap_b_ ? 1 : 0] != product_.k || db[swap_b_ ? 0 : 1] != columns_) {
            return setup.refuse("has matrices that do not fit");
        }
        const Tensor batches_a = batches_of(a), batches_b = batches_of(b), batches_y = batches_of(y);
        const Tensor* const operands[] = {&batches_a, &batches_b};
        if (!loops_.set(batches_y, operands)) return setup.refuse("cannot broadcast its batches to y");
        batches_ = y.count() == 0 ? 0 : batches_y.count();
        kernels_ = &vector_kernels(setup.isa);
        setup.kernel = kernels_->name;
        product_.a_row = swap_a ? 1 : product_.k;
        product_.a_k = swap_a ? product_.rows : 1;
        product_.y_row = columns_;
        product_.alpha = setup.attributes.real("alpha", 1.0f);
        width_ = 2 * kernels_->lanes;
        panel_bytes_ = static_cast<size_t>(product_.k) * static_cast<size_t>(width_) * 4;
        setup.scratch_bytes = uint64_t{panel_bytes_} * static_cast<uint64_t>(setup.threads);
        return {};
    }

    void run(const Run& run) override {
        const float *a = run.inputs[0]->as<float>(), *b = run.inputs[1]->as<float>();
        float* y = run.outputs[0]->as<float>();
        const int64_t panels = (columns_ + width_ - 1) / width_, work = std::max<int64_t>(1, product_.rows * product_.k * width_ / 16);
        run.pool.parallel(batches_ * panels, std::max<int64_t>(1, kGrain / work), [&](int64_t begin, int64_t end, int32_t thread) {
            auto* panel = reinterpret_cast<float*>(run.scratch + panel_bytes_ * static_cast<size_t>(thread));
            for (int64_t i = begin; i < end; ++i) {
                const int64_t batch = i / panels, column = i % panels * width_, some = std::min(width_, columns_ - column);
                int64_t at[2];
                loops_.locate(batch, at);
                Product product = product_;
                const float* right = b + at[1] * product_.k * columns_;
                const bool direct = !swap_b_ && some == width_;
                product.b_row = direct ? columns_ : width_;
                if (!direct) pack(right, column, some, panel);
                kernels_->product_panel(product, a + at[0] * product_.rows * product_.k, direct ? right + column : panel,
                                        y + batch * product_.rows * columns_ + column, some);
            }
        });
    }

private:
    // Columns of b as rows of a panel, the rest of it 0.
    void pack(const float* b, int64_t column, int64_t some, float* panel) const {
        for (int64_t k = 0; k < product_.k; ++k) {
            float* row = panel + k * width_;
            for (int64_t c = 0; c < some; ++c) row[c] = swap_b_ ? b[(column + c) * product_.k + k] : b[k * columns_ + column + c];
            std::fill(row + some, row + width_, 0.0f);
        }
    }

    Broadcast<2> loops_;
    Product product_;
    int64_t columns_ = 0, width_ = 0, batches_ = 0;
    bool swap_b_ = false;
    size_t panel_bytes_ = 0;
    const VectorKernels* kernels_ = nullptr;
};

}  // namespace

Operator* make_matmul() { return new (std::nothrow) MatMul; }

}  // namespace ew
