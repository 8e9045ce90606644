// gather: y = the entries of x that `indices` (s64 or s32) name along axis. gather_elements: the same for each element.
// An index that is out of range is brought into it: what a run reads cannot be checked before, and must stay inside.
#include <algorithm>
#include <cstring>

#include "checks.h"

namespace ew {
namespace {

// Negative ones count from the end, as in ONNX.
int64_t index_at(const Tensor& indices, int64_t i, int64_t dim) {
    const int64_t index = indices.dtype == EW_S64 ? indices.as<int64_t>()[i] : indices.as<int32_t>()[i];
    return std::clamp<int64_t>(index < 0 && index >= -dim ? index + dim : index, 0, dim - 1);
}

bool are_indices(const Tensor& tensor) { return is_plain(tensor, EW_S64) || is_plain(tensor, EW_S32); }

class Gather final : public Operator {
public:
    Status prepare(Setup& setup) override {
        EW_TRY(check_operands(setup, 2, 2));
        const Tensor &x = *setup.input(0), &indices = *setup.input(1), &y = *setup.outputs[0];
        if (!is_plain(x) || !is_plain(y) || x.dtype != y.dtype || !are_indices(indices)) return setup.refuse("wants plain tensors and s64 or s32 indices");
        const int64_t axis = setup.attributes.integer("axis", -1);
        if (axis < 0 || axis >= x.rank) return setup.refuse("has an axis that is none");
        dim_ = x.dims[axis];
        outer_ = x.count(0, static_cast<int32_t>(axis));
        inner_ = x.count(static_cast<int32_t>(axis) + 1, x.rank) * static_cast<int64_t>(size_of(x.dtype));
        count_ = indices.count();
        int64_t items, wanted;
        if (__builtin_mul_overflow(outer_, count_, &items) || __builtin_mul_overflow(items, inner_, &wanted) ||
            wanted != y.count() * static_cast<int64_t>(size_of(y.dtype))) {
            return setup.refuse("has a y of another size");
        }
        if (dim_ == 0 && wanted > 0) return setup.refuse("has nothing to gather from");
        if (wanted == 0) count_ = 0;
        return {};
    }

    void run(const Run& run) override {
        const Tensor &x = *run.inputs[0], &indices = *run.inputs[1];
        uint8_t* y = run.outputs[0]->data;
        const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, inner_));
        run.pool.parallel(outer_ * count_, grain, [&](int64_t begin, int64_t end, int32_t) {
            for (int64_t i = begin; i < end; ++i) {
                const int64_t from = i / count_ * dim_ + index_at(indices, i % count_, dim_);
                std::memcpy(y + i * inner_, x.data + from * inner_, static_cast<size_t>(inner_));
            }
        });
    }

private:
    int64_t outer_ = 0, dim_ = 0, inner_ = 0, count_ = 0;  // inner in bytes
};

class GatherElements final : public Operator {
public:
    Status prepare(Setup& setup) override {
        EW_TRY(check_operands(setup, 2, 2));
        const Tensor &x = *setup.input(0), &indices = *setup.input(1), &y = *setup.outputs[0];
        if (!is_plain(x) || !is_plain(y) || x.dtype != y.dtype || !are_indices(indices)) return setup.refuse("wants plain tensors and s64 or s32 indices");
        axis_ = static_cast<int32_t>(std::clamp<int64_t>(setup.attributes.integer("axis", -1), -1, EW_MAX_RANK));
        if (axis_ < 0 || axis_ >= x.rank || !same_dims(indices, y) || x.rank != y.rank) return setup.refuse("has other dims or no such axis");
        for (int32_t i = 0; i < x.rank; ++i) {
            if (i != axis_ && y.dims[i] > x.dims[i]) return setup.refuse("has more indices than x along axis %d", i);
        }
        if (x.dims[axis_] == 0 && y.count() > 0) return setup.refuse("has nothing to gather from");
        return {};
    }

    void run(const Run& run) override {
        const Tensor &x = *run.inputs[0], &indices = *run.inputs[1], &y = *run.outputs[0];
        const size_t element = size_of(x.dtype);
        run.pool.parallel(y.count(), kGrain, [&](int64_t begin, int64_t end, int32_t) {
            for (int64_t i = begin; i < end; ++i) {
                int64_t rest = i, from = 0, stride = 1;
                for (int32_t axis = y.rank - 1; axis >= 0; --axis) {
                    const int64_t at = axis == axis_ ? index_at(indices, i, x.dims[axis]) : rest % y.dims[axis];
                    from += at * stride;
                    stride *= x.dims[axis];
                    rest /= y.dims[axis];
                }
                std::memcpy(y.data + i * static_cast<int64_t>(element), x.data + from * static_cast<int64_t>(element), element);
            }
        });
    }

private:
    int32_t axis_ = 0;
};

}  // namespace

Operator* make_gather() { return new (std::nothrow) Gather; }
Operator* make_gather_elements() { return new (std::nothrow) GatherElements; }

}  // namespace ew
