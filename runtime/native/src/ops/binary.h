// The parts of `binary`: operands of one plain dtype (binary.cpp), and those with 8 bits among them (binary_bytes.cpp).
#pragma once

#include <string_view>

#include "../kernels/vectors.h"
#include "../op.h"

namespace ew {

// The arithmetic function of this name; false when there is none.
bool find_pair(std::string_view name, bool c_mod, Pair* pair);

// What follows the function where results are float32 (attributes activation, activation_alpha, activation_beta).
struct Activation {
    Function function = Function::kNone;
    float alpha = 0, beta = 0;

    Status read(const Setup& setup);
    void apply(const VectorKernels& kernels, float* y, int64_t count) const {
        if (function != Function::kNone) kernels.unary(function, y, y, count, alpha, beta);
    }
};

Operator* make_binary_bytes();

}  // namespace ew
