// The loops that multiply, over an Op of one instruction set and one dtype. Included by each instruction set's file.
//
// Beside what conv_finish.h asks for, an Op has
//   using X, W: an operand as the instructions want it, of pixels' values and of weights;
//   static X load_x(const uint8_t*) (a vector of pixels), X broadcast_x(const uint8_t*); W load_w, broadcast_w likewise;
//   static Sum zero(), Sum multiply_add(Sum, X, W), void store_sum(uint8_t*, Sum).
#pragma once

#include <algorithm>

#include "conv_finish.h"

namespace ew {
namespace {

template <typename Op, int kVectors, int kOutputs>
EW_INLINE void step(typename Op::Sum (&sums)[kOutputs][kVectors], const uint8_t* x, const uint8_t* w) {
    typename Op::X values[kVectors];
#pragma GCC unroll 8
    for (int t = 0; t < kVectors; ++t) values[t] = Op::load_x(x + t * Op::kLanes * 4);
#pragma GCC unroll 8
    for (int o = 0; o < kOutputs; ++o) {
        const typename Op::W weight = Op::broadcast_w(w + o * 4);
#pragma GCC unroll 8
        for (int t = 0; t < kVectors; ++t) sums[o][t] = Op::multiply_add(sums[o][t], values[t], weight);
    }
}

template <typename Op, int kVectors, int kOutputs>
EW_INLINE void clear(typename Op::Sum (&sums)[kOutputs][kVectors]) {
    for (auto& row : sums) {
        for (auto& sum : row) sum = Op::zero();
    }
}

template <typename Op, int kVectors, int kOutputs>
EW_INLINE void keep(const typename Op::Sum (&sums)[kOutputs][kVectors], void* to) {
    auto* bytes = static_cast<uint8_t*>(to);
    for (int o = 0; o < kOutputs; ++o) {
        for (int t = 0; t < kVectors; ++t) Op::store_sum(bytes + (o * kVectors + t) * Op::kLanes * 4, sums[o][t]);
    }
}

// kOutputs sums (a multiple of 4) in registers, to the end.
template <typename Op, int kVectors, int kOutputs>
EW_INLINE void finish_sums(const ConvFinish& finish, const ConvBlock& block, const typename Op::Sum (&sums)[kOutputs][kVectors],
                           const ConvStretch& stretch) {
    using V = typename Op::Float;
    ConvStretch quad = stretch;
    if (!finish.direct) keep<Op>(sums, block.sums);
#pragma GCC unroll 4
    for (int first = 0; first < kOutputs; first += 4) {
        if (finish.direct) {
#pragma GCC unroll 8
            for (int t = 0; t < kVectors; ++t) {
                V v[4];
                for (int o = 0; o < 4; ++o) v[o] = fma(Op::to_float(sums[first + o][t]), V::all(quad.scale[o]), V::all(quad.bias[o]));
                if (quad.residual) add_residual<Op>(finish, quad, t * V::kLanes, v);
                store_direct<Op>(finish, quad, t * V::kLanes, v);
            }
        } else {
            finish_block<Op>(finish, block.sums + first * kVectors * Op::kLanes * 4, kVectors * Op::kLanes, quad);
        }
        if (first + 4 < kOutputs) quad.advance(finish, 4);
    }
}

// kOutputs outputs from the start of a part of a line on.
template <typename Op, int kVectors, int kOutputs>
EW_INLINE void dense_block(const ConvFinish& finish, const ConvBlock& block, const uint8_t* w, const ConvStretch& stretch) {
    typename Op::Sum sums[kOutputs][kVectors];
    clear<Op>(sums);
    const uint8_t* x = block.x;
    for (int64_t e = 0; e < block.entries; ++e, x += block.x_stride, w += kLineBytes) step<Op>(sums, x, w);
    finish_sums<Op>(finish, block, sums, stretch);
}

// As many outputs at once as there are registers for sums, so that few vectors of pixels are not loaded again and again.
template <typename Op, int kVectors>
void dense_tile(const ConvFinish& finish, const ConvBlock& block, const ConvStretch& stretch) {
    constexpr int kWide = Op::wide(kVectors);
    ConvStretch rest = stretch;
    for (int64_t done = 0; done < stretch.outputs;) {
        const uint8_t* w = block.w + done / kLine * block.line_bytes + done % kLine * 4;
        if (kWide > 4 && rest.outputs > kWide - 4) {
            dense_block<Op, kVectors, kWide>(finish, block, w, rest);
            done += kWide;
            rest.advance(finish, kWide);
        } else {
            dense_block<Op, kVectors, 4>(finish, block, w, rest);
            done += 4;
            rest.advance(finish, 4);
        }
    }
}

// One list of entries.
template <typename Op, int kVectors, int kOutputs>
EW_INLINE void sparse_sums(const ConvBlock& block, int64_t which, typename Op::Sum (&sums)[kOutputs][kVectors]) {
    clear<Op>(sums);
    const int64_t begin = block.start[which], end = block.start[which + 1];
    const uint8_t* w = block.w + begin * kOutputs * 4;
    for (int64_t e = begin; e < end; ++e, w += kOutputs * 4) step<Op>(sums, block.x + block.index[e] * block.x_stride, w);
}

template <typename Op, int kVectors, int kOutputs>
void sparse_tile(const ConvFinish& finish, const ConvBlock& block, const ConvStretch& stretch) {
    constexpr int64_t kRow = kVectors * Op::kLanes;
    ConvStretch rest = stretch;
    for (int64_t which = 0; rest.outputs > 0; rest.advance(finish, 4)) {
        if constexpr (kOutputs == 4) {
            typename Op::Sum sums[4][kVectors];
            sparse_sums<Op>(block, which++, sums);
            finish_sums<Op>(finish, block, sums, rest);
        } else {
            for (int64_t o = 0; o < 4 && o < rest.outputs; o += kOutputs) {
                typename Op::Sum sums[kOutputs][kVectors];
                sparse_sums<Op>(block, which++, sums);
                keep<Op>(sums, block.sums + o * kRow * 4);
            }
            finish_block<Op>(finish, block.sums, kRow, rest);
        }
    }
}

// kPixels pixels times kLines lines of outputs.
template <typename Op, int kPixels, int kLines>
void line_block(const ConvBlock& block, uint8_t* to) {
    constexpr int kParts = kLines * kLine / Op::kLanes;
    typename Op::Sum sums[kPixels][kParts];
    clear<Op>(sums);
    const uint8_t *x = block.x, *w = block.w;
    for (int64_t e = 0; e < block.entries; ++e, x += block.x_stride, w += kLineBytes) {
        typename Op::W weights[kParts];
#pragma GCC unroll 8
        for (int l = 0; l < kParts; ++l) {
            const int lane = l * Op::kLanes;
            weights[l] = Op::load_w(w + lane / kLine * block.line_bytes + lane % kLine * 4);
        }
#pragma GCC unroll 8
        for (int p = 0; p < kPixels; ++p) {
            const typename Op::X value = Op::broadcast_x(x + p * 4);
#pragma GCC unroll 8
            for (int l = 0; l < kParts; ++l) sums[p][l] = Op::multiply_add(sums[p][l], value, weights[l]);
        }
    }
    keep<Op>(sums, to);
}

}  // namespace
}  // namespace ew
