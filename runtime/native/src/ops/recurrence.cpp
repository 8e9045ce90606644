// recurrence: a state h [.., K, L] along the first axis of its inputs, T steps. float32.
//
// Inputs a, b, a2, b2, start, c, u, those after b optional; all but `start` broadcast to [T, .., K, L], `start` (0 without it) to [.., K, L].
//   function add: h = a * h + b, where b * b2 stands for b and exp(a * a2) for a when they are given;  max: h = max(a + h, b).
// Outputs y and, optional, the last h [.., K, L]. Without c y is every h [T, .., K, L]; with it the sum over K of c * h, [T, .., 1, L], and
// where there is u that of c * (h before the step + u * b).
//
// Selective scans (Mamba), WKV (RWKV) and retention (RetNet) are such sums: no state but the last is written to memory.
#include <algorithm>

#include "../kernels/vectors.h"
#include "checks.h"
#include "strided_copy.h"

namespace ew {
namespace {

constexpr int64_t kTile = 64;     // lanes that one thread takes through all steps: their states stay in the first cache
constexpr int64_t kMostKeys = 1024;  // bounds the time of a step, whatever is broadcast

enum Slot { kA, kB, kA2, kB2, kStart, kC, kU, kSlots };

class RecurrenceOp final : public Operator {
public:
    Status prepare(Setup& setup) override {
        if (setup.input_count < 2 || setup.input_count > kSlots || !setup.inputs[kA] || !setup.inputs[kB]) return setup.refuse("takes a and b, and up to five more");
        if (setup.output_count < 1 || setup.output_count > 2) return setup.refuse("gives y and the last state");
        const Tensor& y = *setup.outputs[0];
        if (!is_plain(y, EW_F32) || y.rank < 3) return setup.refuse("wants a plain float32 y of three axes or more");
        const auto function = setup.attributes.text("function", "add");
        if (function != "add" && function != "max") return setup.refuse("has no such function");
        maximum_ = function == "max";
        for (int slot = 0; slot < kSlots; ++slot) present_[slot] = setup.input(slot) != nullptr;
        if (maximum_ && (present_[kA2] || present_[kB2] || present_[kC])) return setup.refuse("sums and multiplies with function add alone");
        if (present_[kU] && !present_[kC]) return setup.refuse("has u without c");
        EW_TRY(read_dims(setup, y));
        for (int slot = 0; slot < kSlots; ++slot) {
            if (present_[slot]) EW_TRY(read_operand(setup, slot));
        }
        EW_TRY(check_last(setup));
        kernels_ = &vector_kernels(setup.isa);
        setup.kernel = kernels_->name;
        state_bytes_ = static_cast<size_t>(keys_ * kTile) * 4;
        setup.scratch_bytes = uint64_t{state_bytes_} * static_cast<uint64_t>(setup.threads);
        return {};
    }

    void run(const Run& run) override {
        const int64_t tiles = (lanes_ + kTile - 1) / kTile, work = std::max<int64_t>(1, steps_ * keys_ * std::min(lanes_, kTile));
        run.pool.parallel(outer_ * tiles, std::max<int64_t>(1, kGrain / work), [&](int64_t begin, int64_t end, int32_t thread) {
            auto* h = reinterpret_cast<float*>(run.scratch + state_bytes_ * static_cast<size_t>(thread));
            for (int64_t i = begin; i < end; ++i) run_tile(run, h, i / tiles, i % tiles * kTile);
        });
    }

private:
    // Of one operand, in elements; 0 where it is repeated.
    struct Strides {
        int64_t step = 0, key = 0, lane = 0;
        int64_t outer[EW_MAX_RANK] = {};
    };

    Status read_dims(const Setup& setup, const Tensor& y) {
        rank_ = y.rank;
        std::copy(y.dims, y.dims + rank_, dims_);
        if (present_[kC]) {
            if (dims_[rank_ - 2] != 1) return setup.refuse("sums over an axis that y keeps");
            for (int slot = 0; slot < kSlots; ++slot) {
                const Tensor* tensor = setup.input(slot);
                if (tensor && tensor->rank >= 2) dims_[rank_ - 2] = std::max(dims_[rank_ - 2], tensor->dims[tensor->rank - 2]);
            }
        }
        steps_ = dims_[0], keys_ = dims_[rank_ - 2], lanes_ = dims_[rank_ - 1];
        if (present_[kC] && keys_ > kMostKeys) return setup.refuse("sums over more than %d", static_cast<int>(kMostKeys));
        outer_ = y.count() == 0 ? 0 : y.count(1, rank_ - 2);
        if (!present_[kC]) {  // nothing is summed, so each row is as good as a state of its own
            outer_ *= keys_;
            keys_ = 1;
        }
        return {};
    }

    Status read_operand(const Setup& setup, int slot) {
        const Tensor& tensor = *setup.inputs[slot];
        const int first = slot == kStart ? 1 : 0;
        if (!is_plain(tensor, EW_F32) || tensor.rank != rank_ - first) return setup.refuse("wants plain float32 operands of as many axes as y");
        int64_t own[EW_MAX_RANK], strides[EW_MAX_RANK] = {};
        strides_of(tensor.rank, tensor.dims, own);
        for (int axis = first; axis < rank_; ++axis) {
            const int64_t dim = tensor.dims[axis - first];
            if (dim != 1 && dim != dims_[axis]) return setup.refuse("has an operand that does not broadcast");
            strides[axis] = dim == 1 ? 0 : own[axis - first];
        }
        Strides& to = strides_[slot];
        to = {};
        to.step = strides[0], to.lane = strides[rank_ - 1], to.key = present_[kC] ? strides[rank_ - 2] : 0;
        std::copy(strides, strides + rank_, to.outer);
        return {};
    }

    Status check_last(const Setup& setup) {
        gives_last_ = setup.output_count == 2;
        if (!gives_last_) return {};
        const Tensor& last = *setup.outputs[1];
        bool same = is_plain(last, EW_F32) && last.rank == rank_ - 1;
        for (int axis = 1; axis < rank_ && same; ++axis) same = last.dims[axis - 1] == dims_[axis];
        if (!same) return setup.refuse("has a last state of other dims");
        // Without steps it is the start, which run_tile writes too; but for a y without elements nothing runs.
        if (outer_ == 0 && last.count() != 0) return setup.refuse("has a last state of no steps");
        return {};
    }

    // Where the elements of a tile begin in an operand.
    int64_t at(int slot, int64_t outer, int64_t lane) const {
        const Strides& strides = strides_[slot];
        int64_t place = lane * strides.lane;
        for (int axis = rank_ - (present_[kC] ? 3 : 2); axis > 0; --axis) {
            place += outer % dims_[axis] * strides.outer[axis];
            outer /= dims_[axis];
        }
        return place;
    }

    void run_tile(const Run& run, float* h, int64_t outer, int64_t lane) const {
        const int64_t some = std::min(kTile, lanes_ - lane), step_elements = outer_ * lanes_;
        Recurrence step;
        step.maximum = maximum_;
        step.keys = keys_, step.h = h, step.width = kTile;
        Recurrence::Term* const terms[kSlots] = {&step.a, &step.b, &step.a2, &step.b2, nullptr, &step.c, &step.u};
        for (int slot = 0; slot < kSlots; ++slot) {
            if (slot == kStart || !present_[slot]) continue;
            *terms[slot] = {run.inputs[slot]->as<float>() + at(slot, outer, lane), strides_[slot].key, strides_[slot].lane};
        }
        begin(run, h, outer, lane, some);
        step.y = run.outputs[0]->as<float>() + outer * lanes_ + lane;
        for (int64_t t = 0; t < steps_; ++t) {
            kernels_->recur(step, some);
            step.y += step_elements;
            for (int slot = 0; slot < kSlots; ++slot) {
                if (terms[slot] && terms[slot]->data) terms[slot]->data += strides_[slot].step;
            }
        }
        if (!gives_last_) return;
        float* last = run.outputs[1]->as<float>() + outer * keys_ * lanes_ + lane;
        for (int64_t k = 0; k < keys_; ++k) std::copy(h + k * kTile, h + k * kTile + some, last + k * lanes_);
    }

    void begin(const Run& run, float* h, int64_t outer, int64_t lane, int64_t some) const {
        std::fill(h, h + keys_ * kTile, 0.0f);
        if (!present_[kStart]) return;
        const float* from = run.inputs[kStart]->as<float>() + at(kStart, outer, lane);
        for (int64_t k = 0; k < keys_; ++k) {
            for (int64_t i = 0; i < some; ++i) h[k * kTile + i] = from[k * strides_[kStart].key + i * strides_[kStart].lane];
        }
    }

    bool maximum_ = false, gives_last_ = false;
    bool present_[kSlots] = {};
    int rank_ = 0;
    int64_t dims_[EW_MAX_RANK] = {};  // [T, .., K, L]
    int64_t steps_ = 0, outer_ = 0, keys_ = 0, lanes_ = 0;
    Strides strides_[kSlots];
    size_t state_bytes_ = 0;
    const VectorKernels* kernels_ = nullptr;
};

}  // namespace

Operator* make_recurrence() { return new (std::nothrow) RecurrenceOp; }

}  // namespace ew
