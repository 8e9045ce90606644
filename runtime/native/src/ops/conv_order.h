// Dense 8-bit weights whose entries lie in an order of their own, so that those that AVX2 may add in pairs come first
// (kernels/conv.h: ConvBlock::order).
#pragma once

#include <vector>

#include "../op.h"

namespace ew {

// Of a line of outputs.
int64_t order_bytes(int64_t entries);

// Refuses what does not name `entries` entries for each of `lines` lines.
Status read_order(const Setup& setup, const Tensor& order, int64_t lines, int64_t entries);

// The weights with their entries as they come, for kernels that know no other order.
void put_in_order(const uint8_t* weights, const uint8_t* order, int64_t lines, int64_t entries, std::vector<uint8_t>* to);

}  // namespace ew
