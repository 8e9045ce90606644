// The functions of a ConvKernel from an Op. Included by each instruction set's file, last.
#pragma once

#include "conv_lines.h"

namespace ew {
namespace {

template <typename Op, int kVectors = Op::kVectors>
void dense_of(int64_t vectors, const ConvBlock& block) {
    if (vectors == kVectors) return dense_block<Op, kVectors>(block);
    if constexpr (kVectors > 1) dense_of<Op, kVectors - 1>(vectors, block);
}

template <typename Op, int kVectors = Op::kVectors>
void sparse_of(int64_t vectors, int64_t outputs, const ConvBlock& block) {
    if (vectors != kVectors) {
        if constexpr (kVectors > 1) sparse_of<Op, kVectors - 1>(vectors, outputs, block);
        return;
    }
    if (outputs == 4) return sparse_block<Op, kVectors, 4>(block);
    if (outputs == 2) return sparse_block<Op, kVectors, 2>(block);
    sparse_block<Op, kVectors, 1>(block);
}

template <typename Op>
constexpr ConvKernel kernel_of(const char* name, void (*pack)(const ConvPack&)) {
    return {name, Op::kLanes, Op::kVectors, Op::kSpare, dense_of<Op>, sparse_of<Op>, finish_block<Op>, all_lines<Op>, pack};
}

}  // namespace
}  // namespace ew
