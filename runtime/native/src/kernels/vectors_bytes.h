// 8-bit values: to and from float32, in their order or as four channels a lane (C4), and arithmetic on them.
#pragma once

#include <limits>

#include "simd.h"
#include "vectors.h"

namespace ew {
namespace {

// round(x / scale) within what the dtype holds, less the zero point; NaN is the lowest.
//
// The quotient is rounded as division rounds it, for where steps are made of round numbers (pixels from 0 to 255) a product with the
// inverse tips ties. Where fma rounds once, vectors divide by Markstein's correction of that product (Theorem 8.4 in Muller et al., Handbook of
// Floating-Point Arithmetic, 2nd ed. 2018: a remainder by fused multiply-add), which is several times faster than to divide.
template <typename V>
struct Quantizer {
    V inverse, minus, low, high, least, most;  // minus the scale; the bounds of x, which keep the remainder finite
    typename V::Int zero;

    explicit EW_INLINE Quantizer(const Quantization& to)
        : inverse(V::all(1.0f / to.scale)), minus(V::all(-to.scale)), low(V::all(static_cast<float>(to.lowest() - to.zero))),
          high(V::all(static_cast<float>(to.highest() - to.zero))), least(max(low * V::all(to.scale), V::all(-kLargest))),
          most(min(high * V::all(to.scale), V::all(kLargest))), zero(V::Int::all(to.zero)) {}

    EW_INLINE typename V::Int of_scaled(V x) const { return min(max(x, low), high).to_int() + zero; }
    EW_INLINE typename V::Int operator()(V x) const {
        const V inside = min(max(x, least), most);
        if constexpr (!V::kFuses) return (V::all(0.0f) - inside / minus).to_int() + zero;
        const V quotient = inside * inverse, remainder = fma(quotient, minus, inside);
        return fma(remainder, inverse, quotient).to_int() + zero;
    }

private:
    static constexpr float kLargest = std::numeric_limits<float>::max();
};

template <typename V>
EW_INLINE typename V::Int pack4(typename V::Int a, typename V::Int b, typename V::Int c, typename V::Int d) {
    const auto byte = V::Int::all(255);
    return (a & byte) | (b & byte).template left<8>() | (c & byte).template left<16>() | d.template left<24>();
}

template <typename V>
void quantize(const Quantization& to, const float* x, uint8_t* y, int64_t count) {
    const Quantizer<V> quantizer(to);
    int64_t i = 0;
    for (; i + V::kLanes <= count; i += V::kLanes) quantizer(V::load(x + i)).store_low_bytes(y + i);
    if (i < count) {
        uint8_t last[V::kLanes];
        quantizer(V::load_some(x + i, count - i)).store_low_bytes(last);
        std::memcpy(y + i, last, static_cast<size_t>(count - i));
    }
}

template <typename V>
void quantize_c4(const Quantization& to, const float* const* rows, uint8_t* y, int64_t count) {
    const Quantizer<V> quantizer(to);
    const auto quad = [&](auto load) EW_LAMBDA_INLINE {
        return V::from_bits(pack4<V>(quantizer(load(rows[0])), quantizer(load(rows[1])), quantizer(load(rows[2])), quantizer(load(rows[3]))));
    };
    auto* out = reinterpret_cast<float*>(y);  // only as 32 bits that are stored
    int64_t i = 0;
    for (; i + V::kLanes <= count; i += V::kLanes) quad([&](const float* row) EW_LAMBDA_INLINE { return V::load(row + i); }).store(out + i);
    if (i < count) quad([&](const float* row) EW_LAMBDA_INLINE { return V::load_some(row + i, count - i); }).store_some(out + i, count - i);
}

template <typename V>
EW_INLINE typename V::Int load_bytes(const uint8_t* from, bool is_signed) {
    return is_signed ? V::Int::load_s8(from) : V::Int::load_u8(from);
}

template <typename V>
void dequantize(const Quantization& from, const uint8_t* x, float* y, int64_t count) {
    const V scale = V::all(from.scale);
    const auto zero = V::Int::all(from.zero);
    int64_t i = 0;
    for (; i + V::kLanes <= count; i += V::kLanes) (V::from_int(load_bytes<V>(x + i, from.is_signed) - zero) * scale).store(y + i);
    if (i < count) {
        uint8_t last[V::kLanes] = {};
        std::memcpy(last, x + i, static_cast<size_t>(count - i));
        (V::from_int(load_bytes<V>(last, from.is_signed) - zero) * scale).store_some(y + i, count - i);
    }
}

// Channel kChannel of lanes of four bytes. A signed byte is made one by flipping its highest bit and moving the zero.
template <int kChannel, typename V>
EW_INLINE V channel_of(typename V::Int quad, typename V::Int zero, V scale) {
    const auto byte = V::Int::all(255);
    if constexpr (kChannel == 0) {
        return V::from_int((quad & byte) - zero) * scale;
    } else {
        return V::from_int((quad.template right<8 * kChannel>() & byte) - zero) * scale;
    }
}

template <typename V>
void dequantize_c4(const Quantization& from, const uint8_t* x, float* const* rows, int64_t count) {
    const V scale = V::all(from.scale);
    const auto flip = V::Int::all(from.is_signed ? static_cast<int32_t>(0x80808080) : 0);
    const auto zero = V::Int::all(from.zero + (from.is_signed ? 128 : 0));
    const auto* in = reinterpret_cast<const float*>(x);
    for (int64_t i = 0; i < count; i += V::kLanes) {
        const int64_t some = count - i;
        const bool whole = some >= V::kLanes;
        const auto quad = (whole ? V::load(in + i) : V::load_some(in + i, some)).bits() ^ flip;
        const V parts[] = {channel_of<0>(quad, zero, scale), channel_of<1>(quad, zero, scale), channel_of<2>(quad, zero, scale),
                           channel_of<3>(quad, zero, scale)};
        for (int c = 0; c < 4; ++c) whole ? parts[c].store(rows[c] + i) : parts[c].store_some(rows[c] + i, some);
    }
}

template <typename V, bool kProduct>
EW_INLINE typename V::Int pair_of(const BytePair& pair, const Quantizer<V>& quantizer, const uint8_t* a, const uint8_t* b) {
    const V x = V::from_int(load_bytes<V>(a, pair.a.is_signed) - V::Int::all(pair.a.zero)) * V::all(pair.a_factor);
    const V z = V::from_int(load_bytes<V>(b, pair.b.is_signed) - V::Int::all(pair.b.zero));
    return quantizer.of_scaled(kProduct ? x * z : fma(z, V::all(pair.b_factor), x));
}

template <typename V, bool kProduct>
void pair_loop(const BytePair& pair, const uint8_t* a, const uint8_t* b, int64_t b_step, uint8_t* y, int64_t count) {
    const Quantizer<V> quantizer(pair.y);
    int64_t i = 0;
    if (V::kLanes == 1 && b_step == 0) {  // a pattern of 64 bytes
        for (; i < count; ++i) pair_of<V, kProduct>(pair, quantizer, a + i, b + i % 64).store_low_bytes(y + i);
    }
    for (; i + V::kLanes <= count; i += V::kLanes) pair_of<V, kProduct>(pair, quantizer, a + i, b + i * b_step).store_low_bytes(y + i);
    if (i < count) {
        uint8_t last[3][V::kLanes] = {};
        std::memcpy(last[0], a + i, static_cast<size_t>(count - i));
        std::memcpy(last[1], b + i * b_step, static_cast<size_t>(count - i));
        pair_of<V, kProduct>(pair, quantizer, last[0], last[1]).store_low_bytes(last[2]);
        std::memcpy(y + i, last[2], static_cast<size_t>(count - i));
    }
}

template <typename V>
void binary_bytes(const BytePair& pair, const uint8_t* a, const uint8_t* b, int64_t b_step, uint8_t* y, int64_t count) {
    (pair.product ? pair_loop<V, true> : pair_loop<V, false>)(pair, a, b, b_step, y, count);
}

// Ties to even; NaN stays NaN, for its highest mantissa bit is set.
template <typename V>
void round_brain(float* x, int64_t count) {
    const auto one = V::Int::all(1), half = V::Int::all(0x7fff), high = V::Int::all(~0xffff), quiet = V::Int::all(0x400000);
    for (int64_t i = 0; i < count; i += V::kLanes) {
        const V value = V::load(x + i);
        const auto bits = value.bits();
        const V rounded = V::from_bits((bits + half + (bits.template right<16>() & one)) & high);
        const V ordered = V::from_bits((bits | quiet) & high);
        select(abs(value) < V::all(HUGE_VALF), rounded, select(V::all(0.0f) < abs(value), value, ordered)).store(x + i);
    }
}

template <typename V>
void decode_brain(const Codes& codes, float* y) {
    const auto high = V::Int::all(~0xffff);
    for (int64_t row = 0; row < codes.rows; ++row) {
        const bool second = row / codes.block % 2 != 0;
        const int64_t pair = row / codes.block / 2 * codes.block + row % codes.block;
        for (int64_t o = 0; o < 16; o += V::kLanes) {
            const auto bits = V::load(reinterpret_cast<const float*>(codes.data) + pair * 16 + o).bits();
            V::from_bits(second ? bits & high : bits.template left<16>()).store(y + row * 16 + o);
        }
    }
}

template <typename V>
void decode(const Codes& codes, float* y) {
    if (codes.bits == 16) return decode_brain<V>(codes, y);
    const auto low = V::Int::all(15);
    for (int64_t o = 0; o < 16; o += V::kLanes) {
        for (int64_t first = 0; first < codes.rows; first += codes.block) {
            const float* terms = codes.terms + first / codes.block * 32 + o;
            const V factor = V::load(terms), shift = V::load(terms + 16);
            const int64_t end = std::min(codes.rows, first + codes.block);
            for (int64_t row = first; row < end; ++row) {
                const auto bytes = V::Int::load_u8(codes.data + (codes.bits == 4 ? row / 2 : row) * 16 + o);
                const auto code = codes.bits != 4 ? bytes : row % 2 == 0 ? bytes & low : bytes.template right<4>();
                fma(V::from_int(code), factor, shift).store(y + row * 16 + o);
            }
        }
    }
}

inline void lut(const uint8_t* table, const uint8_t* x, uint8_t* y, int64_t count) {
    for (int64_t i = 0; i < count; ++i) y[i] = table[x[i]];
}

}  // namespace
}  // namespace ew
