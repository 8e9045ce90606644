// `binary` where operands are of 8 bits (a_scale, a_zero_point, b_…, y_…), alone or beside float32, plain or C4.
//
// Dims are seen as [N, C, P]; an operand may have 1 in place of N, of C, or of all of P. add, sub and mul of bytes that lie alike
// are computed as they lie; all else four channels and a part of the positions at a time, in float32.
#include <algorithm>
#include <cstring>

#include "binary.h"
#include "quantization.h"

namespace ew {
namespace {

constexpr int64_t kPart = 256;  // positions at a time

// Where the values of an operand lie, in elements.
struct View {
    Quantization quantization;
    bool bytes = false, packed = false;
    int64_t batch = 0, channel = 0, step = 0;  // 0 where it is broadcast; of C4, `channel` is from one group of four to the next
    bool whole = false;                        // nothing is broadcast

    const uint8_t* at(const Tensor& tensor, int64_t n, int64_t c, int64_t p) const {
        if (!packed) return tensor.data + (n * batch + c * channel + p * step) * (bytes ? 1 : 4);
        return tensor.data + n * batch + (channel ? c / 4 * channel : 0) + p * step * 4;
    }
};

struct Shape {
    int64_t n = 1, c = 1, p = 1;
};

class BinaryBytes final : public Operator {
public:
    Status prepare(Setup& setup) override {
        const Tensor &a = *setup.input(0), &b = *setup.input(1), &y = *setup.outputs[0];
        if (!find_pair(setup.attributes.text("function", ""), setup.attributes.integer("fmod", 0) != 0, &pair_)) {
            return setup.refuse("has no such function for 8 bits");
        }
        EW_TRY(activation_.read(setup));
        shape_ = y.rank < 2 ? Shape{1, 1, y.count()} : Shape{y.dims[0], y.dims[1], y.count(2, y.rank)};
        if (shape_.n == 0 || shape_.c == 0) shape_ = {0, 0, 0};
        EW_TRY(set_view(setup, "a_", a, y, &a_));
        EW_TRY(set_view(setup, "b_", b, y, &b_));
        EW_TRY(set_view(setup, "y_", y, y, &y_));
        kernels_ = &vector_kernels(setup.isa);
        setup.kernel = kernels_->name;
        choose_direct(a, b, y);
        return {};
    }

    void run(const Run& run) override {
        if (direct_) return run_direct(run);
        const int64_t quads = (shape_.c + 3) / 4, parts = (shape_.p + kPart - 1) / kPart;
        const int64_t grain = std::max<int64_t>(1, kGrain / 4 / std::max<int64_t>(1, std::min(shape_.p, kPart)));
        run.pool.parallel(shape_.n * quads * parts, grain, [&](int64_t begin, int64_t end, int32_t) {
            for (int64_t i = begin; i < end; ++i) {
                const int64_t quad = i / parts;
                compute(run, quad / quads, quad % quads * 4, i % parts * kPart);
            }
        });
    }

private:
    Status set_view(const Setup& setup, const char* prefix, const Tensor& tensor, const Tensor& y, View* view) {
        if (!is_8_bit(tensor) && !is_plain(tensor, EW_F32)) return setup.refuse("wants 8 bits or plain float32");
        EW_TRY(read_quantization(setup, prefix, tensor, &view->quantization));
        view->bytes = is_8_bit(tensor);
        view->packed = !is_plain(tensor);
        const int lead = y.rank - tensor.rank;
        if (lead < 0 || (view->packed && lead != 0)) return setup.refuse("has an operand of another rank");
        bool ones = true, equal = true;
        for (int i = y.rank < 2 ? 0 : 2; i < y.rank; ++i) {
            const int64_t dim = i < lead ? 1 : tensor.dims[i - lead];
            ones &= dim == 1;
            equal &= dim == y.dims[i];
        }
        const int64_t n = lead > 0 || y.rank < 2 ? 1 : tensor.dims[0], c = lead > 1 || y.rank < 2 ? 1 : tensor.dims[1 - lead];
        if ((n != 1 && n != shape_.n) || (c != 1 && c != shape_.c) || !(ones || equal)) {
            return shape_.n == 0 ? Status() : setup.refuse("cannot broadcast %sto y so", prefix);
        }
        const int64_t p = equal ? shape_.p : 1;
        view->step = equal ? 1 : 0;
        view->channel = c == 1 ? 0 : p * (view->packed ? 4 : 1);
        view->batch = n == 1 ? 0 : (view->packed ? (c + 3) / 4 * 4 : c) * p;
        view->whole = n == shape_.n && c == shape_.c && equal;
        return {};
    }

    // ---- bytes as they lie

    void choose_direct(const Tensor& a, const Tensor& b, const Tensor& y) {
        const bool simple = pair_ == Pair::kAdd || pair_ == Pair::kSub || pair_ == Pair::kMul;
        const bool alike = is_8_bit(a) && is_8_bit(b) && is_8_bit(y) && a.layout == y.layout && b.layout == y.layout;
        swap_ = !a_.whole;
        const View &first = swap_ ? b_ : a_, &second = swap_ ? a_ : b_;
        const bool scalar = second.batch == 0 && second.channel == 0 && second.step == 0;
        per_channel_ = y_.packed && second.step == 0 && second.channel != 0;
        direct_ = simple && alike && activation_.function == Function::kNone && first.whole && (second.whole || scalar || per_channel_);
        if (!direct_) return;
        if (second.whole) per_channel_ = false;
        bytes_.product = pair_ == Pair::kMul;
        bytes_.a = first.quantization, bytes_.b = second.quantization, bytes_.y = y_.quantization;
        const float inverse = 1.0f / y_.quantization.scale;
        bytes_.a_factor = first.quantization.scale * (bytes_.product ? second.quantization.scale : 1.0f) * inverse;
        bytes_.b_factor = second.quantization.scale * inverse;
        if (pair_ == Pair::kSub) (swap_ ? bytes_.a_factor : bytes_.b_factor) *= -1.0f;
        scalar_ = scalar && !second.whole;
    }

    void run_direct(const Run& run) {
        const Tensor &a = *run.inputs[swap_ ? 1 : 0], &b = *run.inputs[swap_ ? 0 : 1], &y = *run.outputs[0];
        if (per_channel_) return run_per_channel(run, a, b, y);
        uint8_t pattern[64];
        if (scalar_) std::memset(pattern, stored_count(y) > 0 ? *b.data : 0, sizeof pattern);
        run.pool.parallel(stored_count(y), kGrain * 2, [&](int64_t begin, int64_t end, int32_t) {
            kernels_->binary_bytes(bytes_, a.data + begin, scalar_ ? pattern : b.data + begin, scalar_ ? 0 : 1, y.data + begin, end - begin);
        });
    }

    void run_per_channel(const Run& run, const Tensor& a, const Tensor& b, const Tensor& y) {
        const View& second = swap_ ? a_ : b_;
        const int64_t quads = (shape_.c + 3) / 4, row = shape_.p * 4;
        run.pool.parallel(shape_.n * quads, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, row)), [&](int64_t begin, int64_t end, int32_t) {
            for (int64_t i = begin; i < end; ++i) {
                uint8_t pattern[64];
                for (int at = 0; at < 64; at += 4) std::memcpy(pattern + at, second.at(b, i / quads, i % quads * 4, 0), 4);
                kernels_->binary_bytes(bytes_, a.data + i * row, pattern, 0, y.data + i * row, row);
            }
        });
    }

    // ---- everything else, as float32

    struct Rows {
        float buffer[4][kPart];
        const float* row[4];
        int64_t step = 1;
    };

    // Four channels from c on; those beyond C repeat the last.
    void load(const View& view, const Tensor& tensor, int64_t n, int64_t c, int64_t p, int64_t count, Rows* rows) const {
        rows->step = view.step;
        const int64_t some = view.step ? count : 1;
        const bool quad = view.packed && view.channel != 0;
        if (quad) {
            float* to[] = {rows->buffer[0], rows->buffer[1], rows->buffer[2], rows->buffer[3]};
            kernels_->dequantize_c4(view.quantization, view.at(tensor, n, c, p), to, some);
        }
        for (int64_t k = 0; k < 4; ++k) {
            rows->row[k] = rows->buffer[k];
            const uint8_t* from = view.at(tensor, n, std::min(c + k, shape_.c - 1), p);
            if (quad) continue;
            if (view.packed) {  // one channel for all: the first of each lane
                for (int64_t i = 0; i < some; ++i) kernels_->dequantize(view.quantization, from + i * 4, rows->buffer[k] + i, 1);
            } else if (view.bytes) {
                kernels_->dequantize(view.quantization, from, rows->buffer[k], some);
            } else {
                rows->row[k] = reinterpret_cast<const float*>(from);
            }
        }
    }

    void compute(const Run& run, int64_t n, int64_t c, int64_t p) const {
        const int64_t count = std::min(kPart, shape_.p - p), real = std::min<int64_t>(4, shape_.c - c);
        Rows a, b, y;
        load(a_, *run.inputs[0], n, c, p, count, &a);
        load(b_, *run.inputs[1], n, c, p, count, &b);
        for (int64_t k = 0; k < 4; ++k) {
            kernels_->binary(pair_, a.row[k], a.step, b.row[k], b.step, y.buffer[k], count);
            activation_.apply(*kernels_, y.buffer[k], count);
            y.row[k] = y.buffer[k];
        }
        Tensor& result = *run.outputs[0];
        if (y_.packed) {
            kernels_->quantize_c4(y_.quantization, y.row, const_cast<uint8_t*>(y_.at(result, n, y_.channel ? c : 0, p)), count);
            return;
        }
        for (int64_t k = 0; k < real; ++k) {
            auto* to = const_cast<uint8_t*>(y_.at(result, n, c + k, p));
            if (y_.bytes) {
                kernels_->quantize(y_.quantization, y.buffer[k], to, count);
            } else {
                std::memcpy(to, y.buffer[k], static_cast<size_t>(count) * sizeof(float));
            }
        }
    }

    Pair pair_ = Pair::kAdd;
    Activation activation_;
    Shape shape_;
    View a_, b_, y_;
    BytePair bytes_;
    bool direct_ = false, swap_ = false, per_channel_ = false, scalar_ = false;
    const VectorKernels* kernels_ = nullptr;
};

}  // namespace

Operator* make_binary_bytes() { return new (std::nothrow) BinaryBytes; }

}  // namespace ew
