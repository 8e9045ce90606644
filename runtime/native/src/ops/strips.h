// Layers that another operator drives by strips of rows (ops/separable.cpp): conv reads a strip, depthwise writes one.
#pragma once

#include "../op.h"

namespace ew {

// Some rows of one plane set, of `samples` samples: planes of one channel (float32), or four (8-bit).
struct Strip {
    int64_t sample, samples;
    int64_t first_row, rows;
    uint8_t* data;        // of the first sample's first plane, at first_row
    int64_t plane_bytes;  // from plane to plane
};

class StripOperator : public Operator {
public:
    // Instead of prepare(), for strips of `rows` rows (the last one of a sample may have fewer) of what lies between two layers.
    // That tensor has no memory: data is null.
    virtual Status prepare_strips(Setup& setup, int64_t rows) = 0;
    // Behind each plane of a strip lies what rounds it up to 16 pixels.
    virtual void run_strip(const Run& run, const Strip& strip) = 0;
};

StripOperator* make_conv_by_strips();
StripOperator* make_depthwise_by_strips();

}  // namespace ew
