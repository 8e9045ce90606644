// Operators that only move elements, of any dtype: each prepares strided copies.
#include <vector>

#include "checks.h"
#include "strided_copy.h"

namespace ew {
namespace {

constexpr int kMax = StridedCopy::kMaxRank;

Status check_moved(const Setup& setup, const Tensor& x, const Tensor& y) {
    if (!is_plain(x) || !is_plain(y)) return setup.refuse("wants plain tensors");
    if (x.dtype != y.dtype) return setup.refuse("wants equal dtypes");
    return {};
}

// One input, one output, one copy.
class Move : public Operator {
public:
    Status prepare(Setup& setup) final {
        EW_TRY(check_operands(setup, 1, 1));
        const Tensor &x = *setup.input(0), &y = *setup.outputs[0];
        EW_TRY(check_moved(setup, x, y));
        offset_ = 0;
        return plan(setup, x, y);
    }
    void run(const Run& run) final { copy_.run(run.inputs[0]->data + offset_, run.outputs[0]->data, run.pool); }

protected:
    // Checks, then sets copy_ and offset_ (bytes).
    virtual Status plan(Setup& setup, const Tensor& x, const Tensor& y) = 0;

    StridedCopy copy_;
    int64_t offset_ = 0;
};

// perm: y's axis i is x's axis perm[i].
class Transpose final : public Move {
    Status plan(Setup& setup, const Tensor& x, const Tensor& y) override {
        const std::vector<int64_t>& perm = setup.attributes.integers("perm");
        if (perm.size() != static_cast<size_t>(x.rank) || x.count() != y.count()) return setup.refuse("wants perm of x's rank and equal counts");
        int64_t strides[kMax], dims[kMax], from[kMax], to[kMax];
        uint32_t seen = 0;
        strides_of(x.rank, x.dims, strides);
        for (int i = 0; i < x.rank; ++i) {
            const int64_t axis = perm[static_cast<size_t>(i)];
            if (axis < 0 || axis >= x.rank || (seen >> axis & 1)) return setup.refuse("has a perm that is none");
            seen |= 1u << axis;
            dims[i] = x.dims[axis];
            from[i] = strides[axis];
        }
        strides_of(x.rank, dims, to);
        copy_.set(x.rank, dims, from, to, size_of(x.dtype));
        return {};
    }
};

// starts and steps (1 by default), one per axis; the sizes are y's dims.
class Slice final : public Move {
    Status plan(Setup& setup, const Tensor& x, const Tensor& y) override {
        const std::vector<int64_t>&starts = setup.attributes.integers("starts"), &steps = setup.attributes.integers("steps");
        const auto rank = static_cast<size_t>(x.rank);
        if (x.rank != y.rank || starts.size() != rank || (!steps.empty() && steps.size() != rank)) {
            return setup.refuse("wants a start and a step for each axis");
        }
        int64_t strides[kMax], from[kMax], to[kMax], offset = 0;
        strides_of(x.rank, x.dims, strides);
        for (int i = 0; i < x.rank; ++i) {
            const int64_t start = starts[static_cast<size_t>(i)], step = steps.empty() ? 1 : steps[static_cast<size_t>(i)];
            if (y.dims[i] > 0 && !inside(start, step, y.dims[i], x.dims[i])) {
                return setup.refuse("reads outside of x along axis %d", i);
            }
            offset += y.dims[i] > 0 ? start * strides[i] : 0;
            from[i] = y.dims[i] > 1 ? strides[i] * step : 0;  // a step that is never taken may be anything
        }
        strides_of(y.rank, y.dims, to);
        if (y.count() == 0) offset = 0;
        offset_ = offset * static_cast<int64_t>(size_of(x.dtype));
        copy_.set(y.rank, y.dims, from, to, size_of(x.dtype));
        return {};
    }

    static bool inside(int64_t start, int64_t step, int64_t count, int64_t dim) {
        int64_t last;
        if (__builtin_mul_overflow(count - 1, step, &last) || __builtin_add_overflow(start, last, &last)) return false;
        return start >= 0 && start < dim && last >= 0 && last < dim;
    }
};

// numpy's broadcasting to y's dims.
class Expand final : public Move {
    Status plan(Setup& setup, const Tensor& x, const Tensor& y) override {
        if (x.rank > y.rank) return setup.refuse("wants no more dims in x than in y");
        int64_t strides[kMax] = {}, from[kMax] = {}, to[kMax];
        strides_of(x.rank, x.dims, strides);
        const int lead = y.rank - x.rank;
        for (int i = 0; i < x.rank; ++i) {
            if (x.dims[i] != y.dims[lead + i] && x.dims[i] != 1) return setup.refuse("cannot broadcast axis %d", i);
            from[lead + i] = x.dims[i] == 1 ? 0 : strides[i];
        }
        strides_of(y.rank, y.dims, to);
        copy_.set(y.rank, y.dims, from, to, size_of(x.dtype));
        return {};
    }
};

// Each of y's dims is a multiple of x's.
class Tile final : public Move {
    Status plan(Setup& setup, const Tensor& x, const Tensor& y) override {
        if (x.rank != y.rank) return setup.refuse("wants equal ranks");
        int64_t from_strides[kMax], to_strides[kMax], dims[kMax], from[kMax], to[kMax];
        strides_of(x.rank, x.dims, from_strides);
        strides_of(y.rank, y.dims, to_strides);
        for (int i = 0; i < x.rank; ++i) {
            if (x.dims[i] == 0 ? y.dims[i] != 0 : y.dims[i] % x.dims[i] != 0) return setup.refuse("wants a whole number of repeats");
            dims[2 * i] = x.dims[i] == 0 ? 0 : y.dims[i] / x.dims[i], from[2 * i] = 0, to[2 * i] = to_strides[i] * x.dims[i];
            dims[2 * i + 1] = x.dims[i], from[2 * i + 1] = from_strides[i], to[2 * i + 1] = to_strides[i];
        }
        copy_.set(2 * x.rank, dims, from, to, size_of(x.dtype));
        return {};
    }
};

// block (size), mode "dcr" or "crd" as in ONNX; x [N, C, H, W].
class DepthToSpace : public Move {
protected:
    explicit DepthToSpace(bool back) : back_(back) {}

    Status plan(Setup& setup, const Tensor& x, const Tensor& y) override {
        const int64_t b = setup.attributes.integer("block", 0);
        const Tensor &deep = back_ ? y : x, &wide = back_ ? x : y;
        if (x.rank != 4 || y.rank != 4 || b < 1 || b > 256) return setup.refuse("wants rank 4 and a block");
        if (deep.dims[0] != wide.dims[0] || deep.dims[1] != wide.dims[1] * b * b || wide.dims[2] != deep.dims[2] * b ||
            wide.dims[3] != deep.dims[3] * b) {
            return setup.refuse("has dims that do not fit the block");
        }
        const bool crd = setup.attributes.text("mode", "dcr") == "crd";
        const int64_t n = wide.dims[0], c = wide.dims[1], h = deep.dims[2], w = deep.dims[3];
        // Axes: batch, channel, row of the block, column of the block, row, column.
        const int64_t dims[] = {n, c, b, b, h, w};
        const int64_t channel = crd ? b * b : 1, row = crd ? b : b * c, column = crd ? 1 : c;
        const int64_t of_deep[] = {c * b * b * h * w, channel * h * w, row * h * w, column * h * w, w, 1};
        const int64_t of_wide[] = {c * b * b * h * w, b * b * h * w, b * w, 1, b * b * w, b};
        copy_.set(6, dims, back_ ? of_wide : of_deep, back_ ? of_deep : of_wide, size_of(x.dtype));
        return {};
    }

private:
    const bool back_;
};
class ToSpace final : public DepthToSpace {
public:
    ToSpace() : DepthToSpace(false) {}
};
class ToDepth final : public DepthToSpace {
public:
    ToDepth() : DepthToSpace(true) {}
};

// axis; inputs one after another along it.
class Concat final : public Operator {
public:
    Status prepare(Setup& setup) override {
        if (setup.input_count < 1 || setup.output_count != 1) return setup.refuse("wants inputs and one output");
        const Tensor& y = *setup.outputs[0];
        const int64_t axis = setup.attributes.integer("axis", -1);
        if (axis < 0 || axis >= y.rank) return setup.refuse("has an axis that is none");
        copies_.assign(static_cast<size_t>(setup.input_count), {});
        int64_t strides[kMax], from[kMax], at = 0;
        strides_of(y.rank, y.dims, strides);
        for (int32_t i = 0; i < setup.input_count; ++i) {
            if (!setup.input(i)) return setup.refuse("lacks input %d", i);
            const Tensor& x = *setup.input(i);
            EW_TRY(check_moved(setup, x, y));
            if (x.rank != y.rank) return setup.refuse("wants equal ranks");
            for (int d = 0; d < y.rank; ++d) {
                if (d != axis && x.dims[d] != y.dims[d]) return setup.refuse("wants equal dims but along axis %d", static_cast<int>(axis));
            }
            if (x.dims[axis] > y.dims[axis] - at) return setup.refuse("has more in its inputs than in y");
            strides_of(x.rank, x.dims, from);
            Piece& piece = copies_[static_cast<size_t>(i)];
            piece.offset = at * strides[axis] * static_cast<int64_t>(size_of(x.dtype));
            piece.copy.set(x.rank, x.dims, from, strides, size_of(x.dtype));
            at += x.dims[axis];
        }
        if (at != y.dims[axis]) return setup.refuse("has less in its inputs than in y");
        return {};
    }

    void run(const Run& run) override {
        for (size_t i = 0; i < copies_.size(); ++i) {
            copies_[i].copy.run(run.inputs[i]->data, run.outputs[0]->data + copies_[i].offset, run.pool);
        }
    }

private:
    struct Piece {
        StridedCopy copy;
        int64_t offset = 0;  // bytes into y
    };
    std::vector<Piece> copies_;
};

}  // namespace

Operator* make_concat() { return new (std::nothrow) Concat; }
Operator* make_depth_to_space() { return new (std::nothrow) ToSpace; }
Operator* make_expand() { return new (std::nothrow) Expand; }
Operator* make_slice() { return new (std::nothrow) Slice; }
Operator* make_space_to_depth() { return new (std::nothrow) ToDepth; }
Operator* make_tile() { return new (std::nothrow) Tile; }
Operator* make_transpose() { return new (std::nothrow) Transpose; }

}  // namespace ew
