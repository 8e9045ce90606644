// `attention` of 8-bit q, k and v in C4: q_scale, q_zero_point, k_…, v_…; p_scale, p_zero_point of the softmax where it is of 8 bits
// (p_signed=1: of s8); y is of 8 bits in C4 (y_scale, y_zero_point) or plain float32.
#include <algorithm>
#include <cmath>

#include "../kernels/attention_bytes.h"
#include "attention.h"
#include "quantization.h"

namespace ew {
namespace {

constexpr size_t rounded(int64_t bytes) { return (static_cast<size_t>(bytes) + 63) / 64 * 64; }

class AttentionBytes final : public Operator {
public:
    Status prepare(Setup& setup) override {
        const Tensor& y = *setup.outputs[0];
        const char* const prefixes[] = {"q_", "k_", "v_"};
        for (int i = 0; i < 3; ++i) {
            const Tensor& tensor = *setup.input(i);
            if (!is_8_bit(tensor) || is_plain(tensor)) return setup.refuse("wants q, k and v of 8 bits in C4");
            EW_TRY(read_quantization(setup, prefixes[i], tensor, &in_[i]));
        }
        if (!is_plain(y, EW_F32) && (!is_8_bit(y) || is_plain(y))) return setup.refuse("gives 8 bits in C4 or plain float32");
        EW_TRY(read_quantization(setup, "y_", y, &out_));
        EW_TRY(shape_.read(setup));
        EW_TRY(shape_.read_steps(setup));
        masked_ = setup.input(3) != nullptr;
        y_bytes_ = is_8_bit(y);
        kernels_ = &vector_kernels(setup.isa);
        const Heads& h = shape_.head;
        const bool quads = h.depth % 4 == 0 && h.value_depth % 4 == 0;
        // Sums of products of bytes fit 32 bits.
        const bool fits = h.depth < 16384 && h.keys < 32768;
        bytes_ = quads && fits && h.p_scale > 0 ? byte_attention(setup.isa) : nullptr;
        setup.kernel = bytes_ ? bytes_->name : kernels_->name;
        bytes_ ? plan_bytes() : plan_floats();
        setup.scratch_bytes = uint64_t{thread_bytes_} * static_cast<uint64_t>(setup.threads);
        return {};
    }

    void run(const Run& run) override {
        // Half heads share the work out better where heads do not, but each half prepares keys and values anew.
        const bool halves = bytes_ && shape_.batches * shape_.heads % run.pool.threads() != 0;
        const int64_t grain = halves ? std::max<int64_t>(1, shape_.tiles / 2) : shape_.tiles;
        run.pool.parallel(shape_.items(), grain, [&](int64_t begin, int64_t end, int32_t thread) {
            uint8_t* scratch = run.scratch + thread_bytes_ * static_cast<size_t>(thread);
            int64_t ready = -1;  // the head whose keys and values are prepared
            for (int64_t i = begin; i < end; ++i) {
                const int64_t one = i / shape_.tiles;
                bytes_ ? tile_bytes(run, one, i % shape_.tiles, one != ready, scratch) : tile_floats(run, one, i % shape_.tiles, one != ready, scratch);
                ready = one;
            }
        });
    }

private:
    const Tensor* mask(const Run& run) const { return masked_ ? run.inputs[3] : nullptr; }

    // ---- in bytes

    void plan_bytes() {
        shape_.tile(16, 4);
        const Heads& h = shape_.head;
        heads_ = {};
        heads_.depth = h.depth, heads_.value_depth = h.value_depth, heads_.queries = h.queries, heads_.keys = h.keys;
        heads_.q_signed = in_[0].is_signed, heads_.k_signed = in_[1].is_signed, heads_.v_signed = in_[2].is_signed;
        heads_.q_zero = in_[0].zero, heads_.k_zero = in_[1].zero, heads_.v_zero = in_[2].zero;
        heads_.scale = in_[0].scale * in_[1].scale * h.scale;
        heads_.p_inverse = 1.0f / h.p_scale, heads_.p_top = h.p_top;
        heads_.y_factor = h.p_scale * in_[2].scale;
        heads_.y_bytes = y_bytes_, heads_.y = out_;
        const int64_t keys = heads_.key_groups() * 4;
        sizes_[0] = in_[1].is_signed ? rounded(h.depth * h.keys) : 0;
        sizes_[1] = rounded(h.value_depth * keys);
        sizes_[2] = rounded(h.keys * 4);
        sizes_[3] = rounded(h.depth * shape_.width);
        sizes_[4] = rounded(h.keys * shape_.width * 4);
        sizes_[5] = rounded(keys * shape_.width);
        thread_bytes_ = 0;
        for (size_t size : sizes_) thread_bytes_ += size;
    }

    void tile_bytes(const Run& run, int64_t one, int64_t tile, bool fresh, uint8_t* scratch) const {
        uint8_t* parts[6];
        for (int i = 0; i < 6; ++i) parts[i] = scratch, scratch += sizes_[i];
        const uint8_t* k = run.inputs[1]->data + one * heads_.depth * heads_.keys;
        const ByteHeadMemory memory{heads_.k_signed ? parts[0] : const_cast<uint8_t*>(k), reinterpret_cast<int8_t*>(parts[1]),
                                    reinterpret_cast<int32_t*>(parts[2]), reinterpret_cast<int8_t*>(parts[3]), reinterpret_cast<float*>(parts[4]), parts[5]};
        if (fresh) bytes_->prepare(heads_, k, run.inputs[2]->data + one * heads_.value_depth * heads_.keys, memory);
        const int64_t first = shape_.begin(tile), some = std::min(shape_.begin(tile + 1), heads_.queries) - first;
        if (masked_) {
            shape_.start_scores(mask(run), one / shape_.heads, one % shape_.heads, first, some, (some + 15) / 16 * 16, memory.scores);
        }
        const int64_t element = y_bytes_ ? 1 : 4;
        bytes_->attend(heads_, run.inputs[0]->data + one * heads_.depth * heads_.queries + first * 4,
                       run.outputs[0]->data + one * heads_.value_depth * heads_.queries * element + first * 4, memory, masked_, some);
    }

    // ---- in float32: heads are unpacked, whatever their depth

    void plan_floats() {
        shape_.tile(kernels_->lanes, kernels_->lanes == 16 ? 4 : 2);
        const Heads& h = shape_.head;
        sizes_[0] = rounded(h.depth * h.queries * 4);
        sizes_[1] = rounded(h.depth * h.keys * 4);
        sizes_[2] = rounded(h.value_depth * h.keys * 4);
        sizes_[3] = rounded(h.value_depth * h.queries * 4);
        sizes_[4] = rounded(h.depth * shape_.width * 4);
        sizes_[5] = rounded(h.keys * shape_.width * 4);
        thread_bytes_ = 0;
        for (size_t size : sizes_) thread_bytes_ += size;
    }

    // Rows of channels from bytes in C4, and back. Heads whose channels are no groups of four are moved one by one.
    template <typename Quad, typename One>
    static void channels(const Tensor& tensor, int64_t n, int64_t first, int64_t count, float* rows, Quad&& quad, One&& one) {
        const int64_t positions = tensor.count(2, tensor.rank), stored = (tensor.dims[1] + 3) / 4 * 4;
        const bool groups = first % 4 == 0 && count % 4 == 0;
        for (int64_t c = 0; c < count; c += groups ? 4 : 1) {
            uint8_t* at = tensor.data + (n * stored + (first + c) / 4 * 4) * positions + (first + c) % 4;
            float* row[] = {rows + c * positions, rows + (c + 1) * positions, rows + (c + 2) * positions, rows + (c + 3) * positions};
            if (groups) {
                quad(at, row, positions);
            } else {
                for (int64_t p = 0; p < positions; ++p) one(at + p * 4, row[0] + p);
            }
        }
    }

    void tile_floats(const Run& run, int64_t one, int64_t tile, bool fresh, uint8_t* scratch) const {
        float* parts[6];
        for (int i = 0; i < 6; ++i) parts[i] = reinterpret_cast<float*>(scratch), scratch += sizes_[i];
        const Heads& h = shape_.head;
        const int64_t batch = one / shape_.heads, head = one % shape_.heads;
        for (int i = 0; i < 3 && fresh; ++i) {
            const int64_t depth = i == 2 ? h.value_depth : h.depth;
            const Quantization& from = in_[i];
            channels(
                *run.inputs[i], batch, head * depth, depth, parts[i],
                [&](const uint8_t* at, float* const* rows, int64_t count) { kernels_->dequantize_c4(from, at, rows, count); },
                [&](const uint8_t* at, float* to) { kernels_->dequantize(from, at, to, 1); });
        }
        const int64_t first = shape_.begin(tile), some = std::min(shape_.begin(tile + 1), h.queries) - first;
        const int64_t row = (some + kernels_->lanes - 1) / kernels_->lanes * kernels_->lanes;
        shape_.start_scores(mask(run), batch, head, first, some, row, parts[5]);
        kernels_->attend(h, parts[0] + first, parts[1], parts[2], parts[3] + first, parts[4], parts[5], some);
        const Tensor& y = *run.outputs[0];
        if (!y_bytes_) {
            for (int64_t c = 0; c < h.value_depth; ++c) {
                const int64_t at = c * h.queries + first;
                std::copy(parts[3] + at, parts[3] + at + some, y.as<float>() + one * h.value_depth * h.queries + at);
            }
        } else if (tile == shape_.tiles - 1) {
            channels(
                y, batch, head * h.value_depth, h.value_depth, parts[3],
                [&](uint8_t* at, float* const* rows, int64_t count) { kernels_->quantize_c4(out_, rows, at, count); },
                [&](uint8_t* at, const float* from) { kernels_->quantize(out_, from, at, 1); });
        }
    }

    AttentionShape shape_;
    Quantization in_[3], out_;
    ByteHeads heads_;
    const ByteAttention* bytes_ = nullptr;
    const VectorKernels* kernels_ = nullptr;
    bool masked_ = false, y_bytes_ = true;
    size_t sizes_[6] = {}, thread_bytes_ = 0;  // of the parts of a thread's scratch
};

}  // namespace

Operator* make_attention_bytes() { return new (std::nothrow) AttentionBytes; }

}  // namespace ew
