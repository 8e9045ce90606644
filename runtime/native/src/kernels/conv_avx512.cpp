// conv in float32 with AVX-512.
#if defined(__AVX512F__)
#include "conv_avx512.h"
#include "conv_pack.h"

namespace ew {
namespace {

struct Float512 : Avx512 {
    using Sum = __m512;
    using X = __m512;
    using W = __m512;

    static EW_INLINE X load_x(const uint8_t* from) { return _mm512_loadu_ps(from); }
    static EW_INLINE X broadcast_x(const uint8_t* from) { return _mm512_set1_ps(*reinterpret_cast<const float*>(from)); }
    static EW_INLINE W load_w(const uint8_t* from) { return load_x(from); }
    static EW_INLINE W broadcast_w(const uint8_t* from) { return broadcast_x(from); }
    static constexpr int kSpreads = 1;
    static EW_INLINE W load_four(const uint8_t* from) {
        return _mm512_broadcast_f32x4(_mm_loadu_ps(reinterpret_cast<const float*>(from)));
    }
    template <int kWhich>
    static EW_INLINE W spread(W four) {
        return _mm512_permute_ps(four, kWhich * 0x55);
    }
    static EW_INLINE Sum zero() { return _mm512_setzero_ps(); }
    static EW_INLINE Sum add(Sum a, Sum b) { return _mm512_add_ps(a, b); }
    static EW_INLINE Sum multiply_add(Sum sum, X x, W w) { return _mm512_fmadd_ps(x, w, sum); }
    static EW_INLINE void store_sum(uint8_t* to, Sum sum) { _mm512_storeu_ps(to, sum); }
    static EW_INLINE Sum load_sum(const uint8_t* from) { return _mm512_loadu_ps(from); }
    static EW_INLINE Float to_float(Sum sum) { return {sum}; }
};

}  // namespace

extern const ConvKernel kConvF32Avx512;
const ConvKernel kConvF32Avx512 = kernel_of<Float512>("f32_avx512", pack_avx512, fill_avx512);

}  // namespace ew
#endif
