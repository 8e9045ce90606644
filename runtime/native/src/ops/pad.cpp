// y = x with more (or, where pads are negative, less) at the ends of each axis. pads: begins, then ends; mode constant (value),
// edge, reflect or wrap.
#include <algorithm>
#include <cstring>

#include "checks.h"
#include "strided_copy.h"

namespace ew {
namespace {

enum class Mode : uint8_t { kConstant, kEdge, kReflect, kWrap };

class Pad final : public Operator {
public:
    Status prepare(Setup& setup) override {
        EW_TRY(check_operands(setup, 1, 1));
        const Tensor &x = *setup.input(0), &y = *setup.outputs[0];
        if (!is_plain(x) || !is_plain(y) || x.dtype != y.dtype || x.rank != y.rank) return setup.refuse("wants plain tensors alike");
        EW_TRY(read_mode(setup));
        const std::vector<int64_t>& pads = setup.attributes.integers("pads");
        if (pads.size() != 2 * static_cast<size_t>(x.rank)) return setup.refuse("wants two pads for each axis");
        for (int i = 0; i < x.rank; ++i) {
            const int64_t begin = pads[static_cast<size_t>(i)], end = pads[static_cast<size_t>(i + x.rank)], most = int64_t{1} << 46;
            if (std::max(begin, end) > most || std::min(begin, end) < -most || x.dims[i] + begin + end != y.dims[i]) {
                return setup.refuse("has pads and dims that differ along axis %d", i);
            }
            if (mode_ != Mode::kConstant && x.dims[i] == 0 && y.dims[i] > 0) return setup.refuse("has nothing to pad with");
            begins_[i] = begin;
        }
        strides_of(x.rank, x.dims, strides_);
        element_ = static_cast<int64_t>(size_of(x.dtype));
        set_value(x.dtype, setup);
        return {};
    }

    void run(const Run& run) override {
        const Tensor &x = *run.inputs[0], &y = *run.outputs[0];
        const int last = y.rank - 1;
        const int64_t row = last < 0 ? 1 : y.dims[last], rows = y.count() == 0 ? 0 : y.count() / row;
        run.pool.parallel(rows, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, row)), [&](int64_t begin, int64_t end, int32_t) {
            for (int64_t i = begin; i < end; ++i) {
                int64_t rest = i, from = 0;
                bool outside = false;
                for (int axis = last - 1; axis >= 0; --axis) {
                    const int64_t at = source(rest % y.dims[axis] - begins_[axis], x.dims[axis]);
                    outside |= at < 0;
                    from += at * strides_[axis];
                    rest /= y.dims[axis];
                }
                uint8_t* to = y.data + i * row * element_;
                if (outside) {
                    fill(to, row);
                } else {
                    pad_row(x.data + from * element_, last < 0 ? 1 : x.dims[last], to, row, last < 0 ? 0 : begins_[last]);
                }
            }
        });
    }

private:
    Status read_mode(const Setup& setup) {
        const auto asked = setup.attributes.text("mode", "constant");
        if (asked == "constant") mode_ = Mode::kConstant;
        else if (asked == "edge") mode_ = Mode::kEdge;
        else if (asked == "reflect") mode_ = Mode::kReflect;
        else if (asked == "wrap") mode_ = Mode::kWrap;
        else return setup.refuse("has no such mode");
        return {};
    }

    void set_value(DType dtype, const Setup& setup) {
        const int64_t whole = setup.attributes.integer("value", 0);
        const float real = setup.attributes.real("value", static_cast<float>(whole));
        if (dtype == EW_F32) {
            std::memcpy(value_, &real, sizeof real);
        } else {
            std::memcpy(value_, &whole, sizeof whole);  // little end first: the low bytes are the value
        }
    }

    // Where along an axis of x the value comes from; -1 for the constant.
    int64_t source(int64_t at, int64_t dim) const {
        if (at >= 0 && at < dim) return at;
        switch (mode_) {
            case Mode::kConstant: return -1;
            case Mode::kEdge: return at < 0 ? 0 : dim - 1;
            case Mode::kWrap: return (at % dim + dim) % dim;
            case Mode::kReflect: {
                const int64_t period = std::max<int64_t>(1, 2 * (dim - 1)), folded = (at % period + period) % period;
                return folded < dim ? folded : period - folded;
            }
        }
        return -1;
    }

    void fill(uint8_t* to, int64_t count) const {
        for (int64_t i = 0; i < count; ++i) std::memcpy(to + i * element_, value_, static_cast<size_t>(element_));
    }

    void pad_row(const uint8_t* from, int64_t dim, uint8_t* to, int64_t count, int64_t begin) const {
        const int64_t inside = std::clamp<int64_t>(begin, 0, count), after = std::clamp<int64_t>(begin + dim, inside, count);
        const auto ends = [&](int64_t first, int64_t last) {
            for (int64_t i = first; i < last; ++i) {
                const int64_t at = source(i - begin, dim);
                std::memcpy(to + i * element_, at < 0 ? value_ : from + at * element_, static_cast<size_t>(element_));
            }
        };
        ends(0, inside);
        if (after > inside) {
            std::memcpy(to + inside * element_, from + (inside - begin) * element_, static_cast<size_t>((after - inside) * element_));
        }
        ends(after, count);
    }

    Mode mode_ = Mode::kConstant;
    int64_t begins_[EW_MAX_RANK] = {}, strides_[EW_MAX_RANK] = {}, element_ = 1;
    uint8_t value_[8] = {};
};

}  // namespace

Operator* make_pad() { return new (std::nothrow) Pad; }

}  // namespace ew
