// cumsum along `axis` (exclusive, reverse): float32, s64, s32. argmax: the place of the largest (function max) or least (min) along
// `axis`, the first of equal ones (the last with last=1), as s64; y with or without the axis. topk: the `k` largest (largest=1) or
// least along `axis`, in order, and their places as s64; ties go to the lower place.
#include <algorithm>
#include <cstring>

#include "checks.h"

namespace ew {
namespace {

// Lines along an axis: outer * inner of them, elements `inner` apart.
struct Lines {
    int64_t outer = 0, dim = 0, inner = 0;

    Status read(const Setup& setup, const Tensor& x) {
        const int64_t axis = setup.attributes.integer("axis", -1);
        if (!is_plain(x)) return setup.refuse("wants plain tensors");
        if (axis < 0 || axis >= x.rank) return setup.refuse("has an axis that is none");
        outer = x.count(0, static_cast<int32_t>(axis));
        dim = x.dims[axis];
        inner = x.count(static_cast<int32_t>(axis) + 1, x.rank);
        if (outer == 0 || inner == 0) outer = inner = 0;
        return {};
    }
    int64_t first(int64_t line) const { return line / inner * dim * inner + line % inner; }

    template <typename Body>
    void run(ThreadPool& pool, Body&& body) const {
        pool.parallel(outer * inner, std::max<int64_t>(1, kGrain / 4 / std::max<int64_t>(1, dim)), [&](int64_t begin, int64_t end, int32_t thread) {
            for (int64_t i = begin; i < end; ++i) body(i, thread);
        });
    }
};

bool is_number(DType dtype) { return dtype == EW_F32 || dtype == EW_S64 || dtype == EW_S32; }

// Calls call(a null pointer to the type of this dtype).
template <typename Call>
void with_number(DType dtype, Call&& call) {
    if (dtype == EW_F32) return call(static_cast<float*>(nullptr));
    if (dtype == EW_S64) return call(static_cast<int64_t*>(nullptr));
    call(static_cast<int32_t*>(nullptr));
}

float plus(float a, float b) { return a + b; }
int64_t plus(int64_t a, int64_t b) { return static_cast<int64_t>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b)); }
int32_t plus(int32_t a, int32_t b) { return static_cast<int32_t>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b)); }

class CumSum final : public Operator {
public:
    Status prepare(Setup& setup) override {
        EW_TRY(check_operands(setup, 1, 1));
        const Tensor &x = *setup.input(0), &y = *setup.outputs[0];
        if (!is_number(x.dtype) || x.dtype != y.dtype || !same_dims(x, y) || !is_plain(y)) return setup.refuse("wants equal dims, and numbers");
        exclusive_ = setup.attributes.integer("exclusive", 0) != 0;
        reverse_ = setup.attributes.integer("reverse", 0) != 0;
        return lines_.read(setup, x);
    }

    void run(const Run& run) override {
        const Tensor &x = *run.inputs[0], &y = *run.outputs[0];
        with_number(x.dtype, [&](auto* type) {
            using T = std::remove_pointer_t<decltype(type)>;
            lines_.run(run.pool, [&](int64_t line, int32_t) {
                T total = 0;
                for (int64_t i = 0; i < lines_.dim; ++i) {
                    const int64_t at = lines_.first(line) + (reverse_ ? lines_.dim - 1 - i : i) * lines_.inner;
                    const T value = x.as<T>()[at], sum = plus(total, value);
                    y.as<T>()[at] = exclusive_ ? total : sum;
                    total = sum;
                }
            });
        });
    }

private:
    Lines lines_;
    bool exclusive_ = false, reverse_ = false;
};

class ArgMax final : public Operator {
public:
    Status prepare(Setup& setup) override {
        EW_TRY(check_operands(setup, 1, 1));
        const Tensor &x = *setup.input(0), &y = *setup.outputs[0];
        const auto function = setup.attributes.text("function", "max");
        if (function != "max" && function != "min") return setup.refuse("has no such function");
        least_ = function == "min";
        last_ = setup.attributes.integer("last", 0) != 0;
        EW_TRY(lines_.read(setup, x));
        if (!is_number(x.dtype) || !is_plain(y, EW_S64)) return setup.refuse("gives places of numbers as s64");
        if (y.count() != lines_.outer * lines_.inner) return setup.refuse("has a y of another size");
        if (lines_.dim == 0 && y.count() > 0) return setup.refuse("has nothing to choose from");
        return {};
    }

    void run(const Run& run) override {
        const Tensor& x = *run.inputs[0];
        auto* y = run.outputs[0]->as<int64_t>();
        with_number(x.dtype, [&](auto* type) {
            using T = std::remove_pointer_t<decltype(type)>;
            lines_.run(run.pool, [&](int64_t line, int32_t) {
                const T* from = x.as<T>() + lines_.first(line);
                int64_t best = 0;
                T most = *from;
                for (int64_t i = 1; i < lines_.dim; ++i) {
                    const T value = from[i * lines_.inner];
                    const bool better = least_ ? value < most : value > most;
                    if (better || (last_ && value == most)) best = i, most = value;
                }
                y[line] = best;
            });
        });
    }

private:
    Lines lines_;
    bool least_ = false, last_ = false;
};

class TopK final : public Operator {
public:
    Status prepare(Setup& setup) override {
        if (setup.input_count != 1 || !setup.input(0) || setup.output_count != 2) return setup.refuse("takes one input and gives two outputs");
        const Tensor &x = *setup.input(0), &values = *setup.outputs[0], &places = *setup.outputs[1];
        largest_ = setup.attributes.integer("largest", 1) != 0;
        EW_TRY(lines_.read(setup, x));
        const int64_t axis = setup.attributes.integer("axis", -1);
        if (!is_number(x.dtype) || !is_plain(values, x.dtype) || !is_plain(places, EW_S64) || !same_dims(values, places) || values.rank != x.rank) {
            return setup.refuse("wants numbers, and values and places of equal dims");
        }
        for (int i = 0; i < x.rank; ++i) {
            if (i != axis && values.dims[i] != x.dims[i]) return setup.refuse("has values of other dims");
        }
        k_ = values.dims[axis];
        if (k_ > lines_.dim) return setup.refuse("wants more than there is");
        if (k_ == 0) lines_.outer = 0;
        order_bytes_ = (static_cast<size_t>(lines_.dim) * 8 + 63) / 64 * 64;
        setup.scratch_bytes = uint64_t{order_bytes_} * static_cast<uint64_t>(setup.threads);
        return {};
    }

    void run(const Run& run) override {
        const Tensor &x = *run.inputs[0], &values = *run.outputs[0];
        auto* places = run.outputs[1]->as<int64_t>();
        with_number(x.dtype, [&](auto* type) {
            using T = std::remove_pointer_t<decltype(type)>;
            lines_.run(run.pool, [&](int64_t line, int32_t thread) {
                auto* order = reinterpret_cast<int64_t*>(run.scratch + order_bytes_ * static_cast<size_t>(thread));
                const T* from = x.as<T>() + lines_.first(line);
                for (int64_t i = 0; i < lines_.dim; ++i) order[i] = i;
                // NaN is put after all numbers: a comparison must be an order, or the sort may leave its range.
                const auto before = [&](int64_t a, int64_t b) {
                    const T left = from[a * lines_.inner], right = from[b * lines_.inner];
                    if ((left != left) != (right != right)) return right != right;
                    if (left == right || left != left) return a < b;
                    return largest_ ? left > right : left < right;
                };
                std::partial_sort(order, order + k_, order + lines_.dim, before);
                const int64_t to = line / lines_.inner * k_ * lines_.inner + line % lines_.inner;
                for (int64_t i = 0; i < k_; ++i) {
                    values.as<T>()[to + i * lines_.inner] = from[order[i] * lines_.inner];
                    places[to + i * lines_.inner] = order[i];
                }
            });
        });
    }

private:
    Lines lines_;
    bool largest_ = true;
    int64_t k_ = 0;
    size_t order_bytes_ = 0;
};

}  // namespace

Operator* make_argmax() { return new (std::nothrow) ArgMax; }
Operator* make_cumsum() { return new (std::nothrow) CumSum; }
Operator* make_topk() { return new (std::nothrow) TopK; }

}  // namespace ew
