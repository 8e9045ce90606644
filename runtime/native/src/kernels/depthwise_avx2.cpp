// depthwise with AVX2, in 8 bits and float32. depthwise_avx512vnni.cpp says how the pixels lie.
#if defined(__AVX2__)
#include <limits>

#include "conv_avx2.h"
#include "depthwise_planes.h"
#include "lanes_avx2.h"

namespace ew {
namespace {

constexpr int kShifts = 4;

EW_INLINE __m256i transposition(const uint8_t* channels) {
    alignas(16) uint8_t order[16];
    for (int i = 0; i < 16; ++i) order[i] = static_cast<uint8_t>(i % 4 * 4 + channels[i / 4]);
    return _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(order)));
}

// sums[k]: lane (L, c) is channel c of pixel 4 * L + k.
template <typename Op>
EW_INLINE void sum_vector(const DepthwiseRow& input, int64_t first, __m256i order, __m256i (&sums)[kShifts]) {
    for (auto& sum : sums) sum = Op::zero();
    const uint8_t* x = input.x + first * 4;
    for (int64_t t = 0; t < input.taps; ++t) {
        const auto* bytes = reinterpret_cast<const __m128i*>(input.weights + t * 16);
        const typename Op::W weight = Op::w_of(_mm256_broadcastsi128_si256(_mm_loadu_si128(bytes)));
        const uint8_t* from = x + input.offsets[t];
        for (int k = 0; k < kShifts; ++k) {
            const typename Op::X value = Op::x_of(_mm256_shuffle_epi8(Op::load(from + k * 4), order));
            sums[k] = Op::multiply_add(sums[k], value, weight);
        }
    }
}

template <typename Op>
void sums_s8(const DepthwiseRow& input, int64_t vectors, int64_t row, float* sums) {
    const __m256i order = transposition(input.channels);
    for (int64_t v = 0; v < vectors; ++v) {
        __m256i s[kShifts];
        sum_vector<Op>(input, v * 8, order, s);
        // From pixels of four channels to channels of 8 pixels.
        const __m256i low01 = _mm256_unpacklo_epi32(s[0], s[1]), high01 = _mm256_unpackhi_epi32(s[0], s[1]);
        const __m256i low23 = _mm256_unpacklo_epi32(s[2], s[3]), high23 = _mm256_unpackhi_epi32(s[2], s[3]);
        Op::to_float(_mm256_unpacklo_epi64(low01, low23)).store(sums + v * 8);
        Op::to_float(_mm256_unpackhi_epi64(low01, low23)).store(sums + row + v * 8);
        Op::to_float(_mm256_unpacklo_epi64(high01, high23)).store(sums + 2 * row + v * 8);
        Op::to_float(_mm256_unpackhi_epi64(high01, high23)).store(sums + 3 * row + v * 8);
    }
}

template <typename Op>
void direct_s8(const DepthwiseRow& input, const ConvFinish& finish, const float* scale, const float* bias, int64_t pixels,
               uint8_t* y) {
    const __m256i order = transposition(input.channels);
    const __m256 scales = _mm256_broadcast_ps(reinterpret_cast<const __m128*>(scale));
    const __m256 biases = _mm256_broadcast_ps(reinterpret_cast<const __m128*>(bias));
    const bool is_signed = finish.y == EW_S8;
    for (int64_t p = 0; p < pixels; p += 8) {
        __m256i s[kShifts];
        sum_vector<Op>(input, p, order, s);
        for (auto& sum : s) sum = _mm256_cvtps_epi32(_mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), scales, biases));
        const __m256i low = _mm256_packs_epi32(s[0], s[1]), high = _mm256_packs_epi32(s[2], s[3]);
        const __m256i bytes = is_signed ? _mm256_packs_epi16(low, high) : _mm256_packus_epi16(low, high);
        Op::store_pixels(y + p * 4, Op::clamped(bytes, is_signed, finish.low, finish.high), pixels - p);
    }
}

template <int kVectors>
void some_sums(const DepthwiseRow& input, float* to) {
    __m256 sums[kVectors];
    for (auto& sum : sums) sum = _mm256_setzero_ps();
    for (int64_t t = 0; t < input.taps; ++t) {
        const uint8_t* x = input.x + input.offsets[t];
        const __m256 weight = Float256::broadcast_x(input.weights + t * 4);
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) sums[v] = _mm256_fmadd_ps(Float256::load_x(x + v * 32), weight, sums[v]);
    }
    for (int v = 0; v < kVectors; ++v) _mm256_storeu_ps(to + v * 8, sums[v]);
}

void sums_f32(const DepthwiseRow& input, int64_t vectors, int64_t, float* to) {
    DepthwiseRow rest = input;
    for (; vectors >= 4; vectors -= 4, rest.x += 128, to += 32) some_sums<4>(rest, to);
    for (; vectors > 0; --vectors, rest.x += 32, to += 8) some_sums<1>(rest, to);
}

constexpr float kInfinite = std::numeric_limits<float>::infinity();

// A tap is one position of the kernel.
struct FloatPlane {
    static constexpr int kColumns = 8, kLoads = 1;
    static constexpr bool kOverlaps = true, kFetches = true, kFills = false;  // with what adds nothing
    using Sum = __m256;
    using X = __m256;

    // In memory until they are wanted: registers are few.
    struct Ends {
        __m256 scale, bias, low, high;
        EW_INLINE void store(Sum sum, uint8_t* y, int64_t count) const {
            const F32x8 v{_mm256_min_ps(high, _mm256_max_ps(low, _mm256_fmadd_ps(sum, scale, bias)))};
            v.store_some(reinterpret_cast<float*>(y), count);
        }
    };
    const float *scale, *bias;
    float low, high;

    explicit FloatPlane(const DepthwisePlane& plane)
        : scale(plane.scale), bias(plane.bias), low(plane.finish->clamps ? plane.finish->alpha : -kInfinite),
          high(plane.finish->clamps ? plane.finish->beta : kInfinite) {}
    EW_INLINE Ends ends() const {
        return {_mm256_broadcast_ss(scale), _mm256_broadcast_ss(bias), _mm256_set1_ps(low), _mm256_set1_ps(high)};
    }

    static constexpr int64_t load_pixels(int stride) { return 8 * stride; }
    static constexpr int64_t load_column(int, int64_t tap, int64_t) { return tap; }
    static EW_INLINE Sum zero() { return _mm256_setzero_ps(); }
    static EW_INLINE X weight(const uint8_t* weights, int64_t tap) { return Float256::broadcast_x(weights + tap * 4); }
    static EW_INLINE Sum add(Sum sum, X x, X w) { return _mm256_fmadd_ps(x, w, sum); }
    EW_INLINE X fill() const { return _mm256_setzero_ps(); }

    static EW_INLINE __m256i lanes_of(uint32_t mask) { return lanes_of_bits(mask); }
    template <int>
    EW_INLINE X load(const uint8_t* from, __m256i lanes) const {
        return _mm256_maskload_ps(reinterpret_cast<const float*>(from), lanes);
    }
};

// With steps of 2 two masked loads a tap are no faster than a copy whose pixels are sorted.
DepthwisePlanes planes_f32(int64_t kernel_rows, int64_t stride, int64_t) {
    return stride == 1 ? planes_by<FloatPlane, 1>(kernel_rows) : DepthwisePlanes();
}

}  // namespace

extern const DepthwiseKernel kDepthwiseS8Avx2, kDepthwiseS8WideAvx2, kDepthwiseF32Avx2;
const DepthwiseKernel kDepthwiseS8Avx2{"s8_avx2", 8, sums_s8<Pairs256>, direct_s8<Pairs256>};
const DepthwiseKernel kDepthwiseS8WideAvx2{"s8_wide_avx2", 8, sums_s8<Wide256>, direct_s8<Wide256>};
const DepthwiseKernel kDepthwiseF32Avx2{"f32_avx2", 8, sums_f32, nullptr, planes_f32};

}  // namespace ew
#endif
