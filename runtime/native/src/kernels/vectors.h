// The kernels of all operators but the multiplying ones (conv, depthwise), one table per instruction set.
//
// Each family is written once, as templates over a vector type (vectors_*.h on simd.h); vectors_ISA.cpp makes the table.
#pragma once

#include <cstdint>

#include "../cpu.h"
#include "functions.h"

namespace ew {

struct VectorKernels {
    const char* name;
    // y[i] = function(x[i]); y may be x.
    void (*unary)(Function function, const float* x, float* y, int64_t count, float alpha, float beta);
};

// The best table for this level.
const VectorKernels& vector_kernels(Isa isa);

}  // namespace ew
