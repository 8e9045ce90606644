// The pixels that do not fill a vector: outputs are the lanes. Included by each instruction set's file after conv_block.h.
#pragma once

#include "conv_block.h"

namespace ew {
namespace {

// The values of one pixel, of as many outputs as a call of line_block() makes.
struct Column {
    static constexpr int64_t kMost = 4 * kLine;
    float values[kMost];
    int64_t outputs;
    int64_t pixel;
};

inline float residual_at(const ConvFinish& finish, const ConvStretch& stretch, int64_t output, int64_t pixel) {
    if (finish.residual == EW_F32)
        return reinterpret_cast<const float*>(stretch.residual + output * stretch.residual_plane)[pixel] *
               finish.residual_scale;
    const uint8_t byte = stretch.residual[output / 4 * stretch.residual_plane + pixel * 4 + output % 4];
    const float value = finish.residual == EW_S8 ? static_cast<int8_t>(byte) : byte;
    return (value - finish.residual_zero_point) * finish.residual_scale;
}

inline void add_column(const ConvFinish& finish, const ConvStretch& stretch, Column* column) {
    for (int64_t o = 0; o < column->outputs; ++o) {
        const float other = residual_at(finish, stretch, o, column->pixel);
        column->values[o] = finish.gated ? column->values[o] * other : column->values[o] + other;
    }
}

template <typename V>
EW_ONCE void activate_column(const ConvFinish& finish, Column* column) {
    with_activation<V>(finish, [&](auto activation) EW_LAMBDA_INLINE {
        for (int64_t o = 0; o < column->outputs; o += V::kLanes) {
            activation(V::load(column->values + o)).store(column->values + o);
        }
    });
}

// The rounding before the residual.
template <typename V>
EW_ONCE void round_column(const ConvFinish& finish, Column* column) {
    for (int64_t o = 0; o < column->outputs; o += V::kLanes) {
        V v[1] = {V::load(column->values + o)};
        round_inner<true>(finish, v);
        v[0].store(column->values + o);
    }
}

template <typename V>
EW_INLINE void store_column(const ConvFinish& finish, const ConvStretch& stretch, const Column& column) {
    uint8_t* y = stretch.y + column.pixel * 4;
    if (finish.y == EW_F32) {
        for (int64_t o = 0; o < column.outputs; ++o, y += stretch.y_plane) {
            const float value = column.values[o];
            const float floor = value > finish.alpha ? value : finish.alpha;
            *reinterpret_cast<float*>(y) = !(finish.direct && finish.clamps) ? value
                                           : floor < finish.beta             ? floor
                                                                             : finish.beta;
        }
        return;
    }
    int32_t bytes[Column::kMost] = {};
    const V low = V::all(static_cast<float>(finish.low)), high = V::all(static_cast<float>(finish.high));
    for (int64_t o = 0; o < column.outputs; o += V::kLanes) {
        V value = V::load(column.values + o);
        if (!finish.direct)
            value = round(value * V::all(finish.y_inverse_scale)) + V::all(static_cast<float>(finish.y_zero_point));
        min(high, max(value, low)).to_int().store(bytes + o);
    }
    for (int64_t o = 0; o < column.outputs; o += 4, y += stretch.y_plane) {
        for (int i = 0; i < 4; ++i) y[i] = static_cast<uint8_t>(bytes[o + i]);
    }
}

template <typename Op>
EW_ONCE void finish_columns(const ConvFinish& finish, const float* sums, int64_t row, int64_t first_pixel, int64_t pixels,
                            const ConvStretch& stretch) {
    using V = typename Op::Float;
    Column column;
    column.outputs = std::min(row, stretch.outputs);
    for (int64_t p = 0; p < pixels; ++p) {
        column.pixel = first_pixel + p;
        for (int64_t o = 0; o < row; o += V::kLanes) {
            fma(V::load(sums + p * row + o), V::load(stretch.scale + o), V::load(stretch.bias + o)).store(column.values + o);
        }
        const bool first = finish.residual_first || finish.direct;  // the clamp of direct is done on the bytes
        if (finish.rounds && first) round_column<V>(finish, &column);
        if (stretch.residual && first) add_column(finish, stretch, &column);
        if (!finish.direct) activate_column<V>(finish, &column);
        for (int64_t o = 0; stretch.factor_at > 0 && o < column.outputs; ++o) column.values[o] *= stretch.factor(o);
        if (finish.rounds && !first) round_column<V>(finish, &column);
        if (stretch.residual && !first) add_column(finish, stretch, &column);
        store_column<V>(finish, stretch, column);
    }
}

template <typename Op, int kPixels, int kLines>
void line_pixels(int64_t pixels, const ConvBlock& block, float* to) {
    if (pixels == kPixels) return line_block<Op, kPixels, kLines>(block, to);
    if constexpr (kPixels > 1) line_pixels<Op, kPixels - 1, kLines>(pixels, block, to);
}

// kLines lines at once, kPixels at most.
template <typename Op, int kPixels, int kLines>
void lines_of(const ConvFinish& finish, const ConvBlock& block, const ConvStretch& stretch) {
    constexpr int64_t kRow = kLines * kLine;
    alignas(64) float sums[kPixels * kRow];
    for (int64_t p = 0; p < stretch.pixels; p += kPixels) {
        const int64_t pixels = std::min<int64_t>(kPixels, stretch.pixels - p);
        ConvBlock part = block;
        part.x += p * 4;
        line_pixels<Op, kPixels, kLines>(pixels, part, sums);
        finish_columns<EndsOf<Op>>(finish, sums, kRow, p, pixels, stretch);
    }
}

template <typename Op, int kPixels, int kLines>
EW_INLINE void next_lines(const ConvFinish& finish, ConvBlock& block, ConvStretch& rest) {
    lines_of<Op, kPixels, kLines>(finish, block, rest);
    block.w += kLines * block.line_bytes;
    if constexpr (kShiftsX<Op>) block.begins += kLines * kLine;
    if (kTakesOrder<Op> && block.order) block.order += kLines * block.order_bytes;
    rest.advance(finish, kLines * kLine);
}

// Several lines at once hide how long a multiply-add takes, where registers are enough for the sums of all pixels.
template <typename Op>
void all_lines(const ConvFinish& finish, const ConvBlock& block, const ConvStretch& stretch) {
    ConvBlock part = block;
    ConvStretch rest = stretch;
    if constexpr (Op::kLines > 1) {
        const bool several = Op::kWideColumns == Op::kColumns || stretch.pixels <= Op::kWideColumns;
        while (several && rest.outputs > (Op::kLines - 1) * kLine) next_lines<Op, Op::kWideColumns, Op::kLines>(finish, part, rest);
    }
    while (rest.outputs > 0) next_lines<Op, Op::kColumns, 1>(finish, part, rest);
}

}  // namespace
}  // namespace ew
