// Reads and checks how 8-bit operands stand for numbers.
#pragma once

#include <cmath>
#include <string>

#include "../kernels/vectors.h"
#include "checks.h"

namespace ew {

// Of the attributes `prefix`scale and `prefix`zero_point, for a tensor of 8 bits; nothing for another.
inline Status read_quantization(const Setup& setup, const char* prefix, const Tensor& tensor, Quantization* out) {
    *out = {};
    if (!is_8_bit(tensor)) return {};
    char key[32];
    std::snprintf(key, sizeof key, "%sscale", prefix);
    out->scale = setup.attributes.real(key, 0.0f);
    std::snprintf(key, sizeof key, "%szero_point", prefix);
    const int64_t zero = setup.attributes.integer(key, 0);
    out->is_signed = tensor.dtype == EW_S8;
    if (!(out->scale > 0) || !std::isfinite(out->scale) || !std::isfinite(1.0f / out->scale)) return setup.refuse("lacks a %sscale above 0", prefix);
    if (zero < out->lowest() || zero > out->highest()) return setup.refuse("has a %szero_point that its dtype cannot hold", prefix);
    out->zero = static_cast<int32_t>(zero);
    return {};
}

}  // namespace ew
