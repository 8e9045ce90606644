// What this processor can do at most: multiply-accumulates in registers, and reading from main memory. The roof that layers are held against.
#pragma once

#include "json.h"

namespace bench {

// "f32_gmacs_per_s", "bf16_gmacs_per_s" (null where libedgewise has no such kernel), "int8_gmacs_per_s", "memory_gb_per_s", with so many threads
// at once; takes about half a second. What is read again and again has `bytes`: that many lie in the cache in which a network of that size lies.
void write_peaks(Json* json, int threads, size_t bytes);

}  // namespace bench
