// The loops that multiply, over an Op of one instruction set and one dtype. Included by each instruction set's file.
//
// Beside what conv_finish.h asks for, an Op has
//   using X, W: an operand as the instructions want it, of pixels' values and of weights;
//   static X load_x(const uint8_t*) (a vector of pixels), X broadcast_x(const uint8_t*); W load_w, broadcast_w likewise;
//   using Sum; static Sum zero(), Sum add(Sum, Sum), Sum multiply_add(Sum, X, W), void store_sum(uint8_t*, Sum), Sum load_sum(const uint8_t*),
//     Float to_float(Sum);
//   int kSpreads: lists of at most so many outputs take four weights at once, by W load_four(const uint8_t*), W spread<which>(W);
//   bool kPairs: lists of one and two outputs end in registers, by using Pair (two channels in 16 bits), Pair pair(Float, Float),
//     and store_pairs() as store_bytes().
// Where two entries' products are added before they are widened, it has kOrders = true and Sum multiply_pair(Sum, X, X, W, W).
// Where an instruction takes one of four lanes of weights for all pixels, it has kByLane = true, W load_weights<kOutputs>(from), which
// reads no byte behind 1, 2 or 4 of them, and Sum multiply_lane<kLane>(Sum, X, W). Where tiles hold x less 128, it has kShifts = true,
// and sums begin with ConvBlock::begins.
#pragma once

#include <algorithm>
#include <utility>

#include "conv_finish.h"

namespace ew {
namespace {

template <typename Op, typename = void>
constexpr bool kTakesLane = false;
template <typename Op>
constexpr bool kTakesLane<Op, decltype(void(Op::kByLane))> = Op::kByLane;
template <typename Op, typename = void>
constexpr bool kShiftsX = false;
template <typename Op>
constexpr bool kShiftsX<Op, decltype(void(Op::kShifts))> = Op::kShifts;

template <typename Op, typename = void>
constexpr bool kTakesOrder = false;
template <typename Op>
constexpr bool kTakesOrder<Op, decltype(void(Op::kOrders))> = Op::kOrders;

template <typename Op, int kVectors, int kLane>
EW_INLINE void step_lane(typename Op::Sum (&sums)[kVectors], const typename Op::X (&values)[kVectors], typename Op::W weights) {
#pragma GCC unroll 8
    for (int t = 0; t < kVectors; ++t) sums[t] = Op::template multiply_lane<kLane>(sums[t], values[t], weights);
}

template <typename Op, int kVectors, int kOutputs, int... kLane>
EW_INLINE void step_lanes(typename Op::Sum (&sums)[kOutputs][kVectors], const typename Op::X (&values)[kVectors], const uint8_t* w,
                          std::integer_sequence<int, kLane...>) {
    constexpr int kLanes = sizeof...(kLane);
#pragma GCC unroll 4
    for (int o = 0; o < kOutputs; o += kLanes) {
        const typename Op::W weights = Op::template load_weights<kLanes>(w + o * 4);
        (step_lane<Op, kVectors, kLane>(sums[o + kLane], values, weights), ...);
    }
}

template <typename Op, int kVectors, int kOutputs>
EW_INLINE void step(typename Op::Sum (&sums)[kOutputs][kVectors], const uint8_t* x, const uint8_t* w) {
    typename Op::X values[kVectors];
#pragma GCC unroll 8
    for (int t = 0; t < kVectors; ++t) values[t] = Op::load_x(x + t * Op::kLanes * 4);
    if constexpr (kTakesLane<Op>) {
        step_lanes<Op>(sums, values, w, std::make_integer_sequence<int, (kOutputs < 4 ? kOutputs : 4)>());
    } else {
#pragma GCC unroll 16
        for (int o = 0; o < kOutputs; ++o) {
            const typename Op::W weight = Op::broadcast_w(w + o * 4);
#pragma GCC unroll 8
            for (int t = 0; t < kVectors; ++t) sums[o][t] = Op::multiply_add(sums[o][t], values[t], weight);
        }
    }
}

// Two entries at once.
template <typename Op, int kVectors, int kOutputs>
EW_INLINE void pair_step(typename Op::Sum (&sums)[kOutputs][kVectors], const uint8_t* x, const uint8_t* other_x, const uint8_t* w) {
    typename Op::X values[kVectors], others[kVectors];
#pragma GCC unroll 8
    for (int t = 0; t < kVectors; ++t)
        values[t] = Op::load_x(x + t * Op::kLanes * 4), others[t] = Op::load_x(other_x + t * Op::kLanes * 4);
#pragma GCC unroll 16
    for (int o = 0; o < kOutputs; ++o) {
        const typename Op::W weight = Op::broadcast_w(w + o * 4), other = Op::broadcast_w(w + kLineBytes + o * 4);
#pragma GCC unroll 8
        for (int t = 0; t < kVectors; ++t) sums[o][t] = Op::multiply_pair(sums[o][t], values[t], others[t], weight, other);
    }
}

template <typename Op, int kVectors, int kOutputs>
EW_INLINE void clear(typename Op::Sum (&sums)[kOutputs][kVectors]) {
    for (auto& row : sums) {
        for (auto& sum : row) sum = Op::zero();
    }
}

// What sums of outputs from `first` on begin with.
template <typename Op, int kVectors, int kOutputs>
EW_INLINE void begin_sums(const ConvBlock& block, int64_t first, typename Op::Sum (&sums)[kOutputs][kVectors]) {
    if constexpr (kShiftsX<Op>) {
#pragma GCC unroll 16
        for (int o = 0; o < kOutputs; ++o) {
            for (auto& sum : sums[o]) sum = Op::all(block.begins[first + o]);
        }
    } else {
        clear<Op>(sums);
    }
}

template <typename Op, int kVectors, int kOutputs>
EW_INLINE void keep(const typename Op::Sum (&sums)[kOutputs][kVectors], void* to) {
    auto* bytes = static_cast<uint8_t*>(to);
    for (int o = 0; o < kOutputs; ++o) {
        for (int t = 0; t < kVectors; ++t) Op::store_sum(bytes + (o * kVectors + t) * Op::kLanes * 4, sums[o][t]);
    }
}

// For the end: it takes float32.
template <typename Op, int kVectors, int kOutputs>
EW_INLINE void keep_floats(const typename Op::Sum (&sums)[kOutputs][kVectors], float* to) {
    for (int o = 0; o < kOutputs; ++o) {
        for (int t = 0; t < kVectors; ++t) Op::to_float(sums[o][t]).store(to + (o * kVectors + t) * Op::kLanes);
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
    if (!direct) keep_floats<Op>(sums, block.sums);
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
            finish_block<EndsOf<Op>>(finish, block.sums + first * kVectors * Op::kLanes, kVectors * Op::kLanes, quad);
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

// Pairs of entries, then the others; a line that comes later is fetched for kApart of them.
template <typename Op, int64_t kApart, int kVectors, int kOutputs>
EW_INLINE void add_in_order(const ConvBlock& block, const uint8_t* w, const uint8_t* ahead, typename Op::Sum (&sums)[kOutputs][kVectors]) {
    const uint8_t* entry = block.order + 1;
    const int64_t pairs = *block.order;
    for (int64_t left = pairs; left > 0; left -= kApart / 2, ahead += kLineBytes) {
        __builtin_prefetch(ahead);
        for (int64_t pair = std::min(left, kApart / 2); pair > 0; --pair, entry += 2, w += 2 * kLineBytes)
            pair_step<Op>(sums, block.x + entry[0] * block.x_stride, block.x + entry[1] * block.x_stride, w);
    }
    for (int64_t left = block.entries - 2 * pairs; left > 0; left -= kApart, ahead += kLineBytes) {
        __builtin_prefetch(ahead);
        for (int64_t e = std::min(left, kApart); e > 0; --e, ++entry, w += kLineBytes) step<Op>(sums, block.x + *entry * block.x_stride, w);
    }
}

// kOutputs outputs, of all `first` and on, from the start of a part of a line on.
template <typename Op, int kVectors, int kOutputs>
EW_INLINE void dense_block(const ConvFinish& finish, const ConvBlock& block, const uint8_t* w, const uint8_t* ahead, uint8_t* partial,
                           int64_t first, const ConvStretch& stretch) {
    typename Op::Sum sums[kOutputs][kVectors];
    if (block.resumes) load_sums<Op>(sums, partial);
    else begin_sums<Op>(block, first, sums);
    const uint8_t* x = block.x;
    // Lines that come later are fetched, one for kApart entries: the processor itself does not look beyond a page.
    constexpr int64_t kApart = Op::kChunk > 0 ? kLine / kOutputs : 1;
    if (kTakesOrder<Op> && block.order) {
        if constexpr (kTakesOrder<Op>) add_in_order<Op, kApart>(block, w, ahead, sums);
    } else {
        for (int64_t left = block.entries; left > 0; left -= kApart, ahead += kLineBytes) {
            __builtin_prefetch(ahead);
            for (int64_t e = std::min(left, kApart); e > 0; --e, x += block.x_stride, w += kLineBytes) step<Op>(sums, x, w);
        }
    }
    if (block.ends) finish_sums<Op>(finish, block, sums, stretch);
    else keep<Op>(sums, partial);
}

// What the ends read and write, kBytes of each plane, before the sums are there.
template <int kOutputs, int kBytes>
EW_INLINE void fetch_ends(const ConvFinish& finish, const ConvStretch& stretch) {
    for (int64_t plane = 0; plane < (finish.y == EW_F32 ? kOutputs : kOutputs / 4); ++plane) {
        for (int64_t at = 0; at < kBytes; at += 64) __builtin_prefetch(stretch.y + plane * stretch.y_plane + at, 1);
    }
    if (!stretch.residual) return;
    for (int64_t plane = 0; plane < (finish.residual == EW_F32 ? kOutputs : kOutputs / 4); ++plane) {
        for (int64_t at = 0; at < kBytes; at += 64) __builtin_prefetch(stretch.residual + plane * stretch.residual_plane + at);
    }
}

// A line's outputs, some entries at a time, so that pixels and weights are in the first cache until all of them have met. Between
// these the sums are in `partial`.
template <typename Op, int kVectors>
EW_INLINE void dense_line(const ConvFinish& finish, const ConvBlock& block, uint8_t* partial, int64_t first,
                          const ConvStretch& stretch) {
    constexpr int kWide = Op::wide(kVectors);
    ConvBlock part = block;
    int64_t left = block.entries;
    do {
        part.entries = std::min<int64_t>(left, Op::kChunk);
        left -= part.entries;
        part.ends = block.ends && left == 0;
        ConvStretch rest = stretch;
        for (int64_t o = 0; o < kLine && rest.outputs > 0; o += kWide, rest.advance(finish, kWide)) {
            if (part.ends) fetch_ends<kWide, kVectors * Op::kLanes * 4>(finish, rest);
            uint8_t* sums = partial + o * kVectors * Op::kLanes * 4;
            const uint8_t* ahead = part.w + (part.entries + o * part.entries / kLine) * kLineBytes;
            dense_block<Op, kVectors, kWide>(finish, part, part.w + o * 4, ahead, sums, first + o, rest);
        }
        part.resumes = true;
        part.x += part.entries * block.x_stride, part.w += part.entries * kLineBytes;
        if (kTakesOrder<Op> && block.order) part.order += part.entries + 1;
    } while (left > 0);
}

// As many outputs at once as there are registers for sums, so that few vectors of pixels are not loaded again and again. Lines
// are whole: beyond the last output there are zeros.
template <typename Op, int kVectors>
void dense_tile(const ConvFinish& finish, const ConvBlock& block, const ConvStretch& stretch) {
    constexpr int kWide = Op::kChunk > 0 ? kLine : Op::wide(kVectors);
    alignas(64) uint8_t kept[Op::kChunk > 0 ? kLine * kVectors * Op::kLanes * 4 : 1];
    ConvBlock line = block;
    ConvStretch rest = stretch;
    for (int64_t done = 0; done < stretch.outputs; done += kWide, rest.advance(finish, kWide)) {
        uint8_t* partial = block.partial + done * kVectors * Op::kLanes * 4;
        line.w = block.w + done / kLine * block.line_bytes + done % kLine * 4;
        if (kTakesOrder<Op> && block.order) line.order = block.order + done / kLine * block.order_bytes;
        if constexpr (Op::kChunk > 0) {
            dense_line<Op, kVectors>(finish, line, block.resumes || !block.ends ? partial : kept, done, rest);
        } else {
            dense_block<Op, kVectors, kWide>(finish, block, line.w, line.w + block.line_bytes, partial, done, rest);
        }
    }
}

// A network's weights come from memory at each run, and the processor's own fetching ends at each page.
template <int kOutputs>
EW_INLINE void fetch(const ConvBlock& block, int64_t at) {
    __builtin_prefetch(block.w + at * kOutputs * 4 + 1024);
    __builtin_prefetch(block.index + at + 256 / kOutputs);
}

// A vector of pixels times kOutputs weights that are there already.
template <typename Op, int kVectors, int kOutputs>
EW_INLINE void spread_step(typename Op::Sum (&sums)[kOutputs][kVectors], const uint8_t* x,
                           const typename Op::W (&weights)[kOutputs]) {
#pragma GCC unroll 8
    for (int t = 0; t < kVectors; ++t) {
        const typename Op::X value = Op::load_x(x + t * Op::kLanes * 4);
#pragma GCC unroll 2
        for (int o = 0; o < kOutputs; ++o) sums[o][t] = Op::multiply_add(sums[o][t], value, weights[o]);
    }
}

template <typename Op, int kVectors, int kOutputs>
EW_INLINE void sparse_step(const ConvBlock& block, int64_t at, typename Op::Sum (&sums)[kOutputs][kVectors]) {
    fetch<kOutputs>(block, at);
    step<Op>(sums, block.x + block.index[at] * block.x_stride, block.w + at * kOutputs * 4);
}

// Two entries: their indexes are one load.
template <typename Op, int kVectors, int kOutputs>
EW_INLINE void sparse_pair(const ConvBlock& block, int64_t at, const typename Op::W (&weights)[2][kOutputs],
                           typename Op::Sum (&sums)[kOutputs][kVectors], typename Op::Sum (&others)[kOutputs][kVectors]) {
    uint64_t both;
    std::memcpy(&both, block.index + at, 8);
    spread_step<Op>(sums, block.x + static_cast<int64_t>(both & 0xffffffffu) * block.x_stride, weights[0]);
    spread_step<Op>(others, block.x + static_cast<int64_t>(both >> 32) * block.x_stride, weights[1]);
}

// Lists of one and two outputs are bound by loads: four weights are one, and are spread in registers. Returns where it ended.
template <typename Op, int kVectors, int kOutputs>
EW_INLINE int64_t sparse_fours(const ConvBlock& block, int64_t e, int64_t end, typename Op::Sum (&sums)[kOutputs][kVectors],
                               typename Op::Sum (&others)[kOutputs][kVectors]) {
    constexpr int64_t kEntries = 4 / kOutputs;
    for (; e + kEntries <= end; e += kEntries) {
        if (kOutputs > 1) fetch<kOutputs>(block, e);
        const typename Op::W four = Op::load_four(block.w + e * kOutputs * 4);
        if constexpr (kOutputs == 2) {
            const typename Op::W weights[2][2] = {{Op::template spread<0>(four), Op::template spread<1>(four)},
                                                  {Op::template spread<2>(four), Op::template spread<3>(four)}};
            sparse_pair<Op>(block, e, weights, sums, others);
        } else {
            const typename Op::W first[2][1] = {{Op::template spread<0>(four)}, {Op::template spread<1>(four)}};
            const typename Op::W second[2][1] = {{Op::template spread<2>(four)}, {Op::template spread<3>(four)}};
            sparse_pair<Op>(block, e, first, sums, others);
            sparse_pair<Op>(block, e + 2, second, sums, others);
        }
    }
    return e;
}

// Adds one list of entries. Where sums are few, a second set of them hides how long a multiply-add takes.
template <typename Op, int kVectors, int kOutputs>
EW_INLINE void sparse_sums(const ConvBlock& block, int64_t e, int64_t end, typename Op::Sum (&sums)[kOutputs][kVectors]) {
    if constexpr (kOutputs * kVectors <= (kOutputs == 1 ? 6 : 8)) {
        typename Op::Sum others[kOutputs][kVectors];
        clear<Op>(others);
        if constexpr (kOutputs <= Op::kSpreads) {
            e = sparse_fours<Op>(block, e, end, sums, others);
        } else {
            for (; e + 1 < end; e += 2) {
                sparse_step<Op>(block, e, sums);
                sparse_step<Op>(block, e + 1, others);
            }
        }
#pragma GCC unroll 8
        for (int i = 0; i < kOutputs * kVectors; ++i) {
            sums[i / kVectors][i % kVectors] = Op::add(sums[i / kVectors][i % kVectors], others[i / kVectors][i % kVectors]);
        }
    } else if constexpr (kOutputs <= Op::kSpreads) {
        e = sparse_fours<Op>(block, e, end, sums, sums);
    }
#pragma GCC unroll 1
    for (; e < end; ++e) sparse_step<Op>(block, e, sums);
}

// Lists of four outputs. Entries come in parts, each of which stays in the first cache; between parts the sums are in memory.
template <typename Op, int kVectors>
void quad_tile(const ConvFinish& finish, const ConvBlock& block, const ConvStretch& stretch) {
    constexpr int64_t kQuadBytes = 4 * kVectors * Op::kLanes * 4;
    for (int64_t part = 0; part < block.parts; ++part) {
        const int32_t* start = block.start + part * block.part_blocks;
        uint8_t* partial = block.partial;
        ConvStretch rest = stretch;
        for (; rest.outputs > 0; rest.advance(finish, 4), ++start, partial += kQuadBytes) {
            typename Op::Sum sums[4][kVectors];
            if (part == 0) begin_sums<Op>(block, stretch.outputs - rest.outputs, sums);
            else load_sums<Op>(sums, partial);
            sparse_sums<Op>(block, start[0], start[1], sums);
            if (part + 1 < block.parts) keep<Op>(sums, partial);
            else finish_sums<Op>(finish, block, sums, rest);
        }
    }
}

// Sums of `kOutputs` outputs from output `o` on (of all: `first` + `o`), from their list in this part on top of those of the parts before.
template <typename Op, int kVectors, int kOutputs>
EW_INLINE void list_sums(const ConvBlock& block, const int32_t* start, int64_t first, int64_t outputs, int64_t o, const uint8_t* partial,
                         typename Op::Sum (&sums)[kOutputs][kVectors]) {
    if (partial) load_sums<Op>(sums, partial + o * kVectors * Op::kLanes * 4);
    else begin_sums<Op>(block, first + o, sums);
    if (o >= outputs) return;
    const int64_t begin = start[o / kOutputs], end = start[o / kOutputs + 1];
    if (kOutputs == 1 && Op::kSpreads > 0) {  // ahead of the list, one for a line: each fetch takes a load's place
        for (int64_t e = begin; e < end; e += 16) fetch<kOutputs>(block, e);
    }
    sparse_sums<Op>(block, begin, end, sums);
}

// Four outputs in bytes: one list, or two, at a time, whose outputs lie side by side in 16 bits until all are there.
template <typename Op, int kVectors, int kOutputs>
EW_INLINE void list_quad(const ConvFinish& finish, const ConvBlock& block, const int32_t* start, int64_t first,
                         const ConvStretch& stretch, const uint8_t* partial) {
    using V = typename Op::Float;
    typename Op::Pair pairs[2][kVectors];
#pragma GCC unroll 1
    for (int64_t o = 0; o < 4; o += 2) {
        V v[2][kVectors];
#pragma GCC unroll 2
        for (int done = 0; done < 2; done += kOutputs) {
            typename Op::Sum sums[kOutputs][kVectors];
            list_sums<Op>(block, start, first, stretch.outputs, o + done, partial, sums);
#pragma GCC unroll 16
            for (int i = 0; i < kOutputs * kVectors; ++i) {
                const int row = i / kVectors, t = i % kVectors;
                const int64_t output = o + done + row;
                v[done + row][t] = fma(Op::to_float(sums[row][t]), V::all(stretch.scale[output]), V::all(stretch.bias[output]));
            }
        }
#pragma GCC unroll 8
        for (int t = 0; t < kVectors; ++t) pairs[o / 2][t] = Op::pair(v[0][t], v[1][t]);
    }
#pragma GCC unroll 8
    for (int64_t t = 0; t < kVectors; ++t) {
        const int64_t at = t * Op::kLanes;
        Op::template store_pairs<true>(stretch.y + at * 4, pairs[0][t], pairs[1][t], finish, stretch.pixels - at);
    }
}

// Lists of one or two outputs, each brought near its end before the next one: so few sums at once leave registers for more
// vectors.
template <typename Op, int kVectors, int kOutputs>
void list_tile(const ConvFinish& finish, const ConvBlock& block, const ConvStretch& stretch) {
    constexpr int64_t kBytes = kVectors * Op::kLanes * 4;
    const bool direct = finish.direct && finish.y != EW_F32 && !stretch.residual;
    for (int64_t part = 0; part < block.parts; ++part) {
        const int32_t* start = block.start + part * block.part_blocks;
        uint8_t* partial = block.partial;
        const bool ends = part + 1 == block.parts;
        ConvStretch rest = stretch;
        for (; rest.outputs > 0; rest.advance(finish, 4), start += 4 / kOutputs, partial += 4 * kBytes) {
            const uint8_t* before = part == 0 ? nullptr : partial;
            const int64_t first = stretch.outputs - rest.outputs;
            if constexpr (Op::kPairs) {
                if (ends && direct) {
                    list_quad<Op, kVectors, kOutputs>(finish, block, start, first, rest, before);
                    continue;
                }
            }
#pragma GCC unroll 1
            for (int64_t o = 0; o < 4; o += kOutputs) {
                typename Op::Sum sums[kOutputs][kVectors];
                list_sums<Op>(block, start, first, rest.outputs, o, before, sums);
                if (ends) keep_floats<Op>(sums, block.sums + o * kVectors * Op::kLanes);
                else keep<Op>(sums, partial + o * kBytes);
            }
            if (ends) finish_block<EndsOf<Op>>(finish, block.sums, kVectors * Op::kLanes, rest);
        }
    }
}

// kPixels pixels times a line of outputs, pairs of entries first.
template <typename Op, int kPixels>
EW_INLINE void ordered_line(const ConvBlock& block, const uint8_t* w, const uint8_t* order, float* to, int64_t row) {
    constexpr int kParts = kLine / Op::kLanes;
    typename Op::Sum sums[kPixels][kParts];
    clear<Op>(sums);
    const uint8_t* x = block.x;
    for (int64_t left = block.entries; left > 0; left -= kOrderEntries, x += kOrderEntries * block.x_stride) {
        const int64_t count = std::min(left, kOrderEntries);
        const uint8_t *paired = order + 1 + 2 * *order, *end = order + 1 + count;
        for (++order; order < paired; order += 2, w += 2 * kLineBytes) {
            typename Op::W weights[kParts], others[kParts];
#pragma GCC unroll 2
            for (int l = 0; l < kParts; ++l)
                weights[l] = Op::load_w(w + l * Op::kLanes * 4), others[l] = Op::load_w(w + kLineBytes + l * Op::kLanes * 4);
#pragma GCC unroll 4
            for (int p = 0; p < kPixels; ++p) {
                const typename Op::X value = Op::broadcast_x(x + order[0] * block.x_stride + p * 4);
                const typename Op::X other = Op::broadcast_x(x + order[1] * block.x_stride + p * 4);
#pragma GCC unroll 2
                for (int l = 0; l < kParts; ++l) sums[p][l] = Op::multiply_pair(sums[p][l], value, other, weights[l], others[l]);
            }
        }
        for (; order < end; ++order, w += kLineBytes) {
#pragma GCC unroll 4
            for (int p = 0; p < kPixels; ++p) {
                const typename Op::X value = Op::broadcast_x(x + *order * block.x_stride + p * 4);
#pragma GCC unroll 2
                for (int l = 0; l < kParts; ++l) sums[p][l] = Op::multiply_add(sums[p][l], value, Op::load_w(w + l * Op::kLanes * 4));
            }
        }
    }
    for (int p = 0; p < kPixels; ++p) {
        for (int l = 0; l < kParts; ++l) Op::to_float(sums[p][l]).store(to + p * row + l * Op::kLanes);
    }
}

// kPixels pixels times kLines lines of outputs.
template <typename Op, int kPixels, int kLines>
void line_block(const ConvBlock& block, float* to) {
    constexpr int kParts = kLines * kLine / Op::kLanes;
    if constexpr (kTakesOrder<Op>) {
        for (int64_t l = 0; block.order && l < kLines; ++l)
            ordered_line<Op, kPixels>(block, block.w + l * block.line_bytes, block.order + l * block.order_bytes, to + l * kLine, kLines * kLine);
        if (block.order) return;
    }
    typename Op::Sum sums[kPixels][kParts];
    if constexpr (kShiftsX<Op>) {
        for (auto& pixel : sums) {
            for (int l = 0; l < kParts; ++l) pixel[l] = Op::load_begins(block.begins + l * Op::kLanes);
        }
    } else {
        clear<Op>(sums);
    }
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
    keep_floats<Op>(sums, to);
}

}  // namespace
}  // namespace ew
