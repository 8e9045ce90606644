#if defined(__x86_64__)

#include "attention_bytes.h"

#include "activation.h"
#include "vectors_bytes.h"

namespace ew {
namespace {

using V = F32x16;
constexpr int kLanes = 16;
constexpr float kLog2E = 1.44269504f;

// 2^x for x <= 0 within 3e-6 of it: a hundredth of what rounding to 8 bits loses.
EW_INLINE V power_of_two(V x) {
    const V n = round(max(V::all(-126.0f), x)), rest = max(V::all(-126.0f), x) - n;
    return scale(horner(rest, 0.999999166f, 0.69312197f, 0.240249813f, 0.0559170395f, 0.00956051052f), n);
}

EW_INLINE __m512i dot(__m512i sum, __m512i bytes, __m512i signed_bytes) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(bytes), "v"(signed_bytes));  // see conv_avx512vnni.cpp
    return sum;
}

EW_INLINE __m512i quad_at(const void* from) {
    int32_t value;
    std::memcpy(&value, from, sizeof value);
    return _mm512_set1_epi32(value);
}

// Four bytes of each of up to four vectors of lanes, the rest 0.
EW_INLINE __m512i load_quads(const uint8_t* from, int64_t count) { return _mm512_maskz_loadu_epi32(V::first(count), from); }

void prepare_keys(const ByteHeads& h, const uint8_t* k, const ByteHeadMemory& memory) {
    const __m512i flip = _mm512_set1_epi8(h.k_signed ? -128 : 0), ones = _mm512_set1_epi8(1);
    const int32_t k_zero = h.k_zero + (h.k_signed ? 128 : 0), q_zero = h.q_zero - (h.q_signed ? 0 : 128);
    for (int64_t key = 0; key < h.keys; key += kLanes) {
        const __mmask16 some = V::first(h.keys - key);
        __m512i total = _mm512_setzero_si512();
        for (int64_t d = 0; d < h.depth / 4; ++d) {
            const int64_t at = (d * h.keys + key) * 4;
            const __m512i quads = _mm512_xor_si512(_mm512_maskz_loadu_epi32(some, k + at), flip);
            if (h.k_signed) _mm512_mask_storeu_epi32(memory.keys + at, some, quads);
            total = dot(total, quads, ones);
        }
        const __m512i above = _mm512_sub_epi32(total, _mm512_set1_epi32(static_cast<int32_t>(h.depth) * k_zero));
        _mm512_mask_storeu_epi32(memory.key_terms + key, some, _mm512_mullo_epi32(above, _mm512_set1_epi32(-q_zero)));
    }
}

// Four keys of a channel side by side; keys that are not there weigh 0.
void prepare_values(const ByteHeads& h, const uint8_t* v, const ByteHeadMemory& memory) {
    const __m128i order = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m128i flip = _mm_set1_epi8(h.v_signed ? 0 : -128);
    const int64_t groups = h.key_groups(), row = groups * 4;
    for (int64_t c = 0; c < h.value_depth; c += 4) {
        int8_t* to = memory.values + c * row;
        for (int64_t g = 0; g < groups; ++g) {
            const auto some = static_cast<__mmask8>((1u << (h.keys - g * 4 < 4 ? h.keys - g * 4 : 4)) - 1);
            const __m128i quads = _mm_xor_si128(_mm_maskz_loadu_epi32(some, v + (c / 4 * h.keys + g * 4) * 4), flip);
            const __m128i turned = _mm_shuffle_epi8(quads, order);
            _mm_storeu_si32(to + g * 4, turned);
            _mm_storeu_si32(to + row + g * 4, _mm_srli_si128(turned, 4));
            _mm_storeu_si32(to + 2 * row + g * 4, _mm_srli_si128(turned, 8));
            _mm_storeu_si32(to + 3 * row + g * 4, _mm_srli_si128(turned, 12));
        }
    }
}

void prepare(const ByteHeads& h, const uint8_t* k, const uint8_t* v, const ByteHeadMemory& memory) {
    prepare_keys(h, k, memory);
    prepare_values(h, v, memory);
}

// Scores of kKeys keys, as powers of two; `top` becomes the largest of each lane.
template <int kVectors, int kKeys>
EW_INLINE void score_keys(const ByteHeads& h, const uint8_t* k, const ByteHeadMemory& m, int64_t key, const __m512i (&query_terms)[kVectors],
                          V (&top)[kVectors], bool masked) {
    __m512i total[kKeys][kVectors];
    for (int i = 0; i < kKeys; ++i) {
        const __m512i term = _mm512_set1_epi32(m.key_terms[key + i]);
        for (int v = 0; v < kVectors; ++v) total[i][v] = _mm512_add_epi32(term, query_terms[v]);
    }
    const int8_t* q = m.queries;
    const uint8_t* keys = k + key * 4;
    for (int64_t d = 0; d < h.depth / 4; ++d, q += kVectors * 64, keys += h.keys * 4) {
        __m512i query[kVectors];
        for (int v = 0; v < kVectors; ++v) query[v] = _mm512_load_si512(q + v * 64);
#pragma GCC unroll 8
        for (int i = 0; i < kKeys; ++i) {
            const __m512i one = quad_at(keys + i * 4);
#pragma GCC unroll 4
            for (int v = 0; v < kVectors; ++v) total[i][v] = dot(total[i][v], one, query[v]);
        }
    }
    const V scale = V::all(h.scale * kLog2E), to_base = V::all(kLog2E);
    for (int i = 0; i < kKeys; ++i) {
        for (int v = 0; v < kVectors; ++v) {
            float* to = m.scores + ((key + i) * kVectors + v) * kLanes;
            const V sum{_mm512_cvtepi32_ps(total[i][v])};
            const V score = masked ? fma(sum, scale, V::load(to) * to_base) : sum * scale;
            top[v] = max(top[v], score);
            score.store(to);
        }
    }
}

// Queries as signed bytes, and what the keys' zero point adds to their products.
template <int kVectors>
EW_INLINE void load_queries(const ByteHeads& h, const uint8_t* q, const ByteHeadMemory& m, int64_t some, __m512i (&terms)[kVectors]) {
    const __m512i flip = _mm512_set1_epi8(h.q_signed ? 0 : -128), ones = _mm512_set1_epi8(1);
    const int32_t k_zero = h.k_zero + (h.k_signed ? 128 : 0);
    __m512i total[kVectors];
    for (int v = 0; v < kVectors; ++v) total[v] = _mm512_setzero_si512();
    for (int64_t d = 0; d < h.depth / 4; ++d) {
        for (int v = 0; v < kVectors; ++v) {
            const __m512i quads = _mm512_xor_si512(load_quads(q + (d * h.queries + v * kLanes) * 4, some - v * kLanes), flip);
            _mm512_store_si512(m.queries + (d * kVectors + v) * 64, quads);
            total[v] = dot(total[v], ones, quads);
        }
    }
    for (int v = 0; v < kVectors; ++v) terms[v] = _mm512_mullo_epi32(total[v], _mm512_set1_epi32(-k_zero));
}

// The softmax in steps, four keys to a lane, and what the zero point of the values adds to its products with them.
template <int kVectors>
EW_INLINE void soften(const ByteHeads& h, const ByteHeadMemory& m, const V (&top)[kVectors], __m512i (&terms)[kVectors]) {
    V sums[kVectors];
    for (int v = 0; v < kVectors; ++v) sums[v] = V::all(0.0f);
    for (int64_t key = 0; key < h.keys; ++key) {
        for (int v = 0; v < kVectors; ++v) {
            float* at = m.scores + (key * kVectors + v) * kLanes;
            const V power = power_of_two(V::load(at) - top[v]);
            power.store(at);
            sums[v] = sums[v] + power;
        }
    }
    const V most = V::all(h.p_top);
    const __m512i ones = _mm512_set1_epi8(1);
    __m512i steps[kVectors];
    for (int v = 0; v < kVectors; ++v) sums[v] = V::all(h.p_inverse) / sums[v], steps[v] = _mm512_setzero_si512();
    const auto gather = [&](int64_t g, int count) {
        for (int v = 0; v < kVectors; ++v) {
            __m512i quad = _mm512_setzero_si512();
            for (int i = count - 1; i >= 0; --i) {
                const V weight = min(V::load(m.scores + ((g * 4 + i) * kVectors + v) * kLanes) * sums[v], most);
                quad = _mm512_or_si512(_mm512_slli_epi32(quad, 8), _mm512_cvtps_epi32(weight.v));
            }
            _mm512_store_si512(m.weights + (g * kVectors + v) * 64, quad);
            steps[v] = dot(steps[v], quad, ones);
        }
    };
    const int64_t whole = h.keys / 4;
    for (int64_t g = 0; g < whole; ++g) gather(g, 4);
    if (h.keys % 4 != 0) gather(whole, static_cast<int>(h.keys % 4));
    const __m512i v_zero = _mm512_set1_epi32((h.v_signed ? 0 : 128) - h.v_zero);
    for (int v = 0; v < kVectors; ++v) terms[v] = _mm512_mullo_epi32(steps[v], v_zero);
}

// Four channels of the result.
template <int kVectors>
EW_INLINE void mix_values(const ByteHeads& h, const ByteHeadMemory& m, int64_t c, const __m512i (&terms)[kVectors], const Quantizer<V>& quantizer,
                          uint8_t* y, int64_t some) {
    __m512i total[4][kVectors];
    for (auto& row : total) {
        for (int v = 0; v < kVectors; ++v) row[v] = terms[v];
    }
    const int64_t groups = h.key_groups();
    const int8_t* values = m.values + c * groups * 4;
    for (int64_t g = 0; g < groups; ++g) {
        __m512i weight[kVectors];
        for (int v = 0; v < kVectors; ++v) weight[v] = _mm512_load_si512(m.weights + (g * kVectors + v) * 64);
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            const __m512i one = quad_at(values + (i * groups + g) * 4);
            for (int v = 0; v < kVectors; ++v) total[i][v] = dot(total[i][v], weight[v], one);
        }
    }
    const V factor = V::all(h.y_factor);
    for (int v = 0; v < kVectors; ++v) {
        V rows[4];
        for (int i = 0; i < 4; ++i) rows[i] = V{_mm512_cvtepi32_ps(total[i][v])} * factor;
        const int64_t left = some - v * kLanes;
        if (h.y_bytes) {
            const auto quad = pack4<V>(quantizer(rows[0]), quantizer(rows[1]), quantizer(rows[2]), quantizer(rows[3]));
            V::from_bits(quad).store_some(reinterpret_cast<float*>(y + (c / 4 * h.queries + v * kLanes) * 4), left);
        } else {
            for (int i = 0; i < 4; ++i) rows[i].store_some(reinterpret_cast<float*>(y) + (c + i) * h.queries + v * kLanes, left);
        }
    }
}

template <int kVectors>
void attend_tile(const ByteHeads& h, const uint8_t* q, uint8_t* y, const ByteHeadMemory& m, bool masked, int64_t some) {
    constexpr int kKeys = kVectors <= 2 ? 8 : 4;  // 8 to 16 sums at once: enough to hide a product's latency
    __m512i terms[kVectors];
    V top[kVectors];
    for (int v = 0; v < kVectors; ++v) top[v] = V::all(-HUGE_VALF);
    load_queries<kVectors>(h, q, m, some, terms);
    int64_t key = 0;
    for (; key + kKeys <= h.keys; key += kKeys) score_keys<kVectors, kKeys>(h, m.keys, m, key, terms, top, masked);
    for (; key < h.keys; ++key) score_keys<kVectors, 1>(h, m.keys, m, key, terms, top, masked);
    soften<kVectors>(h, m, top, terms);
    const Quantizer<V> quantizer(h.y);
    for (int64_t c = 0; c < h.value_depth; c += 4) mix_values<kVectors>(h, m, c, terms, quantizer, y, some);
}

void attend(const ByteHeads& h, const uint8_t* q, uint8_t* y, const ByteHeadMemory& m, bool masked, int64_t some) {
    switch ((some + kLanes - 1) / kLanes) {
        case 1: return attend_tile<1>(h, q, y, m, masked, some);
        case 2: return attend_tile<2>(h, q, y, m, masked, some);
        case 3: return attend_tile<3>(h, q, y, m, masked, some);
        default: return attend_tile<4>(h, q, y, m, masked, some);
    }
}

}  // namespace

extern const ByteAttention kByteAttentionAvx512Vnni;
const ByteAttention kByteAttentionAvx512Vnni = {"u8_avx512vnni", prepare, attend};

}  // namespace ew

#endif
