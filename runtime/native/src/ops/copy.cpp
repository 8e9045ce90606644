// y = x, of any dtype and layout: the same bytes.
#include <cstring>

#include "checks.h"

namespace ew {
namespace {

class Copy final : public Operator {
public:
    Status prepare(Setup& setup) override {
        EW_TRY(check_operands(setup, 1, 1));
        const Tensor &x = *setup.input(0), &y = *setup.outputs[0];
        if (x.dtype != y.dtype || x.layout != y.layout) return setup.refuse("wants equal dtypes and layouts");
        bytes_ = stored_count(y) * static_cast<int64_t>(size_of(y.dtype));
        if (stored_count(x) != stored_count(y)) return setup.refuse("wants equal counts");
        return {};
    }

    void run(const Run& run) override {
        const uint8_t* x = run.inputs[0]->data;
        uint8_t* y = run.outputs[0]->data;
        run.pool.parallel(bytes_, 1 << 16, [&](int64_t begin, int64_t end, int32_t) {
            std::memmove(y + begin, x + begin, static_cast<size_t>(end - begin));
        });
    }

private:
    int64_t bytes_ = 0;
};

}  // namespace

Operator* make_copy() { return new (std::nothrow) Copy; }

}  // namespace ew
