// gather: y = the entries of x that `indices` (s64 or s32) name along axis. gather_elements: the same for each element. scatter: y = x
// [rows, inner] with the rows that `indices` name replaced by those of a third input, one after the other; with a reduction (add, mul,
// min, max) what is there already counts too.
// An index that is out of range is brought into it: what a run reads cannot be checked before, and must stay inside.
#include <algorithm>
#include <cstring>
#include <type_traits>

#include "checks.h"

namespace ew {
namespace {

// Negative ones count from the end, as in ONNX.
int64_t index_at(const Tensor& indices, int64_t i, int64_t dim) {
    const int64_t index = indices.dtype == EW_S64 ? indices.as<int64_t>()[i] : indices.as<int32_t>()[i];
    return std::clamp<int64_t>(index < 0 && index >= -dim ? index + dim : index, 0, dim - 1);
}

bool are_indices(const Tensor& tensor) { return is_plain(tensor, EW_S64) || is_plain(tensor, EW_S32); }

// Elements of so many bytes (0: of `bytes`) from their places: along the last axis a call would cost more than the element.
template <size_t kBytes>
void pick(uint8_t* y, const uint8_t* x, const int64_t* places, int64_t bytes, int64_t count) {
    for (int64_t i = 0; i < count; ++i, y += kBytes ? static_cast<int64_t>(kBytes) : bytes) {
        std::memcpy(y, x + places[i], kBytes ? kBytes : static_cast<size_t>(bytes));
    }
}

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
        setup.scratch_bytes = static_cast<uint64_t>(count_) * 8;
        return {};
    }

    void run(const Run& run) override {
        const Tensor &x = *run.inputs[0], &indices = *run.inputs[1];
        uint8_t* y = run.outputs[0]->data;
        auto* places = reinterpret_cast<int64_t*>(run.scratch);
        for (int64_t i = 0; i < count_; ++i) places[i] = index_at(indices, i, dim_) * inner_;
        const auto rows = inner_ == 4 ? pick<4> : inner_ == 1 ? pick<1> : pick<0>;
        const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, inner_));
        run.pool.parallel(outer_ * count_, grain, [&](int64_t begin, int64_t end, int32_t) {
            for (int64_t i = begin; i < end;) {
                const int64_t row = i / count_, at = i % count_, some = std::min(end - i, count_ - at);
                rows(y + i * inner_, x.data + row * dim_ * inner_, places + at, inner_, some);
                i += some;
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

enum class Fold { kNone, kAdd, kMul, kMin, kMax };

// Integers wrap around.
template <typename T>
void fold(Fold kind, T* y, const T* update, int64_t count) {
    using U = typename std::conditional_t<std::is_integral_v<T>, std::make_unsigned<T>, std::common_type<T>>::type;
    for (int64_t i = 0; i < count; ++i) {
        const T a = y[i], b = update[i];
        if (kind == Fold::kAdd) y[i] = static_cast<T>(static_cast<U>(a) + static_cast<U>(b));
        if (kind == Fold::kMul) y[i] = static_cast<T>(static_cast<U>(a) * static_cast<U>(b));
        if (kind == Fold::kMin) y[i] = std::min(a, b);
        if (kind == Fold::kMax) y[i] = std::max(a, b);
    }
}

class Scatter final : public Operator {
public:
    Status prepare(Setup& setup) override {
        EW_TRY(check_operands(setup, 3, 3));
        const Tensor &x = *setup.input(0), &indices = *setup.input(1), &updates = *setup.input(2), &y = *setup.outputs[0];
        if (!is_plain(x) || !is_plain(y) || !is_plain(updates) || x.dtype != y.dtype || x.dtype != updates.dtype || !are_indices(indices)) {
            return setup.refuse("wants plain tensors and s64 or s32 indices");
        }
        if (x.rank != 2 || !same_dims(x, y)) return setup.refuse("wants rows, and as many in y");
        int64_t wanted;
        if (__builtin_mul_overflow(indices.count(), x.dims[1], &wanted) || wanted != updates.count()) return setup.refuse("has updates of another size");
        if (x.dims[0] == 0 && wanted > 0) return setup.refuse("has nothing to replace");
        const auto name = setup.attributes.text("reduction", "none");
        constexpr const char* kNames[] = {"none", "add", "mul", "min", "max"};
        const auto* found = std::find(std::begin(kNames), std::end(kNames), name);
        if (found == std::end(kNames)) return setup.refuse("has no such reduction");
        kind_ = static_cast<Fold>(found - kNames);
        const bool number = x.dtype == EW_F32 || x.dtype == EW_S64 || x.dtype == EW_S32;
        return kind_ == Fold::kNone || number ? Status{} : setup.refuse("reduces float32, s64 and s32");
    }

    // Indices may name a row twice, and then the order counts: one thread.
    void run(const Run& run) override {
        const Tensor &x = *run.inputs[0], &indices = *run.inputs[1], &updates = *run.inputs[2];
        uint8_t* y = run.outputs[0]->data;
        const int64_t inner = x.dims[1], bytes = inner * static_cast<int64_t>(size_of(x.dtype)), count = updates.count() == 0 ? 0 : indices.count();
        if (x.count() > 0) std::memcpy(y, x.data, static_cast<size_t>(x.count()) * size_of(x.dtype));
        for (int64_t i = 0; i < count; ++i) {
            uint8_t* to = y + index_at(indices, i, x.dims[0]) * bytes;
            const uint8_t* from = updates.data + i * bytes;
            if (kind_ == Fold::kNone) std::memcpy(to, from, static_cast<size_t>(bytes));
            else if (x.dtype == EW_F32) fold(kind_, reinterpret_cast<float*>(to), reinterpret_cast<const float*>(from), inner);
            else if (x.dtype == EW_S64) fold(kind_, reinterpret_cast<int64_t*>(to), reinterpret_cast<const int64_t*>(from), inner);
            else fold(kind_, reinterpret_cast<int32_t*>(to), reinterpret_cast<const int32_t*>(from), inner);
        }
    }

private:
    Fold kind_ = Fold::kNone;
};

}  // namespace

Operator* make_gather() { return new (std::nothrow) Gather; }
Operator* make_gather_elements() { return new (std::nothrow) GatherElements; }
Operator* make_scatter() { return new (std::nothrow) Scatter; }

}  // namespace ew
