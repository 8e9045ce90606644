// Where storages lie in one block of memory: those that are not alive at the same time may overlap.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace ew {

struct Lifetime {
    uint64_t bytes;  // at most 2^46; 0 for one that nothing uses
    int first;       // the step that writes it; -1: before the first
    int last;        // the step that reads it last, at most `steps`
};

// Greedy, each at the lowest offset where it fits: by size (Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net
// Inference", 2020), by length of life, and by its beginning. In each of these orders what ends last is moved forward, again
// and again, until the block is little more than what is alive at once or enough was tried; the smallest wins. Offsets are
// multiples of 64. Returns the size of the block; more than 2^46 means that it is too large, and then the offsets are worth
// nothing. `steps` is how many steps there are: lifetimes lie in [-1, steps].
uint64_t place(const std::vector<Lifetime>& storages, int steps, std::vector<uint64_t>* offsets);

// The most that is alive at one step: no placement needs less. For storages that have been placed in at most 2^46 bytes.
uint64_t most_alive(const std::vector<Lifetime>& storages, int steps);

}  // namespace ew
