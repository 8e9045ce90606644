// conv in 8 bits with AVX-512 VNNI.
#if defined(__AVX512VNNI__)
#include "conv_avx512.h"
#include "conv_pack.h"
#include "dynamic_block.h"

namespace ew {
namespace {

struct Vnni512 : Avx512 {
    using Sum = __m512i;
    using X = __m512i;
    using W = __m512i;

    static EW_INLINE X load_x(const uint8_t* from) { return _mm512_loadu_si512(from); }
    static EW_INLINE X broadcast_x(const uint8_t* from) { return _mm512_set1_epi32(four_bytes(from)); }
    static EW_INLINE W load_w(const uint8_t* from) { return load_x(from); }
    static EW_INLINE W broadcast_w(const uint8_t* from) { return broadcast_x(from); }
    static constexpr int kSpreads = 2;
    static constexpr bool kPairs = true;
    static EW_INLINE W load_four(const uint8_t* from) {
        return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
    }
    template <int kWhich>
    static EW_INLINE W spread(W four) {
        return _mm512_shuffle_epi32(four, static_cast<_MM_PERM_ENUM>(kWhich * 0x55));
    }
    static EW_INLINE Sum zero() { return _mm512_setzero_si512(); }
    static EW_INLINE Sum add(Sum a, Sum b) { return _mm512_add_epi32(a, b); }
    // Not the intrinsic: GCC before 13 copies each sum around it and then runs out of registers, at less than half of the
    // speed.
    static EW_INLINE Sum multiply_add(Sum sum, X x, W w) {
        asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(x), "v"(w));
        return sum;
    }
    static EW_INLINE void store_sum(uint8_t* to, Sum sum) { _mm512_storeu_si512(to, sum); }
    static EW_INLINE Sum load_sum(const uint8_t* from) { return _mm512_loadu_si512(from); }
    static EW_INLINE Float to_float(Sum sum) { return {_mm512_cvtepi32_ps(sum)}; }
};

}  // namespace

extern const ConvKernel kConvS8Avx512Vnni;
const ConvKernel kConvS8Avx512Vnni = kernel_of<Vnni512>("s8_avx512vnni", pack_avx512, fill_avx512);

extern const ConvKernel kConvF32Avx512;
extern const DynamicKernel kDynamicAvx512Vnni;
const DynamicKernel kDynamicAvx512Vnni = dynamic_kernel_of<Vnni512, kConvF32Avx512>("dynamic_avx512vnni");

}  // namespace ew
#endif
