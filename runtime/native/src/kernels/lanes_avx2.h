// Masks of AVX2 from bits. Only for *_avx2.cpp.
#pragma once

#include <immintrin.h>

#include "simd.h"

namespace ew {
namespace {

// All bits of the lanes whose bits are set in the lowest 8 of `bits`.
EW_INLINE __m256i lanes_of_bits(uint32_t bits) {
    const __m256i each = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(static_cast<int>(bits)), each), each);
}

}  // namespace
}  // namespace ew
