// Rows of outputs of a float32 layer with steps of 2, straight from the planes of x, with AVX2: see conv_rows_avx512.cpp.
#if defined(__AVX2__)
#include "conv_rows_loops.h"
#include "lanes_avx2.h"

namespace ew {
namespace {

// kCount pixels from `from` on times a line of outputs.
template <int kCount>
EW_INLINE void some_pixels(const ConvRow& row, const Window& window, const uint8_t* from, const uint8_t* w, float (*to)[kLine]) {
    __m256 sums[kCount][2];
    for (auto& pixel : sums) pixel[0] = pixel[1] = _mm256_setzero_ps();
    for (int64_t plane = 0; plane < row.planes; ++plane, from += window.plane, w += row.plane_bytes) {
        const uint8_t* x_row = from;
        const auto* entry = reinterpret_cast<const float*>(w);
        for (int64_t r = 0; r < row.rows; ++r, x_row += window.row) {
            const uint8_t* x = x_row;
            for (int64_t k = 0; k < row.columns; ++k, x += 4, entry += kLine) {
                const __m256 low = _mm256_loadu_ps(entry), high = _mm256_loadu_ps(entry + 8);
#pragma GCC unroll 8
                for (int p = 0; p < kCount; ++p) {
                    const __m256 value = _mm256_broadcast_ss(reinterpret_cast<const float*>(x + p * kStep));
                    sums[p][0] = _mm256_fmadd_ps(value, low, sums[p][0]), sums[p][1] = _mm256_fmadd_ps(value, high, sums[p][1]);
                }
            }
        }
    }
#pragma GCC unroll 8
    for (int p = 0; p < kCount; ++p) _mm256_store_ps(to[p], sums[p][0]), _mm256_store_ps(to[p] + 8, sums[p][1]);
}

EW_INLINE void transpose(__m256 (&v)[8]) {
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
        const __m256d a = _mm256_castps_pd(_mm256_unpacklo_ps(v[i], v[i + 1])), b = _mm256_castps_pd(_mm256_unpackhi_ps(v[i], v[i + 1]));
        const __m256d c = _mm256_castps_pd(_mm256_unpacklo_ps(v[i + 2], v[i + 3])), d = _mm256_castps_pd(_mm256_unpackhi_ps(v[i + 2], v[i + 3]));
        v[i] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, c)), v[i + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, c));
        v[i + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(b, d)), v[i + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(b, d));
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        const __m256 low = _mm256_permute2f128_ps(v[i], v[i + 4], 0x20);
        v[i + 4] = _mm256_permute2f128_ps(v[i], v[i + 4], 0x31);
        v[i] = low;
    }
}

// Eight outputs of eight pixels from `pixel` on.
EW_INLINE void finish_eight(const ConvFinish& finish, const ConvStretch& stretch, int64_t first, int64_t pixel,
                            const float (&sums)[kPixels][kLine]) {
    const __m256 scale = _mm256_loadu_ps(stretch.scale + first), bias = _mm256_loadu_ps(stretch.bias + first);
    const __m256 low = _mm256_set1_ps(finish.alpha), high = _mm256_set1_ps(finish.beta);
    __m256 v[8];
#pragma GCC unroll 8
    for (int p = 0; p < 8; ++p) {
        v[p] = _mm256_fmadd_ps(_mm256_load_ps(sums[pixel + p] + first % kLine), scale, bias);
        if (finish.clamps) v[p] = _mm256_min_ps(high, _mm256_max_ps(low, v[p]));
    }
    transpose(v);
    uint8_t* y = stretch.y + first * stretch.y_plane + pixel * 4;
#pragma GCC unroll 8
    for (int o = 0; o < 8; ++o) {
        if (first + o < stretch.outputs) _mm256_storeu_ps(reinterpret_cast<float*>(y + o * stretch.y_plane), v[o]);
    }
}

struct Rows256 {
    static constexpr int kLines = 1;

    // 10 sums, two vectors of weights and a pixel.
    template <int>
    static EW_INLINE void block(const ConvRow& row, const Window& window, const uint8_t* w, float (&sums)[1][kPixels][kLine]) {
#pragma GCC unroll 1
        for (int p = 0; p < 10; p += 5) some_pixels<5>(row, window, window.x + p * kStep, w, sums[0] + p);
        some_pixels<4>(row, window, window.x + 10 * kStep, w, sums[0] + 10);
    }
    // Two pixels of the fourteen are written twice.
    static EW_INLINE void finish(const ConvFinish& given, const ConvStretch& stretch, int64_t line, const float (&sums)[kPixels][kLine]) {
#pragma GCC unroll 1
        for (int i = 0; i < 4; ++i) {
            const int64_t first = line * kLine + i / 2 * 8;
            if (first < stretch.outputs) finish_eight(given, stretch, first, i % 2 * (kPixels - 8), sums);
        }
    }
    static EW_INLINE void copy_sixteen(const uint8_t* from, uint32_t mask, uint8_t* to) {
#pragma GCC unroll 2
        for (int i = 0; i < 2; ++i, mask >>= 8) {
            const __m256 pixels = _mm256_maskload_ps(reinterpret_cast<const float*>(from) + i * 8, lanes_of_bits(mask));
            _mm256_storeu_ps(reinterpret_cast<float*>(to) + i * 8, pixels);
        }
    }
};

}  // namespace

extern const ConvRowKernel kConvRowAvx2;
const ConvRowKernel kConvRowAvx2{"f32_avx2_rows", conv_row<Rows256>, 384 * 1024};

}  // namespace ew
#endif
