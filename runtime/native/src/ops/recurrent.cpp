// recurrent: one direction of an LSTM, GRU or RNN over the first axis of x, as ONNX defines them. float32.
//
// Units lie in panels of 16, the last one filled up: P panels, U = 16 P of them.
//   x        [T, B, G U]   of G gates (lstm: i o f c; gru: z r h; rnn: one), what the inputs and all constants add up to
//   weights  [G P, H, 16]  of the state
//   after    [U]           gru with after_reset: added to the state's product before the reset gate
//   peepholes [3 U]        lstm: of i, o and f
//   lengths  [B] s32       how many steps each row has; after these y is 0 and the state stays
//   h, c     [B, H]        where the states begin; 0 without
// All after weights are optional. Outputs: y [T, B, H], the last h [B, H], and of an lstm the last c [B, H].
// Attributes: kind, functions f, g and h by name, reverse, after_reset, input_forget, clip (0: none).
#include <algorithm>

#include "../kernels/vectors.h"
#include "checks.h"

namespace ew {
namespace {

constexpr int64_t kWidth = Gates::kWidth;

enum Slot { kX, kWeights, kAfter, kPeepholes, kLengths, kH, kC, kSlots };
enum class Kind : uint8_t { kRnn, kGru, kLstm };

struct Gate {
    Function function = Function::kNone;
    bool softsign = false;
};

bool find_gate(std::string_view name, Gate* gate) {
    gate->softsign = name == "softsign";
    if (gate->softsign) return true;
    const bool known = name == "sigmoid" || name == "tanh" || name == "relu" || name == "softplus";
    return known && find_function(name, &gate->function);
}

class Recurrent final : public Operator {
public:
    Status prepare(Setup& setup) override {
        if (setup.input_count < 2 || setup.input_count > kSlots || !setup.inputs[kX] || !setup.inputs[kWeights]) {
            return setup.refuse("takes x, weights and up to five more");
        }
        EW_TRY(read_attributes(setup));
        EW_TRY(read_dims(setup));
        EW_TRY(check_optional(setup));
        EW_TRY(check_outputs(setup));
        kernels_ = &vector_kernels(setup.isa);
        setup.kernel = kernels_->name;
        // Two states h, c, the gates' sums, and a row for what is between two functions.
        setup.scratch_bytes = static_cast<uint64_t>(rows_ * units_ * (gates_ + 3) + units_) * 4;
        return {};
    }

    void run(const Run& run) override {
        auto* memory = reinterpret_cast<float*>(run.scratch);
        const int64_t state = rows_ * units_;
        Step step{run, 0, true, memory, memory + state, memory + 2 * state, memory + 3 * state, memory + state * (gates_ + 3)};
        load_state(run.inputs, kH, step.h);
        load_state(run.inputs, kC, step.c);
        const int64_t work = std::max<int64_t>(1, rows_ * gates_ * hidden_), grain = std::max<int64_t>(1, kGrain / work);
        for (int64_t t = 0; t < steps_; ++t) {
            step.at = reverse_ ? steps_ - 1 - t : t;
            for (int phase = 0; phase < phases_; ++phase) {
                run.pool.parallel(panels_, grain, [&](int64_t begin, int64_t end, int32_t) { compute(step, phase, begin, end); });
            }
            std::swap(step.h, step.next);
            step.first = false;
        }
        store_state(*run.outputs[1], step.h);
        if (kind_ == Kind::kLstm) store_state(*run.outputs[2], step.c);
    }

private:
    struct Step {
        const Run& run;
        int64_t at;  // the step in x and y
        bool first;
        float *h, *next, *c, *sums, *between;  // rows of units_, of gates_ * units_, and one of units_
    };

    // A part of one row: units [first, first + count).
    struct Part {
        const Step& step;
        int64_t row, first, count;
        float* sum;  // of the first gate
    };

    Status read_attributes(const Setup& setup) {
        const auto kind = setup.attributes.text("kind", "");
        if (kind != "lstm" && kind != "gru" && kind != "rnn") return setup.refuse("has no such kind");
        kind_ = kind == "lstm" ? Kind::kLstm : kind == "gru" ? Kind::kGru : Kind::kRnn;
        gates_ = kind_ == Kind::kLstm ? 4 : kind_ == Kind::kGru ? 3 : 1;
        const char* const names[] = {"f", "g", "h"};
        const int functions = kind_ == Kind::kLstm ? 3 : kind_ == Kind::kGru ? 2 : 1;
        for (int i = 0; i < functions; ++i) {
            if (!find_gate(setup.attributes.text(names[i], ""), &functions_[i])) return setup.refuse("has no such function %s", names[i]);
        }
        reverse_ = setup.attributes.integer("reverse", 0) != 0;
        after_reset_ = setup.attributes.integer("after_reset", 0) != 0;
        input_forget_ = setup.attributes.integer("input_forget", 0) != 0;
        clip_ = setup.attributes.real("clip", 0.0f);
        if (!(clip_ >= 0.0f)) return setup.refuse("clips to less than 0");
        phases_ = kind_ == Kind::kGru && !after_reset_ ? 2 : 1;
        return {};
    }

    Status read_dims(const Setup& setup) {
        const Tensor &x = *setup.inputs[kX], &weights = *setup.inputs[kWeights];
        if (!is_plain(x, EW_F32) || x.rank != 3 || !is_plain(weights, EW_F32) || weights.rank != 3) {
            return setup.refuse("wants plain float32 x and weights of three axes");
        }
        steps_ = x.dims[0], rows_ = x.dims[1], hidden_ = weights.dims[1];
        if (hidden_ < 1) return setup.refuse("has no state");
        panels_ = (hidden_ + kWidth - 1) / kWidth;
        units_ = panels_ * kWidth;
        if (weights.dims[0] != gates_ * panels_ || weights.dims[2] != kWidth) return setup.refuse("has weights of other panels");
        if (x.dims[2] != gates_ * units_) return setup.refuse("has an x of other gates");
        return {};
    }

    Status check_optional(const Setup& setup) {
        const bool lstm = kind_ == Kind::kLstm;
        const bool wanted[kSlots] = {true, true, kind_ == Kind::kGru && after_reset_, lstm, true, true, lstm};
        const int64_t counts[kSlots] = {0, 0, units_, 3 * units_, rows_, hidden_, hidden_};
        for (int slot = kAfter; slot < kSlots; ++slot) {
            const Tensor* tensor = setup.input(slot);
            present_[slot] = tensor != nullptr;
            if (!tensor) continue;
            const bool state = slot == kH || slot == kC;
            bool fits = wanted[slot] && is_plain(*tensor, slot == kLengths ? EW_S32 : EW_F32) && tensor->rank == (state ? 2 : 1);
            fits = fits && tensor->dims[tensor->rank - 1] == counts[slot] && (!state || tensor->dims[0] == rows_);
            if (!fits) return setup.refuse("has an input %d that does not fit", slot);
        }
        return {};
    }

    Status check_outputs(const Setup& setup) {
        if (setup.output_count != (kind_ == Kind::kLstm ? 3 : 2)) return setup.refuse("gives y and the last states");
        const int64_t dims[] = {steps_, rows_, hidden_};
        for (int32_t i = 0; i < setup.output_count; ++i) {
            const Tensor& y = *setup.outputs[i];
            if (!is_plain(y, EW_F32) || y.rank != (i == 0 ? 3 : 2) || !std::equal(y.dims, y.dims + y.rank, dims + (i == 0 ? 0 : 1))) {
                return setup.refuse("has an output %d of other dims", i);
            }
        }
        return {};
    }

    void load_state(Tensor* const* inputs, int slot, float* to) const {
        std::fill(to, to + rows_ * units_, 0.0f);
        const Tensor* from = present_[slot] ? inputs[slot] : nullptr;
        for (int64_t row = 0; from && row < rows_; ++row) {
            std::copy_n(from->as<float>() + row * hidden_, hidden_, to + row * units_);
        }
    }

    void store_state(const Tensor& to, const float* from) const {
        for (int64_t row = 0; row < rows_; ++row) std::copy_n(from + row * units_, hidden_, to.as<float>() + row * hidden_);
    }

    bool active(const Step& step, int64_t row) const { return !present_[kLengths] || step.at < step.run.inputs[kLengths]->as<int32_t>()[row]; }

    // The state, or null for one that is 0 still.
    const float* state(const Step& step) const { return step.first && !present_[kH] ? nullptr : step.h; }

    // Of some panels of every row. A gru that resets the state before the product needs all of it between the two.
    void compute(const Step& step, int phase, int64_t begin, int64_t end) const {
        if (kind_ != Kind::kGru) {
            products(step, 0, gates_, state(step), true, begin, end);
        } else if (phase == 0) {
            products(step, 0, 2, state(step), true, begin, end);
            if (after_reset_) products(step, 2, 1, state(step), false, begin, end);
        } else {
            products(step, 2, 1, step.c, true, begin, end);
        }
        for (int64_t row = 0; row < rows_; ++row) {
            const Part part{step, row, begin * kWidth, (end - begin) * kWidth, step.sums + row * gates_ * units_ + begin * kWidth};
            const bool runs = active(step, row);
            if (runs && kind_ == Kind::kLstm) lstm(part);
            if (runs && kind_ == Kind::kGru) gru(part, phase);
            if (runs && kind_ == Kind::kRnn) rnn(part);
            if (phase + 1 == phases_) give(part, runs);
        }
    }

    void products(const Step& step, int64_t gate, int64_t count, const float* h, bool inputs, int64_t begin, int64_t end) const {
        const int64_t row = gates_ * units_;
        const bool whole = end - begin == panels_;  // then the gates' panels are neighbours
        for (int64_t i = 0; i < (whole ? 1 : count); ++i) {
            const int64_t panel = (gate + i) * panels_ + begin;
            Gates gates;
            gates.rows = rows_, gates.k = h ? hidden_ : 0;
            if (inputs) gates.x = step.run.inputs[kX]->as<float>() + step.at * rows_ * row + panel * kWidth;
            gates.h = h, gates.weights = step.run.inputs[kWeights]->as<float>() + panel * hidden_ * kWidth;
            gates.y = step.sums + panel * kWidth;
            gates.x_row = gates.y_row = row, gates.h_row = h ? units_ : 0;  // no offset is added to no state
            kernels_->gates(gates, whole ? count * panels_ : end - begin);
        }
    }

    void combine(Pair pair, const float* a, const float* b, float* y, int64_t count) const { kernels_->binary(pair, a, 1, b, 1, y, count); }

    // A gate's function, of what is clipped before where the layer says so.
    void open(const Gate& gate, const Part& part, float* x) const {
        if (clip_ > 0.0f) kernels_->unary(Function::kClip, x, x, part.count, -clip_, clip_);
        apply(gate, part, x);
    }

    void apply(const Gate& gate, const Part& part, float* x) const {
        const int64_t count = part.count;
        if (!gate.softsign) return kernels_->unary(gate.function, x, x, count, 0.0f, 0.0f);
        float* below = part.step.between + part.first;
        kernels_->unary(Function::kAbs, x, below, count, 0.0f, 0.0f);
        kernels_->scale_shift(below, below, count, 1.0f, 1.0f);
        combine(Pair::kDiv, x, below, x, count);
    }

    void peep(const Part& part, int64_t which, const float* c, float* x) const {
        if (!present_[kPeepholes]) return;
        float* between = part.step.between + part.first;
        combine(Pair::kMul, c, part.step.run.inputs[kPeepholes]->as<float>() + which * units_ + part.first, between, part.count);
        combine(Pair::kAdd, x, between, x, part.count);
    }

    void lstm(const Part& part) const {
        float *i = part.sum, *o = i + units_, *f = o + units_, *g = f + units_, *c = part.step.c + part.row * units_ + part.first;
        const int64_t count = part.count;
        peep(part, 0, c, i);
        open(functions_[0], part, i);
        if (input_forget_) {
            kernels_->scale_shift(i, f, count, -1.0f, 1.0f);
        } else {
            peep(part, 2, c, f);
            open(functions_[0], part, f);
        }
        open(functions_[1], part, g);
        combine(Pair::kMul, f, c, f, count);
        combine(Pair::kMul, i, g, i, count);
        combine(Pair::kAdd, f, i, c, count);
        peep(part, 1, c, o);
        open(functions_[0], part, o);
        std::copy_n(c, count, g);
        apply(functions_[2], part, g);  // the cell is not clipped
        combine(Pair::kMul, o, g, part.step.next + part.row * units_ + part.first, count);
    }

    void gru(const Part& part, int phase) const {
        float *z = part.sum, *r = z + units_, *n = r + units_;
        const int64_t count = part.count, at = part.row * units_ + part.first;
        const float* h = part.step.h + at;
        if (phase == 0) {
            open(functions_[0], part, z);
            open(functions_[0], part, r);
            if (!after_reset_) return combine(Pair::kMul, r, h, part.step.c + at, count);
            const Run& run = part.step.run;
            if (present_[kAfter]) combine(Pair::kAdd, n, run.inputs[kAfter]->as<float>() + part.first, n, count);
            combine(Pair::kMul, n, r, n, count);
            combine(Pair::kAdd, n, run.inputs[kX]->as<float>() + ((part.step.at * rows_ + part.row) * gates_ + 2) * units_ + part.first, n, count);
        }
        open(functions_[1], part, n);
        combine(Pair::kSub, h, n, r, count);
        combine(Pair::kMul, z, r, r, count);
        combine(Pair::kAdd, n, r, part.step.next + at, count);
    }

    void rnn(const Part& part) const {
        open(functions_[0], part, part.sum);
        std::copy_n(part.sum, part.count, part.step.next + part.row * units_ + part.first);
    }

    // The step's y; a row that has ended keeps its state, and its y is 0.
    void give(const Part& part, bool runs) const {
        const int64_t at = part.row * units_ + part.first, count = std::min(part.count, hidden_ - part.first);
        float* y = part.step.run.outputs[0]->as<float>() + (part.step.at * rows_ + part.row) * hidden_ + part.first;
        if (runs) {
            std::copy_n(part.step.next + at, count, y);
        } else {
            std::copy_n(part.step.h + at, part.count, part.step.next + at);
            std::fill(y, y + count, 0.0f);
        }
    }

    Kind kind_ = Kind::kRnn;
    Gate functions_[3];
    bool reverse_ = false, after_reset_ = false, input_forget_ = false;
    bool present_[kSlots] = {};
    float clip_ = 0;
    int phases_ = 1;
    int64_t steps_ = 0, rows_ = 0, hidden_ = 0, gates_ = 1, panels_ = 0, units_ = 0;
    const VectorKernels* kernels_ = nullptr;
};

}  // namespace

Operator* make_recurrent() { return new (std::nothrow) Recurrent; }

}  // namespace ew
