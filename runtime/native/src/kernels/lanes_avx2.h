// What AVX2's kernels share. Only for *_avx2.cpp.
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

// sum + products. With the intrinsic GCC 12 copies each sum of a loop that holds eight of them.
EW_INLINE __m256i add_to(__m256i sum, __m256i products) {
    asm("vpaddd %1, %0, %0" : "+x"(sum) : "x"(products));
    return sum;
}

}  // namespace
}  // namespace ew
