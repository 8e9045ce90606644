// Layers that conv computes row by row without packing them (kernels/conv_rows.h).
#pragma once

#include "../kernels/conv_rows.h"
#include "../op.h"
#include "conv_finish.h"
#include "conv_geometry.h"

namespace ew {

class ConvRows {
public:
    // Whether that is how to compute a layer of dense float32 weights and one group. Where it is not, nothing else may be called.
    bool prepare(Setup& setup, const ConvGeometry& geometry, const ConvFinish& finish);
    // What each thread needs.
    int64_t windows_bytes() const;
    // A thread's windows begin `thread_bytes` behind the one before it.
    void run(const Run& run, const ConvFinish& finish, const ConvScales& scales, int64_t thread_bytes) const;

private:
    void compute_row(const Run& run, const ConvFinish& finish, const ConvScales& scales, int64_t item, uint8_t* windows) const;

    ConvGeometry geometry_;
    const ConvRowKernel* kernel_ = nullptr;
};

}  // namespace ew
