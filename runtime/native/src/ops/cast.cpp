// cast: y = x in y's dtype, as numpy does; float16, bfloat16 and float64 from and to float32 alone, integers of 16 bits from and to s32. shape_value: the attribute `values` as s64.
#include <cmath>
#include <cstring>

#include "checks.h"

namespace ew {
namespace {

// C's conversion, but for floats that do not fit the integer: those are C++'s only undefined ones.
template <typename To, typename From>
To convert(From x) {
    if constexpr (std::is_same_v<From, float> && std::is_integral_v<To> && !std::is_same_v<To, bool>) {
        constexpr float kLimit = 9223372036854775808.0f;
        if (!(x >= -kLimit && x < kLimit)) return static_cast<To>(x < 0 ? INT64_MIN : x > 0 ? INT64_MAX : 0);
        return static_cast<To>(static_cast<int64_t>(x));
    } else {
        return static_cast<To>(x);
    }
}

template <typename From, typename To>
void cast_all(const uint8_t* x, uint8_t* y, int64_t count) {
    const auto* from = reinterpret_cast<const From*>(x);
    auto* to = reinterpret_cast<To*>(y);
    for (int64_t i = 0; i < count; ++i) to[i] = convert<To>(from[i]);
}

// A bool of a hostile input may be any byte.
struct Bool {
    uint8_t byte;
    template <typename T>
    operator T() const {
        return static_cast<T>(byte != 0 ? 1 : 0);
    }
};

struct Half {
    uint16_t bits;
};

void widen(const uint8_t* x, uint8_t* y, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
        const uint32_t half = reinterpret_cast<const Half*>(x)[i].bits, sign = (half & 0x8000u) << 16, exponent = half >> 10 & 31, rest = half & 0x3ff;
        uint32_t bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | rest << 13;
        if (exponent == 0) {
            const float small = static_cast<float>(rest) / 16777216.0f;
            std::memcpy(&bits, &small, 4);
            bits |= sign;
        }
        std::memcpy(y + i * 4, &bits, 4);
    }
}

// To the nearest, halves to even.
void narrow(const uint8_t* x, uint8_t* y, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
        uint32_t bits;
        std::memcpy(&bits, x + i * 4, 4);
        const uint32_t sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu;
        uint32_t half;
        if (size > 0x7f800000u) {
            half = 0x7e00;
        } else if (size >= 0x477ff000u) {  // 65520 and more
            half = 0x7c00;
        } else if (size < 0x38800000u) {  // below the least normal one
            float small;
            std::memcpy(&small, &size, 4);
            half = static_cast<uint32_t>(std::nearbyint(small * 16777216.0f));
        } else {
            half = (size - 0x38000000u + 0xfff + (size >> 13 & 1)) >> 13;
        }
        reinterpret_cast<Half*>(y)[i].bits = static_cast<uint16_t>(sign | half);
    }
}

// bfloat16 is the upper half of a float32.
void widen_brain(const uint8_t* x, uint8_t* y, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
        const uint32_t bits = uint32_t{reinterpret_cast<const uint16_t*>(x)[i]} << 16;
        std::memcpy(y + i * 4, &bits, 4);
    }
}

// To the nearest, halves to even; what is no number stays none.
void narrow_brain(const uint8_t* x, uint8_t* y, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
        uint32_t bits;
        std::memcpy(&bits, x + i * 4, 4);
        const bool number = (bits & 0x7fffffffu) <= 0x7f800000u;
        reinterpret_cast<uint16_t*>(y)[i] = static_cast<uint16_t>(number ? (bits + 0x7fffu + (bits >> 16 & 1)) >> 16 : bits >> 16 | 0x40u);
    }
}

using Caster = void (*)(const uint8_t*, uint8_t*, int64_t);

template <typename From>
Caster caster_from(DType to) {
    switch (to) {
        case EW_F32: return cast_all<From, float>;
        case EW_S64: return cast_all<From, int64_t>;
        case EW_S32: return cast_all<From, int32_t>;
        case EW_U8: return cast_all<From, uint8_t>;
        case EW_S8: return cast_all<From, int8_t>;
        case EW_BOOL: return cast_all<From, bool>;
        default: return nullptr;
    }
}

// What a network has at its ends alone, beside what is computed in its place; any other pair has none.
Caster edge_caster(DType from, DType to) {
    if (to == EW_F32) return from == EW_F64 ? cast_all<double, float> : from == EW_BF16 ? widen_brain : nullptr;
    if (from == EW_F32) return to == EW_F64 ? cast_all<float, double> : to == EW_BF16 ? narrow_brain : nullptr;
    if (to == EW_S32) return from == EW_S16 ? cast_all<int16_t, int32_t> : from == EW_U16 ? cast_all<uint16_t, int32_t> : nullptr;
    if (from == EW_S32) return to == EW_S16 ? cast_all<int32_t, int16_t> : to == EW_U16 ? cast_all<int32_t, uint16_t> : nullptr;
    return nullptr;
}

bool only_at_edges(DType dtype) { return dtype == EW_F64 || dtype == EW_BF16 || dtype == EW_S16 || dtype == EW_U16; }

Caster find_caster(DType from, DType to) {
    if (only_at_edges(from) || only_at_edges(to)) return edge_caster(from, to);
    if (from == EW_F16 || to == EW_F16) return from == EW_F32 ? narrow : to == EW_F32 ? widen : nullptr;
    switch (from) {
        case EW_F32: return caster_from<float>(to);
        case EW_S64: return caster_from<int64_t>(to);
        case EW_S32: return caster_from<int32_t>(to);
        case EW_U8: return caster_from<uint8_t>(to);
        case EW_S8: return caster_from<int8_t>(to);
        case EW_BOOL: return caster_from<Bool>(to);
        default: return nullptr;
    }
}

class Cast final : public Operator {
public:
    Status prepare(Setup& setup) override {
        EW_TRY(check_operands(setup, 1, 1));
        const Tensor &x = *setup.input(0), &y = *setup.outputs[0];
        if (!is_plain(x) || !is_plain(y) || x.count() != y.count()) return setup.refuse("wants plain tensors of equal counts");
        caster_ = find_caster(x.dtype, y.dtype);
        if (!caster_) return setup.refuse("cannot cast between these dtypes");
        from_ = static_cast<int64_t>(size_of(x.dtype));
        to_ = static_cast<int64_t>(size_of(y.dtype));
        return {};
    }

    void run(const Run& run) override {
        const uint8_t* x = run.inputs[0]->data;
        uint8_t* y = run.outputs[0]->data;
        run.pool.parallel(run.outputs[0]->count(), kGrain, [&](int64_t begin, int64_t end, int32_t) {
            caster_(x + begin * from_, y + begin * to_, end - begin);
        });
    }

private:
    Caster caster_ = nullptr;
    int64_t from_ = 1, to_ = 1;
};

class ShapeValue final : public Operator {
public:
    Status prepare(Setup& setup) override {
        if (setup.input_count != 0 || setup.output_count != 1) return setup.refuse("takes no input and gives one output");
        values_ = setup.attributes.integers("values");
        const Tensor& y = *setup.outputs[0];
        if (!is_plain(y, EW_S64) || y.count() != static_cast<int64_t>(values_.size())) return setup.refuse("wants an s64 for each value");
        return {};
    }

    void run(const Run& run) override {
        if (!values_.empty()) std::memcpy(run.outputs[0]->data, values_.data(), values_.size() * sizeof(int64_t));
    }

private:
    std::vector<int64_t> values_;
};

}  // namespace

Operator* make_cast() { return new (std::nothrow) Cast; }
Operator* make_shape_value() { return new (std::nothrow) ShapeValue; }

}  // namespace ew
