// depthwise in float32 with AVX-512.
#if defined(__AVX512F__)
#include "depthwise_planes.h"

namespace ew {
namespace {

template <int kVectors>
void some_sums(const DepthwiseRow& input, float* to) {
    __m512 sums[kVectors];
    for (auto& sum : sums) sum = _mm512_setzero_ps();
    const auto* weights = reinterpret_cast<const float*>(input.weights);
    for (int64_t t = 0; t < input.taps; ++t) {
        const uint8_t* x = input.x + input.offsets[t];
        const __m512 weight = _mm512_set1_ps(weights[t]);
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) sums[v] = _mm512_fmadd_ps(_mm512_loadu_ps(x + v * 64), weight, sums[v]);
    }
    for (int v = 0; v < kVectors; ++v) _mm512_storeu_ps(to + v * 16, sums[v]);
}

void sums_f32(const DepthwiseRow& input, int64_t vectors, int64_t, float* to) {
    switch (vectors) {
        case 1: return some_sums<1>(input, to);
        case 2: return some_sums<2>(input, to);
        case 3: return some_sums<3>(input, to);
        case 4: return some_sums<4>(input, to);
        case 5: return some_sums<5>(input, to);
        default: return some_sums<6>(input, to);
    }
}

// A tap is one position of the kernel.
struct FloatPlane {
    static constexpr int kColumns = 16, kLoads = 1;
    static constexpr bool kOverlaps = false, kFetches = false, kFills = false;  // with what adds nothing
    using Sum = __m512;
    using X = __m512;

    __m512 scale, bias, low, high;
    bool clamps;

    explicit FloatPlane(const DepthwisePlane& plane)
        : scale(_mm512_set1_ps(*plane.scale)), bias(_mm512_set1_ps(*plane.bias)), low(_mm512_set1_ps(plane.finish->alpha)),
          high(_mm512_set1_ps(plane.finish->beta)), clamps(plane.finish->clamps) {}

    static constexpr int64_t load_pixels(int stride) { return 16 * stride; }
    static constexpr int64_t load_column(int, int64_t tap, int64_t) { return tap; }
    static EW_INLINE Sum zero() { return _mm512_setzero_ps(); }
    static EW_INLINE X weight(const uint8_t* weights, int64_t tap) {
        return _mm512_set1_ps(reinterpret_cast<const float*>(weights)[tap]);
    }
    static EW_INLINE Sum add(Sum sum, X x, X w) { return _mm512_fmadd_ps(x, w, sum); }
    static EW_INLINE uint32_t lanes_of(uint32_t mask) { return mask; }
    EW_INLINE X fill() const { return _mm512_setzero_ps(); }

    // Sixteen pixels of x, or every second of 32.
    template <int kStride>
    EW_INLINE X load(const uint8_t* from, uint32_t mask) const {
        const __m512 first = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), from);
        if (kStride == 1) return first;
        const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        return _mm512_permutex2var_ps(first, even, _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask >> 16), from + 64));
    }

    template <int>
    EW_INLINE void store(const Sum (&sums)[1], uint8_t* y, int64_t count) const {
        __m512 v = _mm512_fmadd_ps(sums[0], scale, bias);
        if (clamps) v = _mm512_min_ps(high, _mm512_max_ps(low, v));
        if (count >= 16) _mm512_storeu_ps(y, v);
        else _mm512_mask_storeu_ps(y, F32x16::first(count), v);
    }
};

// The same for planes of 7 or 8 columns, of which half a vector would be empty.
struct NarrowPlane {
    static constexpr int kColumns = 8, kLoads = 1;
    static constexpr bool kOverlaps = false, kFetches = false, kFills = false;
    using Sum = __m256;
    using X = __m256;

    __m256 scale, bias, low, high;
    bool clamps;

    explicit NarrowPlane(const DepthwisePlane& plane)
        : scale(_mm256_set1_ps(*plane.scale)), bias(_mm256_set1_ps(*plane.bias)), low(_mm256_set1_ps(plane.finish->alpha)),
          high(_mm256_set1_ps(plane.finish->beta)), clamps(plane.finish->clamps) {}

    static constexpr int64_t load_pixels(int stride) { return 8 * stride; }
    static constexpr int64_t load_column(int, int64_t tap, int64_t) { return tap; }
    static EW_INLINE Sum zero() { return _mm256_setzero_ps(); }
    static EW_INLINE X weight(const uint8_t* weights, int64_t tap) {
        return _mm256_set1_ps(reinterpret_cast<const float*>(weights)[tap]);
    }
    static EW_INLINE Sum add(Sum sum, X x, X w) { return _mm256_fmadd_ps(x, w, sum); }
    static EW_INLINE uint32_t lanes_of(uint32_t mask) { return mask; }
    EW_INLINE X fill() const { return _mm256_setzero_ps(); }

    // Eight pixels of x, or every second of 16.
    template <int kStride>
    EW_INLINE X load(const uint8_t* from, uint32_t mask) const {
        const __m256 first = _mm256_maskz_loadu_ps(static_cast<__mmask8>(mask), from);
        if (kStride == 1) return first;
        const __m256i even = _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14);
        return _mm256_permutex2var_ps(first, even, _mm256_maskz_loadu_ps(static_cast<__mmask8>(mask >> 8), from + 32));
    }

    template <int>
    EW_INLINE void store(const Sum (&sums)[1], uint8_t* y, int64_t count) const {
        __m256 v = _mm256_fmadd_ps(sums[0], scale, bias);
        if (clamps) v = _mm256_min_ps(high, _mm256_max_ps(low, v));
        if (count >= 8) _mm256_storeu_ps(reinterpret_cast<float*>(y), v);
        else _mm256_mask_storeu_ps(y, static_cast<__mmask8>((1u << count) - 1), v);
    }
};

DepthwisePlanes planes_f32(int64_t kernel_rows, int64_t stride, int64_t columns) {
    return columns <= NarrowPlane::kColumns ? planes_of<NarrowPlane>(kernel_rows, stride) : planes_of<FloatPlane>(kernel_rows, stride);
}

}  // namespace

extern const DepthwiseKernel kDepthwiseF32Avx512;
const DepthwiseKernel kDepthwiseF32Avx512{"f32_avx512", 16, sums_f32, nullptr, planes_f32};

}  // namespace ew
#endif
