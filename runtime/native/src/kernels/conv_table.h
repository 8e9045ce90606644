// The functions of a ConvKernel from an Op. Included by each instruction set's file, last.
#pragma once

#include "conv_lines.h"

namespace ew {
namespace {

template <typename Op, int kVectors = Op::kVectors>
void dense_of(const ConvFinish& finish, const ConvBlock& block, const ConvStretch& stretch) {
    if (block.vectors == kVectors) return dense_tile<Op, kVectors>(finish, block, stretch);
    if constexpr (kVectors > 1) dense_of<Op, kVectors - 1>(finish, block, stretch);
}

template <typename Op, int kVectors = Op::kVectors>
void sparse_of(const ConvFinish& finish, const ConvBlock& block, const ConvStretch& stretch) {
    if (block.vectors != kVectors) {
        if constexpr (kVectors > 1) sparse_of<Op, kVectors - 1>(finish, block, stretch);
        return;
    }
    if (block.outputs == 4) return sparse_tile<Op, kVectors, 4>(finish, block, stretch);
    if (block.outputs == 2) return sparse_tile<Op, kVectors, 2>(finish, block, stretch);
    sparse_tile<Op, kVectors, 1>(finish, block, stretch);
}

template <typename Op>
constexpr ConvKernel kernel_of(const char* name, void (*pack)(const ConvPack&), void (*fill)(const ConvTile&)) {
    return {name, Op::kLanes, Op::kVectors, Op::kSpare, dense_of<Op>, sparse_of<Op>, all_lines<Op>, finish_block<Op>, pack,
            fill, nullptr};
}

}  // namespace
}  // namespace ew
