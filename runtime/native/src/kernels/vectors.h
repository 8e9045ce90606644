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

// How a value is folded into what there is of those before it; kSquare and kAbsolute sum.
enum class Fold : uint8_t { kSum, kAbsolute, kSquare, kProduct, kMax, kMin };

struct Norm {
    const float* gamma = nullptr;  // per channel; null for 1
    const float* beta = nullptr;   // null for 0
    float epsilon = 0;
    bool root_mean_square = false;  // about 0, not about the mean
    bool quantized = false;
    Quantization to;
};

// y = alpha * a * b: a's elements lie a_row and a_k apart, rows of b and y are contiguous.
struct Product {
    int64_t rows = 0, k = 0;
    int64_t a_row = 0, a_k = 0, b_row = 0, y_row = 0;
    float alpha = 1;
};

// One head of attention: q [depth, queries], k [depth, keys], v [value_depth, keys], y [value_depth, queries].
struct Heads {
    int64_t depth = 0, value_depth = 0, queries = 0, keys = 0;
    float scale = 1;
    float p_scale = 0, p_top = 0;  // where the softmax is rounded to steps: their size, and the most of them
};

// Rows of 16 weights in codes: real = code * factor + shift. Of 4 bits two rows share their bytes, the first one's low. Of 16 bits
// they are bfloat16, without terms: each `block` rows and the next `block` lie as pairs.
struct Codes {
    const uint8_t* data = nullptr;
    const float* terms = nullptr;  // 16 factors and 16 shifts for each `block` rows
    int64_t rows = 0, block = 1;
    int64_t bits = 8;
};

// One step of a recurrence, for `keys` rows of lanes: h = a * h + b, or max(a + h, b). Terms: elements between rows; 0 or 1 between lanes.
struct Recurrence {
    struct Term {
        const float* data = nullptr;
        int64_t row = 0, lane = 0;
    };
    bool maximum = false;
    int64_t keys = 0;
    Term a, b;      // b may be b * b2, and a may be exp(a * a2)
    Term a2, b2;
    Term c, u;      // with c: y = the sum over the rows of c * h, or where there is u of c * (h before the step + u * b)
    float* h = nullptr;  // rows `width` apart, readable in whole vectors
    int64_t width = 0;
    float* y = nullptr;  // without c the state itself, of one row
};

// One step of a recurrent layer's gates: y = x + h * weights. The weights lie in panels [k][kWidth], one after another as their columns
// do in rows of x and y; x may be null for 0.
struct Gates {
    static constexpr int kWidth = 16;
    int64_t rows = 0, k = 0;
    const float* x = nullptr;
    const float* h = nullptr;
    const float* weights = nullptr;
    float* y = nullptr;
    int64_t x_row = 0, h_row = 0, y_row = 0;
};

struct VectorKernels {
    const char* name;
    int lanes;
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
    void (*decode)(const Codes& codes, float* y);
    // To the nearest bfloat16, in place; a multiple of the lanes.
    void (*round_brain)(float* x, int64_t count);
    void (*lut)(const uint8_t* table, const uint8_t* x, uint8_t* y, int64_t count);

    // y may be x.
    void (*softmax_row)(const float* x, float* y, int64_t count, bool logarithm);
    void (*softmax_columns)(const float* x, float* y, int64_t dim, int64_t stride, int64_t count, bool logarithm);
    // Columns of channels that are `stride` apart; y is as x, or C4 with `stride` lanes of four bytes per group.
    void (*norm_columns)(const Norm& norm, const float* x, int64_t channels, int64_t stride, uint8_t* y, int64_t count);
    void (*norm_row)(const Norm& norm, const float* x, float* y, int64_t count);
    void (*moments)(const float* x, int64_t count, float* mean, float* variance);
    void (*scale_shift)(const float* x, float* y, int64_t count, float factor, float shift);
    // total += x * factor
    void (*add_scaled)(const float* x, float* total, int64_t count, float factor);

    float (*fold_row)(Fold fold, const float* x, int64_t count, float start);
    void (*fold_into)(Fold fold, const float* x, float* total, int64_t count);
    void (*max_bytes)(const uint8_t* x, uint8_t* total, int64_t count, bool is_signed);
    // Of each of the four bytes of `count` lanes.
    void (*sum_c4)(const uint8_t* x, int64_t count, bool is_signed, int64_t* sums);
    // y[i] = x[i * stride], of 32 bits each.
    void (*every)(const float* x, int64_t stride, float* y, int64_t count);

    // A panel of `columns` columns, at most two vectors; b is readable to the panel's width.
    void (*product_panel)(const Product& product, const float* a, const float* b, float* y, int64_t columns);
    // `some` queries, at most four vectors. `queries` holds depth, `scores` keys vectors of the tile's width; scores has the mask.
    void (*attend)(const Heads& heads, const float* q, const float* k, const float* v, float* y, float* queries, float* scores, int64_t some);
    void (*recur)(const Recurrence& step, int64_t count);
    void (*gates)(const Gates& gates, int64_t panels);
};

// The best table for this level.
const VectorKernels& vector_kernels(Isa isa);

}  // namespace ew
