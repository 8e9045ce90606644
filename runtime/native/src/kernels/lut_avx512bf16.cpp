// The level with VBMI: bytes are looked up 64 at a time.
#if defined(__x86_64__)

#include <immintrin.h>

#include <cstdint>

namespace ew {

void lut_avx512bf16(const uint8_t* table, const uint8_t* x, uint8_t* y, int64_t count);

void lut_avx512bf16(const uint8_t* table, const uint8_t* x, uint8_t* y, int64_t count) {
    const __m512i t0 = _mm512_loadu_si512(table), t1 = _mm512_loadu_si512(table + 64);
    const __m512i t2 = _mm512_loadu_si512(table + 128), t3 = _mm512_loadu_si512(table + 192);
    for (int64_t i = 0; i < count; i += 64) {
        const __mmask64 some = count - i >= 64 ? ~__mmask64{0} : (__mmask64{1} << (count - i)) - 1;
        const __m512i index = _mm512_maskz_loadu_epi8(some, x + i);  // each lookup takes the low 7 bits
        const __m512i low = _mm512_permutex2var_epi8(t0, index, t1), high = _mm512_permutex2var_epi8(t2, index, t3);
        _mm512_mask_storeu_epi8(y + i, some, _mm512_mask_blend_epi8(_mm512_movepi8_mask(index), low, high));
    }
}

}  // namespace ew

#endif
