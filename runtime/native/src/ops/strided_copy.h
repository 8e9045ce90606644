// Copies an array of any strides into another of any strides: what transpose, slice, concat, expand, tile and others are.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../parallel.h"

namespace ew {

class StridedCopy {
public:
    static constexpr int kMaxRank = 16;

    // Strides in elements (0 or negative too) of `element` bytes: 1, 2, 4 or 8. The caller has proved that all lies inside.
    void set(int rank, const int64_t* dims, const int64_t* from_strides, const int64_t* to_strides, size_t element);
    void run(const uint8_t* from, uint8_t* to, ThreadPool& pool) const;

private:
    struct Axis {
        int64_t dim;
        int64_t from;  // strides in bytes
        int64_t to;
    };
    enum class Kind : uint8_t { kNothing, kRows, kElements, kTiles };

    void merge();
    void choose();
    void copy_one(const uint8_t* from, uint8_t* to, int64_t chunk) const;

    Axis axes_[kMaxRank];  // outer ones first; the target's strides fall
    int rank_ = 0;
    int64_t block_ = 0;    // bytes that lie together in both
    Kind kind_ = Kind::kNothing;
    Axis inner_{}, across_{};  // of one item: along the target, and along the source where it is another axis
    int64_t items_ = 0, grain_ = 1;
};

// Row-major strides in elements.
void strides_of(int rank, const int64_t* dims, int64_t* strides);

}  // namespace ew
