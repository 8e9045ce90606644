// Where storages lie in one block of memory: those that are not alive at the same time may overlap.
#pragma once

#include <cstddef>
#include <vector>

namespace ew {

struct Lifetime {
    size_t bytes;
    int first;  // the step that writes it; -1: before the first
    int last;   // the step that reads it last
};

// Greedy by size, each at the lowest offset where it fits (Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net
// Inference", 2020). Offsets are multiples of 64. Returns the size of the block.
size_t place(const std::vector<Lifetime>& storages, std::vector<size_t>* offsets);

}  // namespace ew
