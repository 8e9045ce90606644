#include "arena.h"

#include <algorithm>

#include "tensor.h"

namespace ew {
namespace {

// Looking for neighbours costs at most this many looks. A file would have to be made for it to need more, and then the storages
// that are left share no memory.
constexpr uint64_t kMostLooks = uint64_t{1} << 25;

constexpr int kRounds = 16;       // of placing anew where an order leaves gaps
constexpr uint64_t kEnough = 64;  // a part of the least: so little more is not worth another round

uint64_t rounded(uint64_t bytes) { return (bytes + 63) / 64 * 64; }

// Storages by the steps at which they are alive.
class Timeline {
public:
    explicit Timeline(int steps) : moments_(static_cast<size_t>(steps) + 2), begins_(moments_), covers_(2 * moments_) {}

    void add(size_t one, const Lifetime& life) {
        begins_[moment(life.first)].push_back(one);
        // Nodes of a segment tree that together are exactly [first, last].
        for (size_t a = moment(life.first) + moments_, b = moment(life.last) + 1 + moments_; a < b; a /= 2, b /= 2) {
            if (a & 1) covers_[a++].push_back(one);
            if (b & 1) covers_[--b].push_back(one);
        }
    }

    // Those alive at some step of this lifetime: alive at its first, or beginning later within it.
    void alive_during(const Lifetime& life, std::vector<size_t>* found, uint64_t* looks) const {
        found->clear();
        for (size_t node = moment(life.first) + moments_; node > 0; node /= 2) append(covers_[node], found);
        for (size_t at = moment(life.first) + 1; at <= moment(life.last); ++at) append(begins_[at], found);
        *looks += found->size() + moment(life.last) - moment(life.first);
    }

private:
    static size_t moment(int step) { return static_cast<size_t>(step + 1); }
    static void append(const std::vector<size_t>& from, std::vector<size_t>* to) { to->insert(to->end(), from.begin(), from.end()); }

    size_t moments_;
    std::vector<std::vector<size_t>> begins_;  // by moment
    std::vector<std::vector<size_t>> covers_;  // by node: leaves are [moments_, 2 * moments_)
};

// What storages are sorted by.
struct Key {
    int64_t first, second;
    size_t one;  // its index: of equals the earlier one comes first

    bool operator<(const Key& other) const {
        if (first != other.first) return first < other.first;
        return second != other.second ? second < other.second : one < other.one;
    }
};

// Each at the lowest offset where it fits, in this order.
uint64_t place_in(const std::vector<Key>& order, const std::vector<Lifetime>& storages, int steps, std::vector<uint64_t>* offsets,
                  uint64_t* looks) {
    offsets->assign(storages.size(), 0);
    Timeline timeline(steps);
    std::vector<size_t> taken;
    uint64_t total = 0;
    for (const Key& key : order) {
        const size_t one = key.one;
        const Lifetime& life = storages[one];
        if (life.bytes == 0) continue;
        const uint64_t bytes = rounded(life.bytes);
        uint64_t at = 0;
        if (*looks < kMostLooks) {
            timeline.alive_during(life, &taken, looks);
            std::sort(taken.begin(), taken.end(), [&](size_t a, size_t b) { return (*offsets)[a] < (*offsets)[b]; });
            for (size_t other : taken) {
                if (at + bytes <= (*offsets)[other]) break;
                at = std::max(at, (*offsets)[other] + rounded(storages[other].bytes));
            }
            timeline.add(one, life);
        } else {
            at = total;
        }
        (*offsets)[one] = at;
        total = std::max(total, at + bytes);
        if (total > static_cast<uint64_t>(kMost)) break;
    }
    return total;
}

// What ends last comes earlier, half as far from the beginning: it was placed above what filled the gaps below it.
void move_top(const std::vector<Lifetime>& storages, const std::vector<uint64_t>& offsets, std::vector<Key>* order) {
    size_t top = 0;
    uint64_t most = 0;
    for (size_t i = 0; i < order->size(); ++i) {
        const size_t one = (*order)[i].one;
        const uint64_t end = offsets[one] + storages[one].bytes;
        if (storages[one].bytes > 0 && end > most) most = end, top = i;
    }
    const auto at = order->begin() + static_cast<std::ptrdiff_t>(top);
    std::rotate(order->begin() + static_cast<std::ptrdiff_t>(top / 2), at, at + 1);
}

}  // namespace

uint64_t place(const std::vector<Lifetime>& storages, int steps, std::vector<uint64_t>* offsets) {
    uint64_t best = UINT64_MAX, enough = 0;
    std::vector<uint64_t> tried;
    std::vector<Key> order(storages.size());
    for (int way = 0; way < 3 && best > enough; ++way) {
        for (size_t one = 0; one < storages.size(); ++one) {
            const Lifetime& life = storages[one];
            const int64_t first = way == 0 ? 0 : way == 1 ? int64_t{life.first} - life.last : life.first;
            order[one] = {first, -static_cast<int64_t>(life.bytes), one};
        }
        std::sort(order.begin(), order.end());
        uint64_t looks = 0;
        for (int round = 0; round <= kRounds && best > enough && looks < kMostLooks; ++round) {
            if (round > 0) move_top(storages, tried, &order);
            const uint64_t total = place_in(order, storages, steps, &tried, &looks);
            if (total > static_cast<uint64_t>(kMost)) break;
            if (best == UINT64_MAX) {
                const uint64_t least = most_alive(storages, steps);
                enough = least + least / kEnough;
            }
            if (total < best) best = total, *offsets = tried;
        }
    }
    return best;
}

uint64_t most_alive(const std::vector<Lifetime>& storages, int steps) {
    std::vector<int64_t> changes(static_cast<size_t>(steps) + 3);  // by moment, the one after the last included
    for (const Lifetime& life : storages) {
        if (life.bytes == 0) continue;
        const int64_t bytes = static_cast<int64_t>(rounded(life.bytes));
        changes[static_cast<size_t>(life.first + 1)] += bytes, changes[static_cast<size_t>(life.last + 2)] -= bytes;
    }
    int64_t alive = 0, most = 0;
    for (int64_t change : changes) most = std::max(most, alive += change);
    return static_cast<uint64_t>(most);
}

}  // namespace ew
