// nonzero: where x is not 0, as ONNX's NonZero: y (s64, room for [rank, elements of x]) is [rank, count], row-major, and count (s64, one
// element) says how many there are.
#include <cstring>

#include "checks.h"

namespace ew {
namespace {

template <typename T>
int64_t count_all(const uint8_t* x, int64_t elements) {
    int64_t found = 0;
    for (int64_t i = 0; i < elements; ++i) found += reinterpret_cast<const T*>(x)[i] != 0 ? 1 : 0;
    return found;
}

template <typename T>
void write_all(const Tensor& x, int64_t* y, int64_t count) {
    int64_t at[EW_MAX_RANK] = {};
    for (int64_t i = 0, found = 0; found < count; ++i) {
        if (x.as<T>()[i] != 0) {
            for (int32_t axis = 0; axis < x.rank; ++axis) y[axis * count + found] = at[axis];
            ++found;
        }
        for (int32_t axis = x.rank - 1; axis >= 0 && ++at[axis] == x.dims[axis]; --axis) at[axis] = 0;
    }
}

template <typename T>
void find(const Tensor& x, int64_t* y, int64_t* count) {
    *count = count_all<T>(x.data, x.count());
    write_all<T>(x, y, *count);
}

class NonZero final : public Operator {
public:
    Status prepare(Setup& setup) override {
        if (setup.input_count != 1 || !setup.input(0) || setup.output_count != 2) return setup.refuse("takes one input and gives two outputs");
        const Tensor &x = *setup.input(0), &y = *setup.outputs[0], &count = *setup.outputs[1];
        if (!is_plain(x) || x.rank < 1 || size_of(x.dtype) == 2) return setup.refuse("wants a plain tensor with axes");
        if (!is_plain(y, EW_S64) || y.count() != x.rank * x.count()) return setup.refuse("wants room for the places of all elements, as s64");
        if (!is_plain(count, EW_S64) || count.count() != 1) return setup.refuse("counts in one s64");
        return {};
    }

    // Places follow one another: one thread.
    void run(const Run& run) override {
        const Tensor& x = *run.inputs[0];
        auto *y = run.outputs[0]->as<int64_t>(), *count = run.outputs[1]->as<int64_t>();
        if (x.dtype == EW_F32) return find<float>(x, y, count);
        if (x.dtype == EW_S64) return find<int64_t>(x, y, count);
        if (x.dtype == EW_S32) return find<int32_t>(x, y, count);
        find<uint8_t>(x, y, count);
    }
};

}  // namespace

Operator* make_nonzero() { return new (std::nothrow) NonZero; }

}  // namespace ew
