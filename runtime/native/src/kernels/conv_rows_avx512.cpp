// Rows of outputs of a float32 layer with steps of 2, straight from the planes of x, with AVX-512: outputs are the lanes, pixels are
// broadcast. Nothing is packed but what reaches beyond a row's ends.
#if defined(__AVX512F__)
#include <algorithm>

#include "conv_finish.h"
#include "conv_rows.h"

namespace ew {
namespace {

constexpr int kPixels = static_cast<int>(kRowPixels);
constexpr int64_t kStep = kRowStep * 4;  // bytes from an output pixel to the next

// What one block of pixels meets: planes as they lie, or the copy of a window.
struct Window {
    const uint8_t* x;
    int64_t plane, row;  // bytes
};

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

template <int kLines>
EW_ONCE void row_lines(const ConvFinish& finish, const ConvRow& row, const Window& window, int64_t line, const ConvStretch& stretch) {
    alignas(64) float sums[kLines][kPixels][kLine];
    row_block<kLines>(row, window, row.w + line * row.line_bytes, sums);
#pragma GCC unroll 1
    for (int l = 0; l < kLines; ++l) finish_line(finish, stretch, line + l, sums[l]);
}

// The columns from `column` on that a block meets, with zeros where x has none.
Window copy_window(const ConvRow& row, int64_t column, uint8_t* to) {
    const int64_t before = std::clamp<int64_t>(-column, 0, kWindowColumns), behind = std::clamp<int64_t>(row.in_columns - column, 0, kWindowColumns);
    const uint64_t there = ((uint64_t{1} << behind) - 1) & ~((uint64_t{1} << before) - 1);
    const Window window{to, row.rows * kWindowColumns * 4, kWindowColumns * 4};
    for (int64_t plane = 0; plane < row.planes; ++plane) {
        const uint8_t* x = row.x + plane * row.x_plane + column * 4;
        for (int64_t r = 0; r < row.rows; ++r, x += row.x_row) {
#pragma GCC unroll 3
            for (int i = 0; i < kWindowColumns / 16; ++i, to += 64) {
                _mm512_store_ps(to, _mm512_maskz_loadu_ps(static_cast<__mmask16>(there >> (i * 16)), x + i * 64));
            }
        }
    }
    return window;
}

// Blocks of pixels, of which the last may overlap the one before it.
class Blocks {
public:
    Blocks(const ConvRow& row, int64_t pixels) : row_(row), pixels_(pixels), count_((pixels + kRowPixels - 1) / kRowPixels) {}

    int64_t count() const { return count_; }
    int64_t pixel(int64_t block) const { return std::min(block * kRowPixels, pixels_ - kRowPixels); }

    // What a block meets; windows of the first and the last block are kept for other lines of outputs.
    Window window(int64_t block) {
        const int64_t column = pixel(block) * kRowStep - row_.pad, reach = (kRowPixels - 1) * kRowStep + row_.columns;
        if (column >= 0 && column + reach <= row_.in_columns) return {row_.x + column * 4, row_.x_plane, row_.x_row};
        const int slot = block == 0 ? 0 : 1;
        if (kept_[slot] == block) return {slot_at(slot), row_.rows * kWindowColumns * 4, kWindowColumns * 4};
        kept_[slot] = block;
        return copy_window(row_, column, slot_at(slot));
    }

private:
    uint8_t* slot_at(int slot) const { return row_.windows + slot * row_.planes * row_.rows * kWindowColumns * 4; }

    const ConvRow& row_;
    int64_t pixels_, count_;
    int64_t kept_[2] = {-1, -1};
};

template <int kLines>
void row_of_lines(const ConvFinish& finish, const ConvRow& row, Blocks& blocks, int64_t line, const ConvStretch& given) {
    for (int64_t block = 0; block < blocks.count(); ++block) {
        ConvStretch stretch = given;
        stretch.y += blocks.pixel(block) * 4;
        row_lines<kLines>(finish, row, blocks.window(block), line, stretch);
    }
}

}  // namespace

// Lines outside, blocks inside: the planes of y that are written in turns must not be too many for the first cache, for planes that are
// a multiple of 1 KiB apart fall into few of its lines.
void conv_row_avx512(const ConvFinish& finish, const ConvRow& row, const ConvStretch& stretch) {
    const int64_t lines = (stretch.outputs + kLine - 1) / kLine;
    Blocks blocks(row, stretch.pixels);
    int64_t line = 0;
    for (; line + 2 <= lines; line += 2) row_of_lines<2>(finish, row, blocks, line, stretch);
    if (line < lines) row_of_lines<1>(finish, row, blocks, line, stretch);
}

}  // namespace ew
#endif
