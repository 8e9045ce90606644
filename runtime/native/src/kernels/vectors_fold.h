// Folding many values into one: along rows, and arrays into an array.
#pragma once

#include "simd.h"
#include "vectors.h"

namespace ew {
namespace {

template <Fold kFold, typename V>
EW_INLINE V fold_of(V total, V x) {
    switch (kFold) {
        case Fold::kSum: return total + x;
        case Fold::kAbsolute: return total + abs(x);
        case Fold::kSquare: return fma(x, x, total);
        case Fold::kProduct: return total * x;
        case Fold::kMax: return max(total, x);
        case Fold::kMin: return min(total, x);
    }
    return total;
}

// Two totals: of a fold of x, not of x itself.
template <Fold kFold, typename V>
EW_INLINE V join_of(V a, V b) {
    return kFold == Fold::kAbsolute || kFold == Fold::kSquare ? a + b : fold_of<kFold>(a, b);
}

template <Fold kFold, typename V>
float fold_row_as(const float* x, int64_t count, float start) {
    const float first = kFold == Fold::kMax ? -HUGE_VALF : kFold == Fold::kMin ? HUGE_VALF : kFold == Fold::kProduct ? 1.0f : 0.0f;
    V total[4] = {V::all(first), V::all(first), V::all(first), V::all(first)};
    int64_t i = 0;
    for (; i + 4 * V::kLanes <= count; i += 4 * V::kLanes) {
        for (int k = 0; k < 4; ++k) total[k] = fold_of<kFold>(total[k], V::load(x + i + k * V::kLanes));
    }
    for (; i + V::kLanes <= count; i += V::kLanes) total[0] = fold_of<kFold>(total[0], V::load(x + i));
    float lanes[V::kLanes];
    join_of<kFold>(join_of<kFold>(total[0], total[1]), join_of<kFold>(total[2], total[3])).store(lanes);
    F32x1 result = F32x1::all(start);
    for (float lane : lanes) result = join_of<kFold>(result, F32x1::all(lane));
    for (; i < count; ++i) result = fold_of<kFold>(result, F32x1::load(x + i));
    return result.v;
}

template <Fold kFold, typename V>
void fold_into_as(const float* x, float* total, int64_t count) {
    int64_t i = 0;
    for (; i + V::kLanes <= count; i += V::kLanes) fold_of<kFold>(V::load(total + i), V::load(x + i)).store(total + i);
    if (i < count) fold_of<kFold>(V::load_some(total + i, count - i), V::load_some(x + i, count - i)).store_some(total + i, count - i);
}

template <typename V>
float fold_row(Fold fold, const float* x, int64_t count, float start) {
    switch (fold) {
        case Fold::kSum: return fold_row_as<Fold::kSum, V>(x, count, start);
        case Fold::kAbsolute: return fold_row_as<Fold::kAbsolute, V>(x, count, start);
        case Fold::kSquare: return fold_row_as<Fold::kSquare, V>(x, count, start);
        case Fold::kProduct: return fold_row_as<Fold::kProduct, V>(x, count, start);
        case Fold::kMax: return fold_row_as<Fold::kMax, V>(x, count, start);
        case Fold::kMin: return fold_row_as<Fold::kMin, V>(x, count, start);
    }
    return start;
}

template <typename V>
void fold_into(Fold fold, const float* x, float* total, int64_t count) {
    switch (fold) {
        case Fold::kSum: return fold_into_as<Fold::kSum, V>(x, total, count);
        case Fold::kAbsolute: return fold_into_as<Fold::kAbsolute, V>(x, total, count);
        case Fold::kSquare: return fold_into_as<Fold::kSquare, V>(x, total, count);
        case Fold::kProduct: return fold_into_as<Fold::kProduct, V>(x, total, count);
        case Fold::kMax: return fold_into_as<Fold::kMax, V>(x, total, count);
        case Fold::kMin: return fold_into_as<Fold::kMin, V>(x, total, count);
    }
}

// Bytes; a compiler makes the vectors of this loop, of whatever width the file's flags allow.
inline void max_bytes(const uint8_t* x, uint8_t* total, int64_t count, bool is_signed) {
    const uint8_t flip = is_signed ? 0x80 : 0;
    for (int64_t i = 0; i < count; ++i) {
        const uint8_t a = x[i] ^ flip, b = total[i] ^ flip;
        total[i] = static_cast<uint8_t>((a > b ? a : b) ^ flip);
    }
}

// Sums of each of the four bytes of the lanes; in parts that 32 bits hold. Signed bytes are summed with their highest bit flipped.
inline void sum_c4(const uint8_t* x, int64_t count, bool is_signed, int64_t* sums) {
    const uint8_t flip = is_signed ? 0x80 : 0;
    for (int c = 0; c < 4; ++c) sums[c] = 0;
    for (int64_t begin = 0; begin < count; begin += 4096) {
        const int64_t end = begin + 4096 < count ? begin + 4096 : count;
        int32_t part[16] = {};
        int64_t i = begin;
        for (; i + 4 <= end; i += 4) {
            for (int k = 0; k < 16; ++k) part[k] += x[i * 4 + k] ^ flip;
        }
        for (; i < end; ++i) {
            for (int k = 0; k < 4; ++k) part[k] += x[i * 4 + k] ^ flip;
        }
        for (int k = 0; k < 16; ++k) sums[k % 4] += part[k];
    }
    for (int c = 0; c < 4 && is_signed; ++c) sums[c] -= 128 * count;
}

template <typename V>
void add_scaled(const float* x, float* total, int64_t count, float factor) {
    const V f = V::all(factor);
    int64_t i = 0;
    for (; i + V::kLanes <= count; i += V::kLanes) fma(V::load(x + i), f, V::load(total + i)).store(total + i);
    if (i < count) fma(V::load_some(x + i, count - i), f, V::load_some(total + i, count - i)).store_some(total + i, count - i);
}

template <typename V>
void every(const float* x, int64_t stride, float* y, int64_t count) {
    int64_t i = 0;
#if defined(__AVX512F__)
    if (stride == 2) {
        const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        for (; i + 16 < count; i += 16) {  // the last vector would read one element too many
            _mm512_storeu_ps(y + i, _mm512_permutex2var_ps(_mm512_loadu_ps(x + 2 * i), even, _mm512_loadu_ps(x + 2 * i + 16)));
        }
    }
#elif defined(__AVX2__)
    if (stride == 2) {
        for (; i + 8 < count; i += 8) {
            const __m256 pairs = _mm256_shuffle_ps(_mm256_loadu_ps(x + 2 * i), _mm256_loadu_ps(x + 2 * i + 8), 0x88);
            _mm256_storeu_pd(reinterpret_cast<double*>(y + i), _mm256_permute4x64_pd(_mm256_castps_pd(pairs), 0xd8));
        }
    }
#endif
    for (; i < count; ++i) F32x1::load(x + i * stride).store(y + i);
}

}  // namespace
}  // namespace ew
