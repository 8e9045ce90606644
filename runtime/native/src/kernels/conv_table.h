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

// Vectors of a tile for lists of `outputs`. One output takes two sets of registers for its sums, or it waits for them.
template <typename Op>
constexpr int list_vectors(int outputs) {
    if (outputs == 4) return Op::kVectors;
    if (outputs <= Op::kSpreads) return 7;
    return outputs == 1 && Op::kVectors > 5 ? 5 : Op::kVectors;
}

template <typename Op, int kOutputs, int kVectors = list_vectors<Op>(kOutputs)>
void lists_of(const ConvFinish& finish, const ConvBlock& block, const ConvStretch& stretch) {
    if (block.vectors != kVectors) {
        if constexpr (kVectors > 1) lists_of<Op, kOutputs, kVectors - 1>(finish, block, stretch);
        return;
    }
    if constexpr (kOutputs == 4) quad_tile<Op, kVectors>(finish, block, stretch);
    else list_tile<Op, kVectors, kOutputs>(finish, block, stretch);
}

template <typename Op>
void sparse_of(const ConvFinish& finish, const ConvBlock& block, const ConvStretch& stretch) {
    if (block.outputs == 4) return lists_of<Op, 4>(finish, block, stretch);
    if (block.outputs == 2) return lists_of<Op, 2>(finish, block, stretch);
    lists_of<Op, 1>(finish, block, stretch);
}

template <typename Op>
constexpr ConvKernel kernel_of(const char* name, void (*pack)(const ConvPack&), void (*fill)(const ConvTile&)) {
    return {name, Op::kLanes, Op::kVectors, Op::kTogether, {list_vectors<Op>(1), list_vectors<Op>(2), list_vectors<Op>(4)}, Op::kSpare, dense_of<Op>, sparse_of<Op>, all_lines<Op>,
            finish_block<EndsOf<Op>>, finish_columns<EndsOf<Op>>, pack, fill, nullptr, kTakesOrder<Op>};
}

}  // namespace
}  // namespace ew
