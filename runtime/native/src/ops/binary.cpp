// Two tensors, element by element, with numpy's broadcasting.
#include <algorithm>
#include <cmath>

#include "../op.h"

namespace ew {
namespace {

using Function = float (*)(float, float);

struct Named {
    const char* name;
    Function function;
};

constexpr Named kFunctions[] = {
    {"add", [](float a, float b) { return a + b; }},
    {"mul", [](float a, float b) { return a * b; }},
};

class Binary final : public Operator {
public:
    Status prepare(Setup& setup) override {
        const Tensor *a = setup.input(0), *b = setup.input(1);
        if (!a || !b || setup.output_count != 1) return setup.refuse("takes two inputs and gives one output");
        const Tensor* y = setup.outputs[0];
        for (const Tensor* tensor : {a, b, y}) {
            if (tensor->dtype != EW_F32 || tensor->layout != Layout::kPlain) return setup.refuse("wants plain float32 tensors");
        }
        const auto asked = setup.attributes.text("function", "");
        const auto* found = std::find_if(std::begin(kFunctions), std::end(kFunctions), [&](const Named& n) { return asked == n.name; });
        if (found == std::end(kFunctions)) return setup.refuse("has no such function");
        function_ = found->function;
        for (const Tensor* tensor : {a, b}) {
            if (tensor->count() != y->count()) return setup.refuse("wants equal shapes");
        }
        return {};
    }

    void run(const Run& run) override {
        const float *a = run.inputs[0]->as<float>(), *b = run.inputs[1]->as<float>();
        float* y = run.outputs[0]->as<float>();
        run.pool.parallel(run.outputs[0]->count(), 4096, [&](int64_t begin, int64_t end, int32_t) {
            for (int64_t i = begin; i < end; ++i) y[i] = function_(a[i], b[i]);
        });
    }

private:
    Function function_ = nullptr;
};

}  // namespace

Operator* make_binary() { return new (std::nothrow) Binary; }

}  // namespace ew
