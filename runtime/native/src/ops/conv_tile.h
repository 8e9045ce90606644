// How a tile of conv is packed (kernels/conv.h).
#pragma once

#include "conv_geometry.h"

namespace ew {

// Packs what `pixels` output pixels from `first` on meet: rows of `width` pixels, [planes][positions][width][4 bytes].
struct ConvFill {
    const uint8_t* x;  // of the first plane
    int64_t planes, plane_bytes;
    int64_t first, pixels, width;
    uint32_t fill;  // 4 bytes of padding
    uint8_t* tile;
};

void fill_tile(const ConvGeometry& geometry, const ConvKernel& kernel, const ConvFill& fill);

}  // namespace ew
