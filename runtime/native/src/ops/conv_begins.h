// What sums begin with where tiles hold x less 128: 128 times the sum of each output's weights.
#pragma once

#include <cstdint>
#include <vector>

namespace ew {

// [groups][lines][entries][16][4]
struct DenseBytes {
    const int8_t* weights;
    int64_t entries, groups, lines, outputs;  // lines and outputs: of a group
};

// Lists of blocks [groups][parts][blocks], each entry being [block][4].
struct SparseBytes {
    const int8_t* weights;
    const int32_t* start;
    int64_t groups, parts, blocks, block, outputs;  // blocks and outputs: of a group; block: outputs of one
};

// Per output of all groups, and a line more.
void dense_begins(const DenseBytes& from, std::vector<int32_t>* begins);
void sparse_begins(const SparseBytes& from, std::vector<int32_t>* begins);

}  // namespace ew
