// What computes rows of outputs (conv_rows.h) over an instruction set's Op. Included by each one's file.
//
// An Op has
//   int kLines: of outputs at once, 1 or 2;
//   void block<kLines>(row, window, w, float (&sums)[kLines][kRowPixels][kLine]): a block of pixels times so many lines;
//   void finish(finish, stretch, line, sums): of a line, to the end; pixels of y are all kRowPixels;
//   void copy_sixteen(from, mask, to): pixels whose bits are set, else zero.
#pragma once

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

template <typename Op, int kLines>
EW_ONCE void row_lines(const ConvFinish& finish, const ConvRow& row, const Window& window, int64_t line, const ConvStretch& stretch) {
    alignas(64) float sums[kLines][kPixels][kLine];
    Op::template block<kLines>(row, window, row.w + line * row.line_bytes, sums);
#pragma GCC unroll 1
    for (int l = 0; l < kLines; ++l) Op::finish(finish, stretch, line + l, sums[l]);
}

// The columns from `column` on that a block meets, with zeros where x has none.
template <typename Op>
Window copy_window(const ConvRow& row, int64_t column, uint8_t* to) {
    const int64_t before = std::clamp<int64_t>(-column, 0, kWindowColumns), behind = std::clamp<int64_t>(row.in_columns - column, 0, kWindowColumns);
    const uint64_t there = ((uint64_t{1} << behind) - 1) & ~((uint64_t{1} << before) - 1);
    const Window window{to, row.rows * kWindowColumns * 4, kWindowColumns * 4};
    for (int64_t plane = 0; plane < row.planes; ++plane) {
        const uint8_t* x = row.x + plane * row.x_plane + column * 4;
        for (int64_t r = 0; r < row.rows; ++r, x += row.x_row) {
#pragma GCC unroll 3
            for (int i = 0; i < kWindowColumns / 16; ++i, to += 64) Op::copy_sixteen(x + i * 64, static_cast<uint32_t>(there >> (i * 16)) & 0xffff, to);
        }
    }
    return window;
}

// Blocks of pixels, of which the last may overlap the one before it.
template <typename Op>
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
        return copy_window<Op>(row_, column, slot_at(slot));
    }

private:
    uint8_t* slot_at(int slot) const { return row_.windows + slot * row_.planes * row_.rows * kWindowColumns * 4; }

    const ConvRow& row_;
    int64_t pixels_, count_;
    int64_t kept_[2] = {-1, -1};
};

template <typename Op, int kLines>
void row_of_lines(const ConvFinish& finish, const ConvRow& row, Blocks<Op>& blocks, int64_t line, const ConvStretch& given) {
    for (int64_t block = 0; block < blocks.count(); ++block) {
        ConvStretch stretch = given;
        stretch.y += blocks.pixel(block) * 4;
        row_lines<Op, kLines>(finish, row, blocks.window(block), line, stretch);
    }
}

// Lines outside, blocks inside: the planes of y that are written in turns must not be too many for the first cache, for planes that are
// a multiple of 1 KiB apart fall into few of its lines.
template <typename Op>
void conv_row(const ConvFinish& finish, const ConvRow& row, const ConvStretch& stretch) {
    const int64_t lines = (stretch.outputs + kLine - 1) / kLine;
    Blocks<Op> blocks(row, stretch.pixels);
    int64_t line = 0;
    for (; line + Op::kLines <= lines; line += Op::kLines) row_of_lines<Op, Op::kLines>(finish, row, blocks, line, stretch);
    if (line < lines) row_of_lines<Op, 1>(finish, row, blocks, line, stretch);
}

}  // namespace
}  // namespace ew
