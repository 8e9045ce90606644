// y = function(x), float32, element by element; in place or not.
#include "../kernels/vectors.h"
#include "checks.h"

namespace ew {
namespace {

class Unary final : public Operator {
public:
    Status prepare(Setup& setup) override {
        EW_TRY(check_operands(setup, 1, 1));
        const Tensor &x = *setup.input(0), &y = *setup.outputs[0];
        if (!is_plain(x, EW_F32) || !is_plain(y, EW_F32)) return setup.refuse("wants plain float32 tensors");
        if (x.count() != y.count()) return setup.refuse("wants equal counts");
        const auto asked = setup.attributes.text("function", "");
        if (asked.empty() || !find_function(asked, &function_)) return setup.refuse("has no such function");
        alpha_ = setup.attributes.real("alpha", 0.0f);
        beta_ = setup.attributes.real("beta", 0.0f);
        kernels_ = &vector_kernels(setup.isa);
        setup.kernel = kernels_->name;
        return {};
    }

    void run(const Run& run) override {
        const float* x = run.inputs[0]->as<float>();
        float* y = run.outputs[0]->as<float>();
        run.pool.parallel(run.outputs[0]->count(), kGrain, [&](int64_t begin, int64_t end, int32_t) {
            kernels_->unary(function_, x + begin, y + begin, end - begin, alpha_, beta_);
        });
    }

private:
    Function function_ = Function::kNone;
    float alpha_ = 0, beta_ = 0;
    const VectorKernels* kernels_ = nullptr;
};

}  // namespace

Operator* make_unary() { return new (std::nothrow) Unary; }

}  // namespace ew
