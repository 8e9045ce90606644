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

template <typename Op, int kVectors>
void dense_block(const ConvBlock& block) {
    typename Op::Sum sums[4][kVectors];
    clear<Op>(sums);
    const uint8_t *x = block.x, *w = block.w;
    for (int64_t e = 0; e < block.entries; ++e, x += block.x_stride, w += kLineBytes) step<Op>(sums, x, w);
    keep<Op>(sums, block.sums);
}

template <typename Op, int kVectors, int kOutputs>
void sparse_block(const ConvBlock& block) {
    typename Op::Sum sums[kOutputs][kVectors];
    clear<Op>(sums);
    const uint8_t* w = block.w;
    for (int64_t e = 0; e < block.entries; ++e, w += kOutputs * 4) step<Op>(sums, block.x + block.index[e] * block.x_stride, w);
    keep<Op>(sums, block.sums);
}

// kPixels pixels times kLines lines of outputs.
template <typename Op, int kPixels, int kLines>
void line_block(const ConvBlock& block, int64_t line_bytes, uint8_t* to) {
    constexpr int kParts = kLines * kLine / Op::kLanes;
    typename Op::Sum sums[kPixels][kParts];
    clear<Op>(sums);
    const uint8_t *x = block.x, *w = block.w;
    for (int64_t e = 0; e < block.entries; ++e, x += block.x_stride, w += kLineBytes) {
        typename Op::W weights[kParts];
#pragma GCC unroll 8
        for (int l = 0; l < kParts; ++l) {
            const int lane = l * Op::kLanes;
            weights[l] = Op::load_w(w + lane / kLine * line_bytes + lane % kLine * 4);
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
