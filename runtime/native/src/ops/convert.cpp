// Between float32 and 8 bits, and between the layouts of 8 bits.
//
// quantize: f32 -> 8 bits (scale, zero_point). dequantize: back. relayout: 8 bits, plain <-> C4. requantize: 8 bits -> 8 bits of
// another scale (x_scale, x_zero_point, y_scale, y_zero_point). lut: 8 bits -> table[byte], 256 entries.
#include <algorithm>
#include <cstring>

#include "quantization.h"

namespace ew {
namespace {

constexpr int64_t kChunk = 512;  // positions whose four channels are at hand at once

// The work on tensors [N, C, P] of which one is C4: chunks of positions of four channels.
struct Quads {
    int64_t channels = 0, quads = 0, positions = 0, chunks = 0;

    explicit Quads(const Tensor& tensor) {
        if (tensor.rank < 2) return;
        channels = tensor.dims[1];
        quads = (channels + 3) / 4;
        positions = tensor.count(2, tensor.rank);
        chunks = (positions + kChunk - 1) / kChunk;
    }

    // body(rows in the plain tensor's elements (of channels beyond C: the last one), bytes in the C4 tensor, count, real rows)
    template <typename Body>
    void run(ThreadPool& pool, int64_t batches, Body&& body) const {
        const int64_t grain = std::max<int64_t>(1, kGrain / 4 / std::max<int64_t>(1, std::min(positions, kChunk)));
        pool.parallel(batches * quads * chunks, grain, [&](int64_t begin, int64_t end, int32_t) {
            for (int64_t i = begin; i < end; ++i) {
                const int64_t quad = i / chunks, first = i % chunks * kChunk, batch = quad / quads;
                const int64_t channel = quad % quads * 4;
                int64_t rows[4];
                for (int64_t c = 0; c < 4; ++c) {
                    rows[c] = (batch * channels + std::min(channel + c, channels - 1)) * positions + first;
                }
                body(rows, (quad * positions + first) * 4, std::min(kChunk, positions - first), std::min<int64_t>(4, channels - channel));
            }
        });
    }
};

class Convert : public Operator {
protected:
    Status check(Setup& setup) {
        EW_TRY(check_operands(setup, 1, 1));
        const Tensor &x = *setup.input(0), &y = *setup.outputs[0];
        if (!same_dims(x, y)) return setup.refuse("wants equal dims");
        kernels_ = &vector_kernels(setup.isa);
        setup.kernel = kernels_->name;
        return {};
    }
    // C4 of single positions is rows that are filled up to a multiple of four.
    static bool is_flat(const Tensor& packed) {
        return is_plain(packed) || (packed.count(2, packed.rank) == 1 && (packed.dims[0] == 1 || packed.dims[1] % 4 == 0));
    }

    const VectorKernels* kernels_ = nullptr;
};

class Quantize final : public Convert {
public:
    Status prepare(Setup& setup) override {
        EW_TRY(check(setup));
        if (!is_plain(*setup.input(0), EW_F32) || !is_8_bit(*setup.outputs[0])) return setup.refuse("makes 8 bits of plain float32");
        return read_quantization(setup, "", *setup.outputs[0], &to_);
    }

    void run(const Run& run) override {
        const float* x = run.inputs[0]->as<float>();
        uint8_t* y = run.outputs[0]->data;
        const Tensor& tensor = *run.outputs[0];
        if (is_flat(tensor)) {
            run.pool.parallel(tensor.count(), kGrain, [&](int64_t begin, int64_t end, int32_t) {
                kernels_->quantize(to_, x + begin, y + begin, end - begin);
            });
            return;
        }
        Quads(tensor).run(run.pool, tensor.dims[0], [&](const int64_t* at, int64_t to, int64_t count, int64_t) {
            const float* rows[] = {x + at[0], x + at[1], x + at[2], x + at[3]};
            kernels_->quantize_c4(to_, rows, y + to, count);
        });
    }

private:
    Quantization to_;
};

class Dequantize final : public Convert {
public:
    Status prepare(Setup& setup) override {
        EW_TRY(check(setup));
        if (!is_plain(*setup.outputs[0], EW_F32) || !is_8_bit(*setup.input(0))) return setup.refuse("makes plain float32 of 8 bits");
        return read_quantization(setup, "", *setup.input(0), &from_);
    }

    void run(const Run& run) override {
        const uint8_t* x = run.inputs[0]->data;
        float* y = run.outputs[0]->as<float>();
        const Tensor& tensor = *run.inputs[0];
        if (is_flat(tensor)) {
            run.pool.parallel(tensor.count(), kGrain, [&](int64_t begin, int64_t end, int32_t) {
                kernels_->dequantize(from_, x + begin, y + begin, end - begin);
            });
            return;
        }
        Quads(tensor).run(run.pool, tensor.dims[0], [&](const int64_t* at, int64_t from, int64_t count, int64_t real) {
            float unused[kChunk];
            float* rows[] = {y + at[0], unused, unused, unused};
            for (int64_t c = 1; c < real; ++c) rows[c] = y + at[c];
            kernels_->dequantize_c4(from_, x + from, rows, count);
        });
    }

private:
    Quantization from_;
};

// 8 bits to 8 bits: each byte through a table, and to another layout.
class Bytes : public Convert {
public:
    void run(const Run& run) override {
        const Tensor &x = *run.inputs[0], &y = *run.outputs[0];
        if (x.layout == y.layout || (is_flat(x) && is_flat(y))) {
            run.pool.parallel(x.layout == y.layout ? stored_count(y) : y.count(), kGrain * 4, [&](int64_t begin, int64_t end, int32_t) {
                kernels_->lut(table_, x.data + begin, y.data + begin, end - begin);
            });
            return;
        }
        const bool pack = is_plain(x);
        Quads(y).run(run.pool, y.dims[0], [&](const int64_t* at, int64_t packed, int64_t count, int64_t real) {
            for (int64_t i = 0; i < count; ++i) {
                for (int64_t c = 0; c < real; ++c) {
                    const int64_t quad = packed + i * 4 + c, plain = at[c] + i;
                    y.data[pack ? quad : plain] = table_[x.data[pack ? plain : quad]];
                }
            }
        });
    }

protected:
    Status check_bytes(Setup& setup) {
        EW_TRY(check(setup));
        if (!is_8_bit(*setup.input(0)) || !is_8_bit(*setup.outputs[0])) return setup.refuse("wants 8 bits");
        return {};
    }
    void set_identity() {
        for (int i = 0; i < 256; ++i) table_[i] = static_cast<uint8_t>(i);
    }

    alignas(64) uint8_t table_[256] = {};
};

class Relayout final : public Bytes {
public:
    Status prepare(Setup& setup) override {
        EW_TRY(check_bytes(setup));
        if (setup.input(0)->dtype != setup.outputs[0]->dtype) return setup.refuse("wants equal dtypes");
        set_identity();
        return {};
    }
};

class Requantize final : public Bytes {
public:
    Status prepare(Setup& setup) override {
        EW_TRY(check_bytes(setup));
        Quantization from, to;
        EW_TRY(read_quantization(setup, "x_", *setup.input(0), &from));
        EW_TRY(read_quantization(setup, "y_", *setup.outputs[0], &to));
        set_identity();
        float values[256];
        kernels_->dequantize(from, table_, values, 256);
        kernels_->quantize(to, values, table_, 256);
        return {};
    }
};

class Lut final : public Bytes {
public:
    Status prepare(Setup& setup) override {
        EW_TRY(check_operands(setup, 2, 2));
        const Tensor &x = *setup.input(0), &table = *setup.input(1), &y = *setup.outputs[0];
        if (!is_8_bit(x) || !is_8_bit(y) || !same_dims(x, y)) return setup.refuse("wants 8 bits and equal dims");
        if (!table.constant || table.bytes < 256 || !is_plain(table, EW_U8)) return setup.refuse("wants a constant table of 256 bytes");
        std::memcpy(table_, table.data, 256);
        kernels_ = &vector_kernels(setup.isa);
        setup.kernel = kernels_->name;
        return {};
    }
};

}  // namespace

Operator* make_dequantize() { return new (std::nothrow) Dequantize; }
Operator* make_lut() { return new (std::nothrow) Lut; }
Operator* make_quantize() { return new (std::nothrow) Quantize; }
Operator* make_relayout() { return new (std::nothrow) Relayout; }
Operator* make_requantize() { return new (std::nothrow) Requantize; }

}  // namespace ew
