// Convolution, fully connected layers and token-wise linear layers, dense and block-sparse, in 8 bits and float32.
//
// Inputs: x, weights, scale, bias, residual, index, start (or an index alone, in bytes: the order of dense weights' entries,
// conv_order.h), terms (of float32 weights in codes of weight_bits, 4 or 8: kernels/vectors.h says what they stand for; weight_block entries share their terms). Weights in bfloat16 lie as pairs of planes, and
// x is rounded to bfloat16 too. See kernels/conv.h for how it is computed and
// targets/cpu/native/packing.py for the packed weights.
#include <algorithm>

#include "../kernels/vectors.h"
#include "conv_begins.h"
#include "conv_finish.h"
#include "conv_order.h"
#include "conv_rows.h"
#include "conv_tile.h"
#include "conv_tiling.h"
#include "strips.h"

namespace ew {
namespace {

constexpr int64_t kMostEntries = int64_t{1} << 31;
constexpr int64_t kLeastCycles = 16000;  // that are worth handing to other threads
constexpr int64_t kPieceCycles = 4000;   // that are worth a piece of their own
constexpr int64_t kLinesAtOnce = 4;      // of spare pixels
constexpr int64_t kPartBytes = 384 * 1024;  // of a tile: what stays in the second cache beside weights
constexpr int64_t kTogetherBytes = 256 * 1024;  // of tiles that lie side by side in the second cache
constexpr int64_t kGroupBytes = 32 * 1024;  // of weights that meet all of them
constexpr int64_t kFewOutputs = 32;  // so few that a pointwise tile is not worth copying

// A tile of the kernel's, where its pixels are.
struct Placed {
    Tile tile;
    const uint8_t* x;
    int64_t x_stride;
};

// Of x: `bytes` from one to the next.
struct Planes {
    const uint8_t* x;
    int64_t count, bytes;
};

// Where a run reads its pixels, and how they are cut.
struct Source {
    const Strip& strip;
    const Tiling& tiling;
    int64_t first;  // of y's pixels
};

// What a thread's scratch holds.
struct Packed {
    int64_t item = -1, tile = -1;
};

class Conv final : public StripOperator {
public:
    Status prepare(Setup& setup) override { return prepare_rows(setup, 0); }

    Status prepare_strips(Setup& setup, int64_t rows) override {
        EW_TRY(prepare_rows(setup, rows));
        const bool whole = geometry_.pointwise && geometry_.out[0] == 1 && groups_ == 1;
        return whole ? Status() : setup.refuse("wants a pointwise layer of one group");
    }

    void run(const Run& run) override {
        if (geometry_.batch == 0) return;
        if (by_rows_) return rows_.run(run, finish_, scales_, scratch_bytes_);
        const Strip all{0, geometry_.batch, 0, geometry_.out[1], run.inputs[0]->data, geometry_.in_pixels * 4};
        run_tiles(run, {all, tiling_, 0});
    }

    void run_strip(const Run& run, const Strip& from) override {
        const int64_t pixels = from.rows * geometry_.out[2];
        run_tiles(run, {from, pixels == tiling_.pixels ? tiling_ : last_, from.first_row * geometry_.out[2]});
    }

private:
    static constexpr int64_t kSumsBytes = kLine * kMostPixels * 4, kPackedBytes = 64;

    // `rows`: of a strip; 0: there are none.
    Status prepare_rows(Setup& setup, int64_t rows) {
        const Tensor *x = setup.input(0), *weights = setup.input(1);
        if (!x || !weights || setup.output_count != 1) return setup.refuse("wants x and weights, and gives one output");
        const bool integer = x->dtype == EW_U8;
        if (!(integer && x->layout == Layout::kC4) && !(x->dtype == EW_F32 && x->layout == Layout::kPlain)) {
            return setup.refuse("wants x as plain float32 or u8 in C4");
        }
        EW_TRY(read_geometry(setup, *x, *setup.outputs[0], &geometry_));
        EW_TRY(read_groups(setup, *x));
        EW_TRY(read_weights(setup, *weights, integer));  // first: the file's size bounds the number of outputs
        EW_TRY(read_finish(setup, integer, entries_ * 4, &finish_, &scales_));
        has_residual_ = setup.input(4) != nullptr;
        const int64_t zero_point = setup.attributes.integer("x_zero_point", 0);
        if (zero_point < 0 || zero_point > 255) return setup.refuse("x_zero_point is out of range");
        fill_ = integer ? static_cast<uint32_t>(zero_point) * 0x01010101u : 0;
        if (!(brain_ && (kernel_ = brain_kernel(setup.isa)))) {
            kernel_ = &conv_kernel(setup.isa, integer, setup.attributes.integer("safe_pairs", 0) == 1);
            if (brain_) decode_brain(setup);
        }
        setup.kernel = kernel_->name;
        begins_.clear();
        natural_.clear();
        if (order_ && !kernel_->orders) {
            put_in_order(weights->data, order_, groups_ * lines_, entries_, &natural_);
            order_ = nullptr;
        }
        if (kAnyShifts && kernel_->shifts) add_begins(*weights);
        by_rows_ = weights->dtype == EW_F32 && !start_ && groups_ == 1 && rows_.prepare(setup, geometry_, finish_);
        if (by_rows_) return reserve_rows(setup);
        by_strips_ = rows > 0;
        tiling_ = tiling_of(by_strips_ ? std::min(rows, geometry_.out[1]) * geometry_.out[2] : geometry_.out_pixels);
        last_ = tiling_of(by_strips_ ? geometry_.out[1] % rows * geometry_.out[2] : 0);
        cut_planes();
        return reserve(setup);
    }

    // Work is counted in quarters of a vector of pixels times lines of outputs, so that threads get equal shares of it wherever
    // tiles begin. A thread packs each tile that it has a share in; once, if the tile does not come in parts. Packing comes first
    // in the count of a tile, so that who has no more than that of it has nothing of it.
    void run_tiles(const Run& run, const Source& source) const {
        const Tiling& tiling = source.tiling;
        int64_t per_group = 0;
        for (int64_t tile = 0; tile < tiling.count; ++tile) per_group += work_of(tiling, tile);
        const int64_t all = source.strip.samples * groups_ * per_group;
        const int32_t threads = run.pool.threads();
        for (int32_t thread = 0; thread < threads; ++thread) *packed_in(run.scratch + thread * scratch_bytes_) = Packed();
        run.pool.parallel(all, grain_for(tiling, all, threads), [&](int64_t begin, int64_t end, int32_t thread) {
            uint8_t* scratch = run.scratch + thread * scratch_bytes_;
            int64_t group = begin / per_group, at = begin % per_group, tile = 0;
            for (; at >= work_of(tiling, tile); ++tile) at -= work_of(tiling, tile);
            for (int64_t left = end - begin; left > 0; at = 0) {
                const int64_t stop = std::min(at + left, work_of(tiling, tile));
                compute(run, source, group, tile, lines_within(tiling, tile, at), lines_within(tiling, tile, stop), scratch);
                left -= stop - at;
                if (++tile == tiling.count) tile = 0, ++group;
            }
        });
    }

    Status read_groups(const Setup& setup, const Tensor& x) {
        groups_ = setup.attributes.integer("group", 1);
        const int64_t inputs = geometry_.in_channels, outputs = geometry_.out_channels;
        if (groups_ < 1 || (groups_ > 1 && (groups_ > outputs || inputs % groups_ != 0 || outputs % groups_ != 0))) {
            return setup.refuse("has channels that are no multiple of its groups");
        }
        const bool fours = x.dtype == EW_F32 || inputs / groups_ % 4 == 0;
        if (groups_ > 1 && (!fours || outputs / groups_ % 4 != 0))
            return setup.refuse("wants groups of whole blocks of four channels");
        planes_ = planes_of(x) / groups_;
        outputs_ = outputs / groups_;
        lines_ = (outputs_ + kLine - 1) / kLine;
        if (planes_ > kMostEntries / geometry_.positions) return setup.refuse("has too many weights");
        entries_ = planes_ * geometry_.positions;
        return {};
    }

    Status read_weights(const Setup& setup, const Tensor& weights, bool integer) {
        const Tensor *index = setup.input(5), *start = setup.input(6), *terms = setup.input(7);
        codes_ = {};
        decode_ = nullptr;
        index_ = start_ = nullptr;
        order_ = nullptr;
        brain_ = weights.dtype == EW_BF16 && !integer && !index && !start && !terms;
        if (terms) return read_codes(setup, weights, *terms, integer || index || start);
        const DType wanted = integer ? EW_S8 : brain_ ? EW_BF16 : EW_F32;
        if (!weights.constant || weights.dtype != wanted)
            return setup.refuse("wants constant weights of the dtype that fits x");
        if (!start && (!index || integer)) {
            const int64_t rows = groups_ * lines_, room = static_cast<int64_t>(weights.bytes) / kLineBytes;
            if (rows > 0 && stored_entries(planes_) > room / rows) return setup.refuse("has too few weights");
            if (index) EW_TRY(read_order(setup, *index, rows, entries_));
            order_ = index ? index->data : nullptr;
            return {};
        }
        if (!index || !start) return setup.refuse("wants both index and start for sparse weights");
        return read_sparse(setup, weights, *index, *start);
    }

    Status read_codes(const Setup& setup, const Tensor& weights, const Tensor& terms, bool other) {
        codes_.bits = setup.attributes.integer("weight_bits", 8);
        codes_.block = setup.attributes.integer("weight_block", 0);
        codes_.rows = entries_;
        const bool fits = weights.constant && weights.dtype == EW_U8 && terms.constant && terms.dtype == EW_F32;
        if (other || !fits) return setup.refuse("wants codes as constant uint8, their terms as float32, and no other weights");
        if ((codes_.bits != 4 && codes_.bits != 8) || codes_.block < 1) return setup.refuse("has codes of 4 or 8 bits in blocks");
        code_blocks_ = entries_ / codes_.block + (entries_ % codes_.block > 0);
        const int64_t rows = groups_ * lines_, count = terms.count() / (2 * kLine);
        const int64_t room = static_cast<int64_t>(weights.bytes) / kLine;
        if (rows > 0 && (code_rows() > room / rows || code_blocks_ > count / rows)) return setup.refuse("has too few weights");
        codes_.terms = terms.as<float>();
        decode_ = vector_kernels(setup.isa).decode;
        return {};
    }

    // Without an instruction for bfloat16.
    void decode_brain(const Setup& setup) {
        codes_.bits = 16;
        codes_.block = geometry_.positions;
        codes_.rows = entries_;
        code_blocks_ = 0;
        decode_ = vector_kernels(setup.isa).decode;
        round_ = vector_kernels(setup.isa).round_brain;
    }

    void add_begins(const Tensor& weights) {
        const auto* bytes = weights.as<int8_t>();
        if (start_) return sparse_begins({bytes, start_, groups_, parts_, group_blocks_, block_, outputs_}, &begins_);
        dense_begins({bytes, entries_, groups_, lines_, outputs_}, &begins_);
    }

    // Of so many planes, as they lie in the weights.
    int64_t stored_entries(int64_t planes) const { return (brain_ ? planes / 2 + planes % 2 : planes) * geometry_.positions; }

    // Of 16 bytes, of a line of outputs.
    int64_t code_rows() const {
        if (codes_.bits == 16) return stored_entries(planes_) * 4;
        return codes_.bits == 4 ? entries_ / 2 + entries_ % 2 : entries_;
    }

    Status read_sparse(const Setup& setup, const Tensor& weights, const Tensor& index, const Tensor& start) {
        block_ = setup.attributes.integer("outputs", 4);
        if (block_ != 1 && block_ != 2 && block_ != 4) return setup.refuse("has blocks of 1, 2 or 4 outputs");
        for (const Tensor* tensor : {&index, &start}) {
            if (!tensor->constant || tensor->dtype != EW_S32) return setup.refuse("wants index and start as constant int32");
        }
        parts_ = setup.attributes.integer("parts", 1);
        group_blocks_ = (outputs_ + block_ - 1) / block_;
        int64_t blocks = 0;
        if (parts_ < 1 || __builtin_mul_overflow(parts_, groups_ * group_blocks_, &blocks) || start.count() - 1 != blocks) {
            return setup.refuse("wants a start for each block of outputs in each part, and the end");
        }
        const int64_t room = std::min(static_cast<int64_t>(weights.bytes) / (4 * block_), index.count());
        const int32_t* at = start.as<int32_t>();
        for (int64_t b = 0; b <= blocks; ++b) {
            if (at[b] < (b == 0 ? 0 : at[b - 1]) || at[b] > room)
                return setup.refuse("has starts out of order or beyond its weights");
        }
        const int32_t* entries = index.as<int32_t>();
        for (int64_t i = 0; i < at[blocks]; ++i) {
            if (entries[i] < 0 || entries[i] >= entries_) return setup.refuse("has an index out of range");
        }
        index_ = entries;
        start_ = at;
        return {};
    }

    Tiling tiling_of(int64_t pixels) const {
        Tiling t;
        t.pixels = pixels, t.lanes = kernel_->lanes;
        const int64_t left = pixels % t.lanes;
        t.spare = !start_ && left <= kernel_->spare ? left : 0;
        t.vectors = (pixels - t.spare + t.lanes - 1) / t.lanes;
        const int64_t most = start_ ? kernel_->list_vectors[block_ / 2] : kernel_->vectors * tiles_together();
        t.whole = (t.vectors + most - 1) / most;
        t.count = t.whole + (t.spare > 0);
        return t;
    }

    // Weights that come from far away meet more pixels than a tile has.
    int64_t tiles_together() const {
        const int64_t tile_bytes = kernel_->vectors * kernel_->lanes * 4;
        return std::clamp<int64_t>(kTogetherBytes / tile_bytes / std::max<int64_t>(entries_, 1), 1, kernel_->together);
    }

    int64_t tiles_of(const Tile& tile) const {
        return start_ || tile.vectors == 0 ? 1 : (tile.vectors + kernel_->vectors - 1) / kernel_->vectors;
    }

    void cut_planes() {
        // Dense: the planes of a tile come in parts, so that one stays in the second cache until all outputs have met it.
        const int64_t plane_bytes = geometry_.positions * most_pixels() * 4;
        const int64_t fit = std::max<int64_t>(1, kPartBytes / plane_bytes), cuts = (planes_ + fit - 1) / fit;
        part_planes_ = start_ || decode_ ? planes_ : (planes_ + cuts - 1) / cuts;
        if (order_ && part_planes_ < planes_) part_planes_ = (part_planes_ + kOrderEntries - 1) / kOrderEntries * kOrderEntries;
        if (brain_ && part_planes_ < planes_) part_planes_ += part_planes_ % 2;
    }

    // What is handed out at once. About two cycles an entry are one unit of work; who takes a piece of another's tile packs it anew.
    int64_t grain_for(const Tiling& tiling, int64_t all, int32_t threads) const {
        const int64_t unit_cycles = 2 * std::max<int64_t>(entries_, 1);
        if (all < kLeastCycles / unit_cycles) return all;
        const int64_t grain = std::max<int64_t>({1, kPieceCycles / unit_cycles, packing_of(tiling, 0)});
        return part_planes_ < planes_ ? std::max(grain, (all + threads - 1) / threads) : grain;
    }

    int64_t most_pixels() const { return std::max(tiling_.most_pixels(), last_.most_pixels()); }

    Status reserve_rows(Setup& setup) {
        int64_t all = 0;
        scratch_bytes_ = rows_.windows_bytes();
        if (__builtin_mul_overflow(scratch_bytes_, int64_t{setup.threads}, &all)) return setup.refuse("needs too much memory");
        setup.scratch_bytes = static_cast<uint64_t>(all);
        return {};
    }

    Status reserve(Setup& setup) {
        int64_t bytes = 0;
        if (__builtin_mul_overflow(part_planes_ * geometry_.positions, most_pixels() * 4, &bytes))
            return setup.refuse("needs too much memory");
        bytes = std::max(bytes, entries_ * std::max(tiling_.spare_width(), last_.spare_width()) * 4);
        tile_bytes_ = (bytes + 63) / 64 * 64;
        int64_t partial = 0, all = 0;
        if ((parts_ > 1 || part_planes_ < planes_) && __builtin_mul_overflow(lines_ * kLineBytes, most_pixels(), &partial))
            return setup.refuse("needs too much memory");
        if (__builtin_add_overflow(tile_bytes_ + kSumsBytes + kPackedBytes, (partial + 63) / 64 * 64, &scratch_bytes_))
            return setup.refuse("needs too much memory");
        codes_at_ = scratch_bytes_ - kPackedBytes;  // what is packed stays last
        if (decode_ && __builtin_add_overflow(scratch_bytes_, entries_ * kLineBytes, &scratch_bytes_))
            return setup.refuse("needs too much memory");
        if (__builtin_mul_overflow(scratch_bytes_, int64_t{setup.threads}, &all)) return setup.refuse("needs too much memory");
        setup.scratch_bytes = static_cast<uint64_t>(all);
        return {};
    }

    // A vector of an entry takes some 4 cycles to pack, and 16 where its pixels lie apart.
    int64_t packing_of(const Tiling& t, int64_t tile) const {
        return (t.cost_of(tile) + 3) / 4 * (geometry_.stride[2] > 2 ? 8 : 2);
    }
    int64_t work_of(const Tiling& t, int64_t tile) const { return packing_of(t, tile) + lines_ * t.cost_of(tile); }

    // How many lines are done when so much of a tile's work is. Spare pixels take several lines at once.
    int64_t lines_within(const Tiling& t, int64_t tile, int64_t work) const {
        const int64_t lines = std::max<int64_t>(work - packing_of(t, tile), 0) / t.cost_of(tile);
        return tile == t.whole && lines < lines_ ? lines / kLinesAtOnce * kLinesAtOnce : lines;
    }

    Packed* packed_in(uint8_t* scratch) const { return reinterpret_cast<Packed*>(scratch + scratch_bytes_ - kPackedBytes); }

    // Some lines of outputs of one tile. The scratch holds the packed tile, then sums, then decoded weights, then which tile that is.
    void compute(const Run& run, const Source& source, int64_t item, int64_t which, int64_t first_line, int64_t last_line,
                 uint8_t* scratch) const {
        const Tile tile = source.tiling.at(which);
        const int64_t group = item % groups_, sample = source.strip.sample + item / groups_, plane_bytes = source.strip.plane_bytes;
        const int64_t first = first_line * kLine, last = std::min(outputs_, last_line * kLine);
        if (first >= last) return;
        ConvBlock block{};
        block.sums = reinterpret_cast<float*>(scratch + tile_bytes_);
        block.partial = scratch + tile_bytes_ + kSumsBytes;
        ConvStretch stretch = stretch_at(run, sample, group * outputs_ + first, source.first, tile);
        stretch.outputs = last - first;
        block.w = natural_.empty() ? run.inputs[1]->data : natural_.data();
        block.order_bytes = order_bytes(entries_);
        block.order = order_ ? order_ + (group * lines_ + first_line) * block.order_bytes : nullptr;
        if (kAnyShifts && kernel_->shifts) block.begins = begins_.data() + group * outputs_ + first;
        const Planes x{source.strip.data + item * planes_ * plane_bytes, planes_, plane_bytes};
        Packed* packed = packed_in(scratch);
        const bool again = packed->item == item && packed->tile == which && part_planes_ == planes_;
        *packed = {item, which};
        if (part_planes_ < planes_ && tile.vectors > 0) return compute_parts(x, tile, group * lines_ + first_line, block, stretch, scratch);
        Placed placed[kMostTogether];
        const int64_t count = tiles_of(tile);
        uint8_t* to = scratch;
        for (int64_t i = 0; i < count; ++i) {
            const Tile one = count > 1 ? tile.part(i, count, kernel_->lanes) : tile;
            placed[i] = place_x(x, one, again, to);
            to += entries_ * one.vectors * kernel_->lanes * 4;
        }
        if (start_) {
            block.vectors = tile.vectors, block.x = placed[0].x, block.x_stride = placed[0].x_stride;
            block.outputs = block_;
            block.index = index_;
            block.start = start_ + group * parts_ * group_blocks_ + first / block_;
            block.parts = parts_, block.part_blocks = group_blocks_;
            return kernel_->sparse(finish_, block, stretch);
        }
        block.ends = true;
        if (decode_) return compute_codes(run, group * lines_ + first_line, placed, count, block, stretch, scratch + codes_at_);
        block.entries = stored_entries(planes_);
        block.line_bytes = block.entries * kLineBytes;
        block.w += (group * lines_ + first_line) * block.line_bytes;
        const int64_t lines = count == 1 ? lines_ : std::max<int64_t>(1, kGroupBytes / std::max<int64_t>(block.line_bytes, 1));
        for (; stretch.outputs > 0; stretch.advance(finish_, lines * kLine), block.w += lines * block.line_bytes) {
            meet(placed, count, lines, block, stretch);
            if (kAnyShifts && kernel_->shifts) block.begins += lines * kLine;
            if (order_) block.order += lines * block.order_bytes;
        }
    }

    // Some lines of weights meet all tiles.
    void meet(const Placed* placed, int64_t count, int64_t lines, ConvBlock block, const ConvStretch& stretch) const {
        for (int64_t i = 0; i < count; ++i) {
            const Tile& tile = placed[i].tile;
            block.vectors = tile.vectors, block.x = placed[i].x, block.x_stride = placed[i].x_stride;
            ConvStretch some = stretch;
            some.outputs = std::min(stretch.outputs, lines * kLine);
            some.pixels = tile.pixels;
            const int64_t skipped = (tile.first - placed[0].tile.first) * 4;
            some.y += skipped;
            if (some.residual) some.residual += skipped;
            (tile.vectors == 0 ? kernel_->lines : kernel_->dense)(finish_, block, some);
        }
    }

    // A tile of so many entries that they come in parts, from `line` on.
    void compute_parts(const Planes& x, const Tile& tile, int64_t line, ConvBlock& block, const ConvStretch& stretch, uint8_t* scratch) const {
        block.vectors = tile.vectors;
        block.line_bytes = stored_entries(planes_) * kLineBytes;
        block.w += line * block.line_bytes;
        for (int64_t plane = 0; plane < planes_; plane += part_planes_) {
            const int64_t planes = std::min(part_planes_, planes_ - plane);
            const Placed placed = place_x({x.x + plane * x.bytes, planes, x.bytes}, tile, false, scratch);
            block.x = placed.x, block.x_stride = placed.x_stride;
            block.entries = stored_entries(planes);
            block.resumes = plane > 0, block.ends = plane + planes == planes_;
            kernel_->dense(finish_, block, stretch);
            block.w += block.entries * kLineBytes;
            if (order_) block.order += order_bytes(block.entries);
        }
    }

    // Weights in codes: a line at a time becomes float32, from `line` on.
    void compute_codes(const Run& run, int64_t line, const Placed* placed, int64_t count, ConvBlock& block, ConvStretch rest,
                       uint8_t* decoded) const {
        block.w = decoded;
        block.entries = entries_;
        for (; rest.outputs > 0; ++line, rest.advance(finish_, kLine)) {
            Codes codes = codes_;
            codes.data = run.inputs[1]->data + line * code_rows() * kLine;
            if (codes.terms) codes.terms += line * code_blocks_ * 2 * kLine;
            decode_(codes, reinterpret_cast<float*>(decoded));
            meet(placed, count, 1, block, rest);
        }
    }

    // `packed`: it is there already, at `to`.
    Placed place_x(const Planes& from, const Tile& tile, bool packed, uint8_t* to) const {
        const bool whole = tile.pixels == tile.vectors * kernel_->lanes || tile.vectors == 0;
        const bool ready = by_strips_ || (geometry_.pointwise && whole && outputs_ <= kFewOutputs);
        if (ready && !brain_ && !(kAnyShifts && kernel_->shifts)) return {tile, from.x + tile.first * 4, from.bytes};
        const int64_t width = tile.vectors > 0 ? tile.vectors * kernel_->lanes : (tile.pixels + 15) / 16 * 16;
        const Placed placed{tile, to, width * 4};
        if (packed) return placed;
        fill_tile(geometry_, *kernel_, {from.x, from.count, from.bytes, tile.first, tile.pixels, width, fill_, to});
        if (kernel_->pair) kernel_->pair(to, from.count, geometry_.positions, width * 4);
        else if (brain_) round_(reinterpret_cast<float*>(to), from.count * geometry_.positions * width);
        return placed;
    }

    // `first`: the pixel of y with which tiles begin.
    ConvStretch stretch_at(const Run& run, int64_t sample, int64_t output, int64_t first, const Tile& tile) const {
        const Tensor& y = *run.outputs[0];
        const int64_t plane = geometry_.out_pixels * 4, at = (first + tile.first) * 4;
        ConvStretch stretch{};
        stretch.pixels = tile.pixels;
        scales_.at(output, &stretch);
        stretch.y = y.data + (sample * planes_of(y) + (finish_.y == EW_F32 ? output : output / 4)) * plane + at;
        stretch.y_plane = stretch.residual_plane = plane;
        if (has_residual_) {
            const Tensor& from = *run.inputs[4];
            stretch.residual = from.data +
                               (sample * planes_of(from) + (finish_.residual == EW_F32 ? output : output / 4)) * plane + at;
        }
        return stretch;
    }

    ConvGeometry geometry_;
    ConvFinish finish_;
    ConvScales scales_;
    const ConvKernel* kernel_ = nullptr;
    const int32_t *index_ = nullptr, *start_ = nullptr;
    const uint8_t* order_ = nullptr;  // of the entries of dense weights
    std::vector<uint8_t> natural_;    // weights with entries as they come, where the kernel takes no order
    std::vector<int32_t> begins_;     // per output, where the kernel shifts x
    int64_t groups_ = 1, planes_ = 0, outputs_ = 0, lines_ = 0, entries_ = 0;  // all but the first: of a group
    int64_t block_ = 4, parts_ = 1, group_blocks_ = 0;  // sparse: outputs of a block, parts of the entries, blocks of a group
    Tiling tiling_, last_;  // last_: of a sample's last strip, where that has fewer rows
    Codes codes_;  // without data
    void (*decode_)(const Codes& codes, float* y) = nullptr;
    void (*round_)(float* x, int64_t count) = nullptr;
    int64_t code_blocks_ = 0, codes_at_ = 0;
    int64_t part_planes_ = 0, tile_bytes_ = 0, scratch_bytes_ = 0;
    uint32_t fill_ = 0;
    ConvRows rows_;
    bool has_residual_ = false, brain_ = false, by_rows_ = false, by_strips_ = false;
};

}  // namespace

Operator* make_conv() { return make_conv_by_strips(); }
StripOperator* make_conv_by_strips() { return new (std::nothrow) Conv; }

}  // namespace ew
