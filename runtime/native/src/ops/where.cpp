// y = condition ? a : b, element by element, with numpy's broadcasting; a, b and y of one dtype.
#include "broadcast.h"

namespace ew {
namespace {

template <typename T>
void choose(const uint8_t* condition, int64_t condition_step, const uint8_t* a, int64_t a_step, const uint8_t* b, int64_t b_step, uint8_t* y,
            int64_t count) {
    const auto *yes = reinterpret_cast<const T*>(a), *no = reinterpret_cast<const T*>(b);
    auto* to = reinterpret_cast<T*>(y);
    for (int64_t i = 0; i < count; ++i) to[i] = condition[i * condition_step] ? yes[i * a_step] : no[i * b_step];
}

class Where final : public Operator {
public:
    Status prepare(Setup& setup) override {
        EW_TRY(check_operands(setup, 3, 3));
        const Tensor& y = *setup.outputs[0];
        for (int i = 1; i < 3; ++i) {
            if (!is_plain(*setup.input(i), y.dtype)) return setup.refuse("wants plain tensors of one dtype");
        }
        if (!is_plain(y) || !is_plain(*setup.input(0), EW_BOOL)) return setup.refuse("wants plain tensors and a bool condition");
        const Tensor* const operands[] = {setup.input(0), setup.input(1), setup.input(2)};
        if (!loops_.set(y, operands)) return setup.refuse("cannot broadcast its inputs to y");
        element_ = static_cast<int64_t>(size_of(y.dtype));
        return {};
    }

    void run(const Run& run) override {
        const auto chooser = element_ == 1 ? choose<uint8_t> : element_ == 2 ? choose<uint16_t> : element_ == 4 ? choose<uint32_t> : choose<uint64_t>;
        loops_.run(run.pool, [&](int64_t first, int64_t count, const int64_t* at) {
            chooser(run.inputs[0]->data + at[0], loops_.step(0), run.inputs[1]->data + at[1] * element_, loops_.step(1),
                    run.inputs[2]->data + at[2] * element_, loops_.step(2), run.outputs[0]->data + first * element_, count);
        });
    }

private:
    Broadcast<3> loops_;
    int64_t element_ = 1;
};

}  // namespace

Operator* make_where() { return new (std::nothrow) Where; }

}  // namespace ew
