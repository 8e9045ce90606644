#include "conv_order.h"

#include <algorithm>
#include <cstring>

#include "../kernels/conv.h"

namespace ew {

int64_t order_bytes(int64_t entries) { return entries + (entries + kOrderEntries - 1) / kOrderEntries; }

Status read_order(const Setup& setup, const Tensor& order, int64_t lines, int64_t entries) {
    const int64_t room = static_cast<int64_t>(order.bytes) / std::max<int64_t>(1, lines);
    if (!order.constant || order.dtype != EW_U8 || order_bytes(entries) > room)
        return setup.refuse("wants an index of constant bytes for each entry of dense weights");
    const uint8_t* at = order.data;
    for (int64_t line = 0; line < lines; ++line) {
        for (int64_t left = entries; left > 0; left -= kOrderEntries) {
            const int64_t count = std::min(left, kOrderEntries), pairs = *at++;
            const bool fits = std::all_of(at, at + count, [&](uint8_t entry) { return entry < count; });
            if (!fits || 2 * pairs > count) return setup.refuse("has an index out of range");
            at += count;
        }
    }
    return {};
}

void put_in_order(const uint8_t* weights, const uint8_t* order, int64_t lines, int64_t entries, std::vector<uint8_t>* to) {
    to->assign(static_cast<size_t>(lines * entries * kLineBytes), 0);
    uint8_t* chunk = to->data();
    for (int64_t line = 0; line < lines; ++line) {
        for (int64_t left = entries; left > 0; left -= kOrderEntries) {
            const int64_t count = std::min(left, kOrderEntries);
            ++order;
            for (int64_t e = 0; e < count; ++e, weights += kLineBytes) std::memcpy(chunk + *order++ * kLineBytes, weights, kLineBytes);
            chunk += count * kLineBytes;
        }
    }
}

}  // namespace ew
