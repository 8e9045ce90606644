// What the processor can do.
#pragma once

#include <cstdint>

namespace ew {

// Each level includes those before it of its family, and the generic one. An engine file names the least that it may run on; kernels
// use the best there is.
enum class Isa : uint8_t {
    kGeneric = 0,
    // x86-64
    kAvx2 = 1,        // AVX2, FMA, F16C
    kAvx512 = 2,      // + AVX-512 F BW CD DQ VL
    kAvx512Vnni = 3,  // + VNNI
    kAvx512Bf16 = 4,  // + VBMI, BF16
    // aarch64
    kNeon = 16,         // what every such processor has
    kNeonDotprod = 17,  // + the dot products of 8 bits
    kNeonI8mm = 18,     // + those of mixed signs, and the matrix products
    // Others whose vectors the compiler knows: NEON of 32-bit ARM, RISC-V's V, SIMD of WebAssembly.
    kVec4 = 32,
};

// The best level of this processor; of EDGEWISE_ISA ("generic", "avx2", …) when that is lower.
Isa host_isa();
const char* host_isas();  // its name after those that it includes
bool includes(Isa has, Isa wanted);
bool known_isa(uint32_t number);
const char* isa_name(Isa isa);

}  // namespace ew
