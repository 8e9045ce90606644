// Fills tiles (conv.h), for any instruction set.
#pragma once

#include "conv.h"

namespace ew {

void pack_generic(const ConvPack& pack);
void pack_avx2(const ConvPack& pack);
void pack_avx512(const ConvPack& pack);
void fill_generic(const ConvTile& tile);
void fill_avx2(const ConvTile& tile);
void fill_avx512(const ConvTile& tile);

}  // namespace ew
