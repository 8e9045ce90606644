#include "arena.h"

#include <algorithm>
#include <numeric>

namespace ew {

size_t place(const std::vector<Lifetime>& storages, std::vector<size_t>* offsets) {
    std::vector<size_t> order(storages.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return storages[a].bytes > storages[b].bytes; });
    offsets->assign(storages.size(), 0);
    std::vector<size_t> placed;  // by offset
    size_t total = 0;
    for (size_t one : order) {
        const Lifetime& life = storages[one];
        const size_t bytes = (life.bytes + 63) / 64 * 64;
        size_t at = 0;
        for (size_t other : placed) {
            const Lifetime& taken = storages[other];
            if (taken.last < life.first || life.last < taken.first) continue;
            if (at + bytes <= (*offsets)[other]) break;
            at = std::max(at, (*offsets)[other] + (taken.bytes + 63) / 64 * 64);
        }
        (*offsets)[one] = at;
        total = std::max(total, at + bytes);
        const auto after = std::upper_bound(placed.begin(), placed.end(), at,
                                            [&](size_t value, size_t other) { return value < (*offsets)[other]; });
        placed.insert(after, one);
    }
    return total;
}

}  // namespace ew
