// The loops that multiply, over an Op of one instruction set and one dtype. Included by each instruction set's file.
//
// Beside what conv_finish.h asks for, an Op has
//   using X, W: an operand as the instructions want it, of pixels' values and of weights;
//   static X load_x(const uint8_t*) (a vector of pixels), X broadcast_x(const uint8_t*); W load_w, broadcast_w likewise;
//   static Sum zero(), Sum add(Sum, Sum), Sum multiply_add(Sum, X, W), void store_sum(uint8_t*, Sum).
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
#pragma GCC unroll 16
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

// kOutputs sums (a multiple of 4) in registers, to the end; there may be fewer outputs.
template <typename Op, int kVectors, int kOutputs>
EW_INLINE void finish_sums(const ConvFinish& finish, const ConvBlock& block, const typename Op::Sum (&sums)[kOutputs][kVectors],
                           const ConvStretch& stretch) {
    using V = typename Op::Float;
    ConvStretch quad = stretch;
    // A residual is much code, for which registers would be too few.
    const bool direct = finish.direct && !stretch.residual;
    if (!direct) keep<Op>(sums, block.sums);
#pragma GCC unroll 4
    for (int first = 0; first < kOutputs; first += 4) {
        if (first > 0 && quad.outputs <= 0) return;
        if (direct) {
#pragma GCC unroll 8
            for (int t = 0; t < kVectors; ++t) {
                V v[4];
                for (int o = 0; o < 4; ++o)
                    v[o] = fma(Op::to_float(sums[first + o][t]), V::all(quad.scale[o]), V::all(quad.bias[o]));
                store_direct<Op>(finish, quad, t * V::kLanes, v);
            }
        } else {
            finish_block<Op>(finish, block.sums + first * kVectors * Op::kLanes * 4, kVectors * Op::kLanes, quad);
        }
        if (first + 4 < kOutputs) quad.advance(finish, 4);
    }
}

template <typename Op, int kVectors, int kOutputs>
EW_INLINE void load_sums(typename Op::Sum (&sums)[kOutputs][kVectors], const uint8_t* from) {
#pragma GCC unroll 16
    for (int o = 0; o < kOutputs; ++o) {
#pragma GCC unroll 8
        for (int t = 0; t < kVectors; ++t) sums[o][t] = Op::load_sum(from + (o * kVectors + t) * Op::kLanes * 4);
    }
}

// kOutputs outputs from the start of a part of a line on.
template <typename Op, int kVectors, int kOutputs>
EW_INLINE void dense_block(const ConvFinish& finish, const ConvBlock& block, const uint8_t* w, uint8_t* partial,
                           const ConvStretch& stretch) {
    typename Op::Sum sums[kOutputs][kVectors];
    if (block.resumes) load_sums<Op>(sums, partial);
    else clear<Op>(sums);
    const uint8_t* x = block.x;
    for (int64_t e = 0; e < block.entries; ++e, x += block.x_stride, w += kLineBytes) {
        __builtin_prefetch(w + block.line_bytes);  // the next line's: the processor itself does not look beyond a page
        step<Op>(sums, x, w);
    }
    if (block.ends) finish_sums<Op>(finish, block, sums, stretch);
    else keep<Op>(sums, partial);
}

// As many outputs at once as there are registers for sums, so that few vectors of pixels are not loaded again and again. Lines
// are whole: beyond the last output there are zeros.
template <typename Op, int kVectors>
void dense_tile(const ConvFinish& finish, const ConvBlock& block, const ConvStretch& stretch) {
    constexpr int kWide = Op::wide(kVectors);
    ConvStretch rest = stretch;
    for (int64_t done = 0; done < stretch.outputs; done += kWide, rest.advance(finish, kWide)) {
        const uint8_t* w = block.w + done / kLine * block.line_bytes + done % kLine * 4;
        dense_block<Op, kVectors, kWide>(finish, block, w, block.partial + done * kVectors * Op::kLanes * 4, rest);
    }
}

template <typename Op, int kVectors, int kOutputs>
EW_INLINE void sparse_step(const ConvBlock& block, int64_t at, typename Op::Sum (&sums)[kOutputs][kVectors]) {
    __builtin_prefetch(block.w + at * kOutputs * 4 + 1024);  // a network's weights come from memory at each run
    step<Op>(sums, block.x + block.index[at] * block.x_stride, block.w + at * kOutputs * 4);
}

// Adds one list of entries. Where sums are few, a second set of them hides how long a multiply-add takes.
template <typename Op, int kVectors, int kOutputs>
EW_INLINE void sparse_sums(const ConvBlock& block, int64_t e, int64_t end, typename Op::Sum (&sums)[kOutputs][kVectors]) {
    if constexpr (kOutputs * kVectors <= 8) {
        typename Op::Sum others[kOutputs][kVectors];
        clear<Op>(others);
        for (; e + 1 < end; e += 2) {
            sparse_step<Op>(block, e, sums);
            sparse_step<Op>(block, e + 1, others);
        }
#pragma GCC unroll 8
        for (int i = 0; i < kOutputs * kVectors; ++i) {
            sums[i / kVectors][i % kVectors] = Op::add(sums[i / kVectors][i % kVectors], others[i / kVectors][i % kVectors]);
        }
    }
    for (; e < end; ++e) sparse_step<Op>(block, e, sums);
}

// Four outputs from the lists that begin at `start`, each of kOutputs. Rows are copied, not referred to: they are registers.
template <typename Op, int kVectors, int kOutputs>
EW_INLINE void sparse_quad(const ConvBlock& block, const int32_t* start, int64_t outputs,
                           typename Op::Sum (&sums)[4][kVectors]) {
#pragma GCC unroll 4
    for (int o = 0; o < 4; o += kOutputs) {
        if (o >= outputs) return;
        typename Op::Sum some[kOutputs][kVectors];
#pragma GCC unroll 32
        for (int i = 0; i < kOutputs * kVectors; ++i) some[i / kVectors][i % kVectors] = sums[o + i / kVectors][i % kVectors];
        sparse_sums<Op>(block, start[o / kOutputs], start[o / kOutputs + 1], some);
#pragma GCC unroll 32
        for (int i = 0; i < kOutputs * kVectors; ++i) sums[o + i / kVectors][i % kVectors] = some[i / kVectors][i % kVectors];
    }
}

// Entries come in parts, each of which stays in the first cache; between parts the sums are in memory.
template <typename Op, int kVectors, int kOutputs>
void sparse_tile(const ConvFinish& finish, const ConvBlock& block, const ConvStretch& stretch) {
    constexpr int64_t kQuadBytes = 4 * kVectors * Op::kLanes * 4;
    for (int64_t part = 0; part < block.parts; ++part) {
        const int32_t* start = block.start + part * block.part_blocks;
        uint8_t* partial = block.partial;
        ConvStretch rest = stretch;
        for (; rest.outputs > 0; rest.advance(finish, 4), start += 4 / kOutputs, partial += kQuadBytes) {
            typename Op::Sum sums[4][kVectors];
            if (part == 0) clear<Op>(sums);
            else load_sums<Op>(sums, partial);
            sparse_quad<Op, kVectors, kOutputs>(block, start, rest.outputs, sums);
            if (part + 1 < block.parts) {
                keep<Op>(sums, partial);
            } else if (kOutputs == 4) {
                finish_sums<Op>(finish, block, sums, rest);
            } else {  // it counts for less here, and is much code
                keep<Op>(sums, block.sums);
                finish_block<Op>(finish, block.sums, kVectors * Op::kLanes, rest);
            }
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
