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

// finish_direct() from bytes to bytes, whose constants all stay in registers.
template <bool kRounds>
EW_ONCE void finish_added(const ConvFinish& finish, const float* sums, int64_t row, const ConvStretch& stretch_given) {
    using V = F32x16;
    const ConvStretch stretch = stretch_given;
    const Quad<Vnni512> quad(stretch);
    const V low = V::all(finish.inner_low), high = V::all(finish.inner_high);
    const V inner_scale = V::all(finish.inner_scale), shift = V::all(finish.inner_shift), residual_scale = V::all(finish.residual_scale);
    const bool is_signed = finish.residual == EW_S8;
    for (int64_t at = 0; at < stretch.pixels; at += V::kLanes) {
        V v[4], bytes[4];
        Vnni512::load_bytes(stretch.residual + at * 4, is_signed, bytes, stretch.pixels - at);
#pragma GCC unroll 4
        for (int o = 0; o < 4; ++o) {
            v[o] = quad.at(o, sums + o * row + at);
            if (kRounds) v[o] = fma(min(max(round(v[o]), low), high), inner_scale, shift);
            v[o] = fma(bytes[o], residual_scale, v[o]);
        }
        Vnni512::store_bytes<true>(stretch.y + at * 4, v, finish, stretch.pixels - at);
    }
}

// GELU in coarse steps, from the sums to bytes in one go.
EW_ONCE void finish_gelu(const ConvFinish& finish, const float* sums, int64_t row, const ConvStretch& stretch_given) {
    using V = F32x16;
    const ConvStretch stretch = stretch_given;
    const Quad<Vnni512> quad(stretch);
    V factor[4];
    for (int o = 0; o < 4; ++o) factor[o] = V::all(stretch.factor(o) * finish.y_inverse_scale);
    for (int64_t at = 0; at < stretch.pixels; at += V::kLanes) {
        V v[4];
#pragma GCC unroll 4
        for (int o = 0; o < 4; ++o) v[o] = in_range(gelu_coarse(quad.at(o, sums + o * row + at)) * factor[o]);
        Vnni512::store_bytes<false>(stretch.y + at * 4, v, finish, stretch.pixels - at);
    }
}

}  // namespace

extern const ConvKernel kConvF32Avx512;

namespace {

// The ends in which most networks spend their time; all others are those of float32, which are not compiled twice.
template <>
void finish_block<Vnni512>(const ConvFinish& finish, const float* sums, int64_t row, const ConvStretch& stretch) {
    if (finish.direct && stretch.residual && finish.residual != EW_F32 && finish.y != EW_F32) {
        return finish.rounds ? finish_added<true>(finish, sums, row, stretch) : finish_added<false>(finish, sums, row, stretch);
    }
    if (finish.activation == Function::kGelu && finish.coarse && !stretch.residual) return finish_gelu(finish, sums, row, stretch);
    kConvF32Avx512.finish(finish, sums, row, stretch);
}
template <>
void finish_columns<Vnni512>(const ConvFinish& finish, const float* sums, int64_t row, int64_t first_pixel, int64_t pixels,
                             const ConvStretch& stretch) {
    kConvF32Avx512.finish_columns(finish, sums, row, first_pixel, pixels, stretch);
}

}  // namespace

extern const ConvKernel kConvS8Avx512Vnni;
const ConvKernel kConvS8Avx512Vnni = kernel_of<Vnni512>("s8_avx512vnni", pack_avx512, fill_avx512);

extern const DynamicKernel kDynamicAvx512Vnni;
const DynamicKernel kDynamicAvx512Vnni = dynamic_kernel_of<Vnni512, kConvF32Avx512>("dynamic_avx512vnni");

}  // namespace ew
#endif
