#include "conv_begins.h"

#include <algorithm>

#include "../kernels/conv.h"

namespace ew {
namespace {

// Wraps, as the kernels' sums do.
uint32_t four(const int8_t* w) { return static_cast<uint32_t>((w[0] + w[1] + w[2] + w[3]) * 128); }

void write(const std::vector<uint32_t>& sums, std::vector<int32_t>* begins) {
    begins->assign(sums.size() + kLine, 0);
    std::transform(sums.begin(), sums.end(), begins->begin(), [](uint32_t sum) { return static_cast<int32_t>(sum); });
}

}  // namespace

void dense_begins(const DenseBytes& from, std::vector<int32_t>* begins) {
    std::vector<uint32_t> sums(static_cast<size_t>(from.groups * from.outputs), 0);
    const int8_t* w = from.weights;
    for (int64_t line = 0; line < from.groups * from.lines; ++line) {
        const int64_t first = line % from.lines * kLine, count = std::min(kLine, from.outputs - first);
        uint32_t* to = sums.data() + line / from.lines * from.outputs + first;
        for (int64_t e = 0; e < from.entries; ++e, w += kLineBytes) {
            for (int64_t o = 0; o < count; ++o) to[o] += four(w + o * 4);
        }
    }
    write(sums, begins);
}

void sparse_begins(const SparseBytes& from, std::vector<int32_t>* begins) {
    std::vector<uint32_t> sums(static_cast<size_t>(from.groups * from.outputs), 0);
    for (int64_t list = 0; list < from.groups * from.parts * from.blocks; ++list) {
        const int64_t group = list / (from.parts * from.blocks), first = list % from.blocks * from.block;
        const int64_t count = std::min(from.block, from.outputs - first);
        uint32_t* to = sums.data() + group * from.outputs + first;
        const int8_t* w = from.weights + from.start[list] * from.block * 4;
        for (int32_t at = from.start[list]; at < from.start[list + 1]; ++at, w += from.block * 4) {
            for (int64_t o = 0; o < count; ++o) to[o] += four(w + o * 4);
        }
    }
    write(sums, begins);
}

}  // namespace ew
