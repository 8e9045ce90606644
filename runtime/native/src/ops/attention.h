// What the two forms of `attention` share (attention.cpp: float32; attention_bytes.cpp: 8 bits).
#pragma once

#include "../kernels/vectors.h"
#include "checks.h"

namespace ew {

// q [B, heads * depth, Tq], k [B, heads * depth, Tk], v [B, heads * value depth, Tk], y [B, heads * value depth, Tq]; positions may
// have several axes. The mask (float32, optional) is added to the scores: [B or 1 or a divisor of B, heads or 1, Tq or 1, Tk or 1],
// or [.., Tk, Tq] with mask_transposed=1, which is read faster.
class AttentionShape {
public:
    Status read(const Setup& setup);
    // The softmax as counts of steps above its zero point, where it is of 8 bits: p_scale, p_zero_point (p_signed=1: of s8).
    Status read_steps(const Setup& setup);
    // Tiles of queries whose widths differ by at most a vector: `most` vectors of `lanes` at a time.
    void tile(int lanes, int most);

    int64_t batches = 0, heads = 1;
    Heads head;
    int64_t tiles = 0, width = 0;  // of queries; the widest

    // The first query of a tile; beyond the last one for the tile after it.
    int64_t begin(int64_t tile) const { return tile * vectors_ / tiles * lanes_; }
    int64_t items() const { return batches * heads * tiles; }
    // scores[key][lane] = mask for `some` queries from `first` on, 0 without a mask or beyond them.
    void start_scores(const Tensor* mask, int64_t batch, int64_t one_head, int64_t first, int64_t some, int64_t row, float* scores) const;

private:
    int64_t vectors_ = 0, lanes_ = 1;
    int64_t mask_dims_[4] = {1, 1, 1, 1};  // [B, heads, Tq, Tk]
    int64_t mask_strides_[4] = {};
};

// q, k and v are of 8 bits.
Operator* make_attention_bytes();

}  // namespace ew
