// The kernels of all operators but the multiplying ones (conv, depthwise), one table per instruction set.
//
// Each family is written once, as templates over a vector type (vectors_*.h on simd.h); vectors_ISA.cpp makes the table.
#pragma once

#include <cstdint>

#include "../cpu.h"
#include "functions.h"

namespace ew {

// How 8-bit values stand for numbers: (byte - zero) * scale.
struct Quantization {
    float scale = 1;
    int32_t zero = 0;
    bool is_signed = false;

    int32_t lowest() const { return is_signed ? -128 : 0; }
    int32_t highest() const { return is_signed ? 127 : 255; }
};

enum class Pair : uint8_t { kAdd, kSub, kMul, kDiv, kMin, kMax, kPow, kMod, kFmod };

// y = saturate(round(a * a_factor + b * b_factor) + zero), or of a * b * a_factor; a and b less their zeros.
struct BytePair {
    bool product = false;
    Quantization a, b, y;
    float a_factor = 1, b_factor = 1;
};

struct VectorKernels {
    const char* name;
    // y[i] = function(x[i]); y may be x.
    void (*unary)(Function function, const float* x, float* y, int64_t count, float alpha, float beta);
    // Steps are 0 or 1; y may be a or b.
    void (*binary)(Pair function, const float* a, int64_t a_step, const float* b, int64_t b_step, float* y, int64_t count);
    // b_step 0: the 64 bytes at b stand for all.
    void (*binary_bytes)(const BytePair& pair, const uint8_t* a, const uint8_t* b, int64_t b_step, uint8_t* y, int64_t count);
    // To the nearest, ties to even, saturated.
    void (*quantize)(const Quantization& to, const float* x, uint8_t* y, int64_t count);
    void (*dequantize)(const Quantization& from, const uint8_t* x, float* y, int64_t count);
    // Four rows of count values <-> count lanes of four bytes.
    void (*quantize_c4)(const Quantization& to, const float* const* rows, uint8_t* y, int64_t count);
    void (*dequantize_c4)(const Quantization& from, const uint8_t* x, float* const* rows, int64_t count);
    void (*lut)(const uint8_t* table, const uint8_t* x, uint8_t* y, int64_t count);
};

// The best table for this level.
const VectorKernels& vector_kernels(Isa isa);

}  // namespace ew
