// Rows of outputs of a float32 layer with steps of 2, straight from the planes of x, with AVX-512: outputs are the lanes, pixels are
// broadcast. Nothing is packed but what reaches beyond a row's ends.
#if defined(__AVX512F__)
#include "conv_rows_loops.h"

namespace ew {
namespace {

// Not the intrinsic: GCC keeps pixels that the next column of the kernel meets again, and then runs out of registers.
EW_INLINE __m512 broadcast(const uint8_t* from) {
    __m512 value;
    asm("vbroadcastss %1, %0" : "=v"(value) : "m"(*reinterpret_cast<const float*>(from)));
    return value;
}

// kPixels pixels times kLines lines of outputs. 28 sums, two vectors of weights and a pixel: all registers but one.
template <int kLines>
EW_INLINE void row_block(const ConvRow& row, const Window& window, const uint8_t* w, float (&to)[kLines][kPixels][kLine]) {
    __m512 sums[kPixels][kLines];
#pragma GCC unroll 16
    for (int p = 0; p < kPixels; ++p) {
#pragma GCC unroll 2
        for (int l = 0; l < kLines; ++l) sums[p][l] = _mm512_setzero_ps();
    }
    const uint8_t* x_plane = window.x;
    for (int64_t plane = 0; plane < row.planes; ++plane, x_plane += window.plane, w += row.plane_bytes) {
        const uint8_t *x_row = x_plane, *entry = w;
        for (int64_t r = 0; r < row.rows; ++r, x_row += window.row) {
            const uint8_t* x = x_row;
            for (int64_t k = 0; k < row.columns; ++k, x += 4, entry += kLineBytes) {
                __m512 weights[kLines];
#pragma GCC unroll 2
                for (int l = 0; l < kLines; ++l) weights[l] = _mm512_loadu_ps(entry + l * row.line_bytes);
#pragma GCC unroll 16
                for (int p = 0; p < kPixels; ++p) {
                    const __m512 value = broadcast(x + p * kStep);
#pragma GCC unroll 2
                    for (int l = 0; l < kLines; ++l) sums[p][l] = _mm512_fmadd_ps(value, weights[l], sums[p][l]);
                }
            }
        }
    }
#pragma GCC unroll 16
    for (int p = 0; p < kPixels; ++p) {
#pragma GCC unroll 2
        for (int l = 0; l < kLines; ++l) _mm512_store_ps(to[l][p], sums[p][l]);
    }
}

// Rows of lanes to columns: 4x4 in each 128 bits, then these.
EW_INLINE void transpose(__m512 (&v)[16]) {
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(v[i], v[i + 1])), b = _mm512_castps_pd(_mm512_unpackhi_ps(v[i], v[i + 1]));
        const __m512d c = _mm512_castps_pd(_mm512_unpacklo_ps(v[i + 2], v[i + 3])), d = _mm512_castps_pd(_mm512_unpackhi_ps(v[i + 2], v[i + 3]));
        v[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c)), v[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
        v[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d)), v[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        const __m512 a = _mm512_shuffle_f32x4(v[i], v[i + 4], 0x88), b = _mm512_shuffle_f32x4(v[i], v[i + 4], 0xdd);
        const __m512 c = _mm512_shuffle_f32x4(v[i + 8], v[i + 12], 0x88), d = _mm512_shuffle_f32x4(v[i + 8], v[i + 12], 0xdd);
        v[i] = _mm512_shuffle_f32x4(a, c, 0x88), v[i + 8] = _mm512_shuffle_f32x4(a, c, 0xdd);
        v[i + 4] = _mm512_shuffle_f32x4(b, d, 0x88), v[i + 12] = _mm512_shuffle_f32x4(b, d, 0xdd);
    }
}

// A line of outputs of a block of pixels, to the end.
EW_INLINE void finish_line(const ConvFinish& finish, const ConvStretch& stretch, int64_t line, const float (&sums)[kPixels][kLine]) {
    const int64_t first = line * kLine, outputs = std::min(kLine, stretch.outputs - first);
    const __m512 scale = _mm512_loadu_ps(stretch.scale + first), bias = _mm512_loadu_ps(stretch.bias + first);
    const __m512 low = _mm512_set1_ps(finish.alpha), high = _mm512_set1_ps(finish.beta);
    __m512 v[16];
#pragma GCC unroll 16
    for (int p = 0; p < kPixels; ++p) {
        v[p] = _mm512_fmadd_ps(_mm512_load_ps(sums[p]), scale, bias);
        if (finish.clamps) v[p] = _mm512_min_ps(high, _mm512_max_ps(low, v[p]));
    }
    v[14] = v[15] = _mm512_setzero_ps();
    transpose(v);
    uint8_t* y = stretch.y + first * stretch.y_plane;
#pragma GCC unroll 16
    for (int o = 0; o < 16; ++o) {
        if (o < outputs) _mm512_mask_storeu_ps(y + o * stretch.y_plane, (1 << kPixels) - 1, v[o]);
    }
}

struct Rows512 {
    static constexpr int kLines = 2;

    template <int kSome>
    static EW_INLINE void block(const ConvRow& row, const Window& window, const uint8_t* w, float (&sums)[kSome][kPixels][kLine]) {
        row_block<kSome>(row, window, w, sums);
    }
    static EW_INLINE void finish(const ConvFinish& given, const ConvStretch& stretch, int64_t line, const float (&sums)[kPixels][kLine]) {
        finish_line(given, stretch, line, sums);
    }
    static EW_INLINE void copy_sixteen(const uint8_t* from, uint32_t mask, uint8_t* to) {
        _mm512_store_ps(to, _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), from));
    }
};

}  // namespace

extern const ConvRowKernel kConvRowAvx512;
const ConvRowKernel kConvRowAvx512{"f32_avx512_rows", conv_row<Rows512>, int64_t{1} << 20};

}  // namespace ew
#endif
