// The functions of a DynamicKernel from an Op of 8 bits (conv_block.h). Included by each instruction set's file, last.
//
// Sums become float32 at the end of each group, and what becomes of these is what the ConvKernel of float32 does.
#pragma once

#include "conv_block.h"
#include "dynamic.h"
#include "vectors_bytes.h"

namespace ew {
namespace {

constexpr float kDynamicSteps = 255, kLeastDynamicScale = 1e-30f;  // as in quantize/passes/quantize_at_run.py

// Tiles hold bytes less 128 (as those that ConvKernel::fill makes).
template <typename Op, typename = void>
constexpr bool kHoldsShifted = false;
template <typename Op>
constexpr bool kHoldsShifted<Op, decltype(void(Op::kHoldsShifted))> = Op::kHoldsShifted;

// One group of a vector of pixels.
template <typename Op>
EW_INLINE void round_group(const DynamicRounding& r, int64_t at, int64_t group) {
    using V = typename Op::Float;
    using Int = typename V::Int;
    const float* x = r.x + group * r.group * r.x_plane + at;
    const int64_t some = r.pixels - at;
    V least = V::all(0.0f), most = least;
    for (int64_t p = 0; p < r.group; ++p) {
        const V value = V::load_some(x + p * r.x_plane, some);
        least = min(value, least), most = max(value, most);
    }
    const V scale = max((most - least) / V::all(kDynamicSteps), V::all(kLeastDynamicScale));
    const V zero = round((V::all(0.0f) - least) / scale), low = V::all(0.0f), high = V::all(kDynamicSteps);
    scale.store(r.scales + group * r.width + at);
    (scale * (V::all(kShiftsX<Op> ? 128.0f : 0.0f) - zero)).store(r.shifts + group * r.width + at);
    const int64_t entries = (r.group + 3) / 4;
    auto* to = reinterpret_cast<float*>(r.tile) + group * entries * r.width + at;
    for (int64_t e = 0; e < entries; ++e, to += r.width) {
        Int bytes[4];
        for (int64_t i = 0; i < 4; ++i) {
            const V value = e * 4 + i < r.group ? V::load_some(x + (e * 4 + i) * r.x_plane, some) : V::all(0.0f);
            bytes[i] = min(max(round(value / scale) + zero, low), high).to_int();
        }
        Int four = pack4<V>(bytes[0], bytes[1], bytes[2], bytes[3]);
        if constexpr (kHoldsShifted<Op>) four = four ^ Int::all(static_cast<int32_t>(0x80808080));
        V::from_bits(four).store(to);
    }
}

template <typename Op>
void round_rows(const DynamicRounding& r) {
    for (int64_t at = 0; at < r.width; at += Op::Float::kLanes) {
        for (int64_t group = 0; group * r.group < r.planes; ++group) round_group<Op>(r, at, group);
    }
}

// The sums of one group onto what there is of those before it.
template <typename V>
EW_INLINE V with_group(V sum, V x_scale, V x_shift, V w_scale, V w_sum, V total) {
    return fma(sum * x_scale, w_scale, fma(x_shift, w_sum, total));
}

template <typename Op, int kVectors>
void dynamic_tile(const ConvFinish& finish, const DynamicBlock& block, const ConvStretch& stretch, const ConvKernel& floats) {
    using V = typename Op::Float;
    constexpr int kOutputs = Op::wide(kVectors) < 16 ? 4 : 8;  // of registers that hold two sums
    constexpr int64_t kRow = kVectors * V::kLanes;
    alignas(64) float sums_out[kOutputs * kRow];
    const int64_t line_bytes = block.groups * block.entries * kLineBytes, line_terms = block.groups * 2 * kLine;
    ConvStretch rest = stretch;
    for (int64_t done = 0; done < stretch.outputs; done += kOutputs) {
        const uint8_t *x = block.x, *w = block.w + done / kLine * line_bytes + done % kLine * 4;
        const float* terms = block.terms + done / kLine * line_terms + done % kLine;
        V totals[kOutputs][kVectors];
        for (auto& row : totals) {
            for (V& total : row) total = V::all(0.0f);
        }
        for (int64_t group = 0; group < block.groups; ++group, terms += 2 * kLine) {
            typename Op::Sum sums[kOutputs][kVectors];
            clear<Op>(sums);
            for (int64_t e = 0; e < block.entries; ++e, x += block.width * 4, w += kLineBytes) {
                __builtin_prefetch(w + line_bytes);
                step<Op>(sums, x, w);
            }
            const float *scales = block.scales + group * block.width, *shifts = block.shifts + group * block.width;
#pragma GCC unroll 8
            for (int t = 0; t < kVectors; ++t) {
                const V scale = V::load(scales + t * V::kLanes), shift = V::load(shifts + t * V::kLanes);
#pragma GCC unroll 8
                for (int o = 0; o < kOutputs; ++o) {
                    totals[o][t] = with_group(Op::to_float(sums[o][t]), scale, shift, V::all(terms[o]), V::all(terms[kLine + o]), totals[o][t]);
                }
            }
        }
        for (int o = 0; o < kOutputs; ++o) {
            for (int t = 0; t < kVectors; ++t) totals[o][t].store(sums_out + o * kRow + t * V::kLanes);
        }
        for (int o = 0; o < kOutputs && rest.outputs > 0; o += 4, rest.advance(finish, 4)) floats.finish(finish, sums_out + o * kRow, kRow, rest);
    }
}

// One pixel times kLines lines of outputs.
template <typename Op, int kLines>
void dynamic_line(const DynamicBlock& block, int64_t pixel, float* to) {
    using V = typename Op::Float;
    constexpr int kParts = kLines * kLine / V::kLanes;
    const int64_t line_bytes = block.groups * block.entries * kLineBytes, line_terms = block.groups * 2 * kLine;
    V totals[kParts];
    for (V& total : totals) total = V::all(0.0f);
    const uint8_t *x = block.x + pixel * 4, *w = block.w;
    for (int64_t group = 0; group < block.groups; ++group) {
        typename Op::Sum sums[1][kParts];
        clear<Op>(sums);
        for (int64_t e = 0; e < block.entries; ++e, x += block.width * 4, w += kLineBytes) {
            const typename Op::X value = Op::broadcast_x(x);
#pragma GCC unroll 8
            for (int l = 0; l < kParts; ++l) {
                const int lane = l * V::kLanes;
                sums[0][l] = Op::multiply_add(sums[0][l], value, Op::load_w(w + lane / kLine * line_bytes + lane % kLine * 4));
            }
        }
        const int64_t at = group * block.width + pixel;
        const V scale = V::all(block.scales[at]), shift = V::all(block.shifts[at]);
#pragma GCC unroll 8
        for (int l = 0; l < kParts; ++l) {
            const int lane = l * V::kLanes;
            const float* terms = block.terms + lane / kLine * line_terms + group * 2 * kLine + lane % kLine;
            totals[l] = with_group(Op::to_float(sums[0][l]), scale, shift, V::load(terms), V::load(terms + kLine), totals[l]);
        }
    }
    for (int l = 0; l < kParts; ++l) totals[l].store(to + l * V::kLanes);
}

// As many lines at once as hide how long a product takes.
template <typename Op, const ConvKernel& kFloats>
void dynamic_lines(const ConvFinish& finish, const DynamicBlock& block, const ConvStretch& stretch) {
    constexpr int kMost = 4 * Op::Float::kLanes / kLine > 1 ? 4 * Op::Float::kLanes / kLine : 1;
    alignas(64) float sums[kMost * kLine];
    DynamicBlock part = block;
    ConvStretch rest = stretch;
    while (rest.outputs > 0) {
        const int64_t lines = rest.outputs > (kMost - 1) * kLine ? kMost : 1;
        for (int64_t p = 0; p < stretch.pixels; ++p) {
            if (lines == kMost) dynamic_line<Op, kMost>(part, p, sums);
            else dynamic_line<Op, 1>(part, p, sums);
            kFloats.finish_columns(finish, sums, lines * kLine, p, 1, rest);
        }
        part.w += lines * block.groups * block.entries * kLineBytes;
        part.terms += lines * block.groups * 2 * kLine;
        rest.advance(finish, lines * kLine);
    }
}

// Vectors of a tile: beside its sums there are those of the groups before.
template <typename Op>
constexpr int kDynamicVectors = Op::kVectors < 4 ? Op::kVectors : 4;

template <typename Op, const ConvKernel& kFloats>
void dynamic_dense(const ConvFinish& finish, const DynamicBlock& block, const ConvStretch& stretch) {
    constexpr int kMost = kDynamicVectors<Op>;
    if (block.width == kMost * Op::kLanes) dynamic_tile<Op, kMost>(finish, block, stretch, kFloats);
    else if constexpr (kMost > 1) dynamic_tile<Op, 1>(finish, block, stretch, kFloats);
}

template <typename Op, const ConvKernel& kFloats>
constexpr DynamicKernel dynamic_kernel_of(const char* name) {
    DynamicKernel kernel{name, Op::kLanes, kDynamicVectors<Op>, Op::kSpare, round_rows<Op>, dynamic_dense<Op, kFloats>, nullptr};
    if constexpr (Op::kSpare > 0) kernel.lines = dynamic_lines<Op, kFloats>;
    return kernel;
}

}  // namespace
}  // namespace ew
