// A depthwise convolution and the pointwise one that alone reads it, by strips of rows that stay in the second cache: depthwise writes
// the tile that conv's kernels read, so that what lies between them is never in memory as a whole.
//
// Inputs: x, depthwise weights, their scale and bias, then conv's weights, scale, bias, residual, index, start, terms. Attributes: those
// of depthwise with "first_" before them, and those of conv. See ops/depthwise.cpp and ops/conv.cpp, which compute the same numbers.
#include <algorithm>

#include "strips.h"

namespace ew {
namespace {

constexpr int64_t kStripBytes = 256 * 1024;      // what stays in a second cache; each thread has its own
constexpr int64_t kMostStripBytes = 512 * 1024;  // of so few rows that fewer would leave vectors of pixels half empty
constexpr int64_t kRowsAtOnce = 7;  // of depthwise: kDepthwiseRows
constexpr int32_t kFirstInputs = 4, kSecondInputs = 7;
constexpr std::string_view kPrefix = "first_";

class Separable final : public Operator {
public:
    Separable(StripOperator* first, StripOperator* second) : first_(first), second_(second) {}

    Status prepare(Setup& setup) override {
        if (setup.input_count <= kFirstInputs || setup.input_count > kFirstInputs + kSecondInputs || !setup.input(0) ||
            setup.output_count != 1) {
            return setup.refuse("wants x and the weights of two layers, and gives one output");
        }
        EW_TRY(lay_between(setup));
        if (setup.outputs[0]->bytes == 0) return {};  // it never runs, and a dim of 0 leaves the others without a bound
        rows_ = rows_of_a_strip(setup.threads);
        // An odd number of cache lines, so that planes do not push each other out of the first cache.
        plane_bytes_ = ((std::min(rows_, all_rows_) * between_.dims[3] * 4 + 63) / 64 | 1) * 64;
        if (__builtin_mul_overflow(planes_, plane_bytes_, &strip_bytes_)) return setup.refuse("needs too much memory");
        return prepare_layers(setup);
    }

    void run(const Run& run) override {
        Tensor* between = &between_;
        Tensor* first_inputs[kFirstInputs + 1] = {};
        Tensor* second_inputs[kSecondInputs + 1] = {&between_};
        std::copy_n(run.inputs, kFirstInputs, first_inputs);
        std::copy_n(run.inputs + kFirstInputs, second_count_, second_inputs + 1);
        const struct Run first{first_inputs, &between, run.scratch + strip_bytes_, run.pool};
        const struct Run second{second_inputs, run.outputs, run.scratch + strip_bytes_, run.pool};
        for (int64_t sample = 0; sample < between_.dims[0]; ++sample) {
            for (int64_t row = 0; row < all_rows_; row += rows_) {
                const Strip strip{sample, 1, row, std::min(rows_, all_rows_ - row), run.scratch, plane_bytes_};
                first_->run_strip(first, strip);
                second_->run_strip(second, strip);
            }
        }
    }

private:
    // What depthwise gives: as many channels as x, as many pixels as y.
    Status lay_between(const Setup& setup) {
        const Tensor &x = *setup.input(0), &y = *setup.outputs[0];
        if (x.rank != 4 || y.rank != 4) return setup.refuse("wants x and y of 4 dims");
        between_ = x;
        between_.constant = false, between_.data = nullptr;
        std::copy_n(y.dims + 2, 2, between_.dims + 2);
        all_rows_ = y.dims[2];
        planes_ = x.layout == Layout::kC4 ? (x.dims[1] + 3) / 4 : x.dims[1];
        int64_t bytes = planes_ * 4;  // of samples, channels and pixels: those of 0 left out, as in any tensor
        for (int32_t axis : {0, 2, 3}) {
            if (__builtin_mul_overflow(bytes, std::max<int64_t>(between_.dims[axis], 1), &bytes) || bytes > kMost) return setup.refuse("is too large between its layers");
        }
        between_.bytes = static_cast<size_t>(bytes);
        return {};
    }

    // Strips of nearly equal size; of as many rows as depthwise makes at once, however large that is.
    int64_t rows_of_a_strip(int64_t threads) const {
        const int64_t step_bytes = std::max<int64_t>(planes_ * between_.dims[3] * 4 * kRowsAtOnce, 1);
        const int64_t steps = (all_rows_ + kRowsAtOnce - 1) / kRowsAtOnce, least = 2 * step_bytes <= kMostStripBytes ? 2 : 1;
        const int64_t fit = std::max(least, threads * kStripBytes / step_bytes), strips = (steps + fit - 1) / fit;
        return strips > 0 ? std::min((steps + strips - 1) / strips * kRowsAtOnce, all_rows_) : 1;
    }

    Status prepare_layers(Setup& setup) {
        Attributes first_attributes, second_attributes;
        for (const Attribute& entry : setup.attributes.entries) {
            const bool first = entry.key.substr(0, kPrefix.size()) == kPrefix;
            Attributes& to = first ? first_attributes : second_attributes;
            to.entries.push_back(entry);
            if (first) to.entries.back().key.remove_prefix(kPrefix.size());
        }
        const Tensor* between = &between_;
        const Tensor* first_inputs[kFirstInputs] = {};
        const Tensor* second_inputs[kSecondInputs + 1] = {&between_};
        for (int32_t i = 0; i < kFirstInputs; ++i) first_inputs[i] = setup.input(i);
        second_count_ = setup.input_count - kFirstInputs;
        for (int32_t i = 0; i < second_count_; ++i) second_inputs[1 + i] = setup.input(kFirstInputs + i);
        Setup first{setup.op, setup.name, first_attributes, first_inputs, kFirstInputs, &between, 1, setup.isa, setup.threads};
        Setup second{setup.op,         setup.name, second_attributes, second_inputs, second_count_ + 1, setup.outputs, 1,
                     setup.isa, setup.threads};
        EW_TRY(first_->prepare_strips(first, rows_));
        EW_TRY(second_->prepare_strips(second, rows_));
        const uint64_t scratch = std::max(first.scratch_bytes, second.scratch_bytes);
        setup.scratch_bytes = static_cast<uint64_t>(strip_bytes_) + scratch;
        if (setup.scratch_bytes > static_cast<uint64_t>(kMost)) return setup.refuse("needs too much memory");
        setup.kernel = second.kernel;
        return {};
    }

    std::unique_ptr<StripOperator> first_, second_;
    Tensor between_;  // without memory
    int64_t planes_ = 0, all_rows_ = 0, rows_ = 1;
    int64_t plane_bytes_ = 0, strip_bytes_ = 0;  // a strip lies at the start of the scratch memory
    int32_t second_count_ = 0;
};

}  // namespace

Operator* make_separable() {
    std::unique_ptr<StripOperator> first(make_depthwise_by_strips()), second(make_conv_by_strips());
    if (!first || !second) return nullptr;
    auto* made = new (std::nothrow) Separable(first.get(), second.get());
    if (made) first.release(), second.release();
    return made;
}

}  // namespace ew
