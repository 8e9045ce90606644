#include "strided_copy.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace ew {
namespace {

constexpr int64_t kTile = 16;            // elements of a side of a tile that is transposed at once
constexpr int64_t kBytesPerPiece = 1 << 15;

template <typename T>
void copy_elements(const uint8_t* from, int64_t from_stride, uint8_t* to, int64_t to_stride, int64_t count) {
    if (to_stride == static_cast<int64_t>(sizeof(T)) && from_stride == 0) {
        T value;
        std::memcpy(&value, from, sizeof value);
        for (int64_t i = 0; i < count; ++i) std::memcpy(to + i * sizeof(T), &value, sizeof value);
        return;
    }
    for (int64_t i = 0; i < count; ++i) std::memcpy(to + i * to_stride, from + i * from_stride, sizeof(T));
}

// to[j][i] = from[i][j]: i runs along the target, j along the source.
template <typename T>
void copy_tile(const uint8_t* from, int64_t from_i, int64_t from_j, uint8_t* to, int64_t to_i, int64_t to_j, int64_t count_i, int64_t count_j) {
    for (int64_t begin = 0; begin < count_j; begin += kTile) {
        const int64_t end = std::min(begin + kTile, count_j);
        for (int64_t j = begin; j < end; ++j) copy_elements<T>(from + j * from_j, from_i, to + j * to_j, to_i, count_i);
    }
}

// A few bytes as two that overlap: cheaper than a call.
template <size_t kHalf>
void copy_overlapping(const uint8_t* from, uint8_t* to, size_t bytes) {
    uint8_t head[kHalf], tail[kHalf];
    std::memcpy(head, from, kHalf);
    std::memcpy(tail, from + bytes - kHalf, kHalf);
    std::memcpy(to, head, kHalf);
    std::memcpy(to + bytes - kHalf, tail, kHalf);
}

void copy_bytes(const uint8_t* from, uint8_t* to, size_t bytes) {
    if (bytes > 64 || bytes < 8) {
        std::memcpy(to, from, bytes);
    } else if (bytes > 32) {
        copy_overlapping<32>(from, to, bytes);
    } else if (bytes > 16) {
        copy_overlapping<16>(from, to, bytes);
    } else {
        copy_overlapping<8>(from, to, bytes);
    }
}

}  // namespace

void strides_of(int rank, const int64_t* dims, int64_t* strides) {
    int64_t stride = 1;
    for (int i = rank - 1; i >= 0; --i) {
        strides[i] = stride;
        stride *= dims[i];
    }
}

void StridedCopy::set(int rank, const int64_t* dims, const int64_t* from_strides, const int64_t* to_strides, size_t element) {
    const auto bytes = static_cast<int64_t>(element);
    rank_ = 0;
    block_ = bytes;
    kind_ = Kind::kNothing;
    for (int i = 0; i < rank; ++i) {
        if (dims[i] == 0) return;
        if (dims[i] > 1) axes_[rank_++] = {dims[i], from_strides[i] * bytes, to_strides[i] * bytes};
    }
    std::stable_sort(axes_, axes_ + rank_, [](const Axis& a, const Axis& b) { return std::llabs(a.to) > std::llabs(b.to); });
    merge();
    choose();
}

void StridedCopy::merge() {
    int kept = 0;
    for (int i = 0; i < rank_; ++i) {
        const Axis& next = axes_[i];
        Axis* last = kept > 0 ? &axes_[kept - 1] : nullptr;
        if (last && last->from == next.from * next.dim && last->to == next.to * next.dim) {
            *last = {last->dim * next.dim, next.from, next.to};
        } else {
            axes_[kept++] = next;
        }
    }
    rank_ = kept;
    if (rank_ > 0 && axes_[rank_ - 1].from == block_ && axes_[rank_ - 1].to == block_) block_ *= axes_[--rank_].dim;
}

void StridedCopy::choose() {
    const bool element = block_ == 1 || block_ == 2 || block_ == 4 || block_ == 8;
    inner_ = rank_ > 0 ? axes_[--rank_] : Axis{1, 0, 0};
    kind_ = element ? Kind::kElements : Kind::kRows;
    int64_t bytes = inner_.dim * block_;
    if (element && rank_ > 0 && std::llabs(inner_.from) > block_) {
        int best = 0;
        for (int i = 1; i < rank_; ++i) {
            if (std::llabs(axes_[i].from) < std::llabs(axes_[best].from)) best = i;
        }
        if (axes_[best].from != 0 && std::llabs(axes_[best].from) < std::llabs(inner_.from)) {
            kind_ = Kind::kTiles;
            across_ = axes_[best];
            std::copy(axes_ + best + 1, axes_ + rank_, axes_ + best);
            axes_[rank_ - 1] = {(inner_.dim + kTile - 1) / kTile, inner_.from * kTile, inner_.to * kTile};
            bytes = kTile * across_.dim * block_;
        }
    }
    items_ = 1;
    for (int i = 0; i < rank_; ++i) items_ *= axes_[i].dim;
    grain_ = std::max<int64_t>(1, kBytesPerPiece / std::max<int64_t>(1, bytes));
}

void StridedCopy::copy_one(const uint8_t* from, uint8_t* to, int64_t chunk) const {
    if (kind_ == Kind::kRows) {
        for (int64_t i = 0; i < inner_.dim; ++i) {
            copy_bytes(from + i * inner_.from, to + i * inner_.to, static_cast<size_t>(block_));
        }
        return;
    }
    const bool tiles = kind_ == Kind::kTiles;
    const int64_t count = tiles ? std::min(kTile, inner_.dim - chunk * kTile) : inner_.dim;
    const Axis across = tiles ? across_ : Axis{1, 0, 0};
    switch (block_) {
        case 1: return copy_tile<uint8_t>(from, inner_.from, across.from, to, inner_.to, across.to, count, across.dim);
        case 2: return copy_tile<uint16_t>(from, inner_.from, across.from, to, inner_.to, across.to, count, across.dim);
        case 4: return copy_tile<uint32_t>(from, inner_.from, across.from, to, inner_.to, across.to, count, across.dim);
        default: return copy_tile<uint64_t>(from, inner_.from, across.from, to, inner_.to, across.to, count, across.dim);
    }
}

void StridedCopy::run(const uint8_t* from, uint8_t* to, ThreadPool& pool) const {
    if (kind_ == Kind::kNothing) return;
    pool.parallel(items_, grain_, [&](int64_t begin, int64_t end, int32_t) {
        int64_t at[kMaxRank] = {}, from_at = 0, to_at = 0, rest = begin;
        for (int i = rank_ - 1; i >= 0; --i) {
            at[i] = rest % axes_[i].dim;
            rest /= axes_[i].dim;
            from_at += at[i] * axes_[i].from;
            to_at += at[i] * axes_[i].to;
        }
        for (int64_t item = begin; item < end; ++item) {
            copy_one(from + from_at, to + to_at, rank_ > 0 ? at[rank_ - 1] : 0);
            for (int i = rank_ - 1; i >= 0; --i) {
                from_at += axes_[i].from, to_at += axes_[i].to;
                if (++at[i] < axes_[i].dim) break;
                from_at -= axes_[i].from * axes_[i].dim, to_at -= axes_[i].to * axes_[i].dim;
                at[i] = 0;
            }
        }
    });
}

}  // namespace ew
