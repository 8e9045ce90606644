// Attention of 8-bit heads in C4: lanes are queries, products of four channels (or four keys) at a time.
#pragma once

#include <cstdint>

#include "vectors.h"

namespace ew {

// One head. q, k, v and y are C4: groups of four channels, `queries` or `keys` lanes each.
struct ByteHeads {
    int64_t depth = 0, value_depth = 0, queries = 0, keys = 0;
    bool q_signed = false, k_signed = false, v_signed = false;
    int32_t q_zero = 0, k_zero = 0, v_zero = 0;
    float scale = 1;      // of a product of q and k to a score
    float p_inverse = 1;  // 1 / the step of the softmax
    float p_top = 255;    // its most steps: it has no negative ones, and is kept as steps above its zero point
    float y_factor = 1;   // of a step of the softmax times one of v
    bool y_bytes = true;  // else float32, channel by channel
    Quantization y;

    int64_t key_groups() const { return (keys + 3) / 4; }
};

// A head's keys and values, made ready once for all its queries.
struct ByteHeadMemory {
    uint8_t* keys;          // unsigned, as k
    int8_t* values;         // [value_depth][key_groups][4], signed
    int32_t* key_terms;     // per key: what the zero points add to its products
    int8_t* queries;        // of a tile: [depth / 4][width][4], signed
    float* scores;          // [keys][width]; holds the mask when there is one
    uint8_t* weights;       // [key_groups][width][4]
};

struct ByteAttention {
    const char* name;
    void (*prepare)(const ByteHeads& heads, const uint8_t* k, const uint8_t* v, const ByteHeadMemory& memory);
    // `some` queries, at most four vectors of 16 lanes.
    void (*attend)(const ByteHeads& heads, const uint8_t* q, uint8_t* y, const ByteHeadMemory& memory, bool masked, int64_t some);
};

// nullptr where there is none for this level.
const ByteAttention* byte_attention(Isa isa);

}  // namespace ew
