// What the processor can do.
#pragma once

#include <cstdint>

namespace ew {

// Each x86 level includes those before it. An engine file names the least that it may run on; kernels use the best there is.
enum class Isa : uint8_t {
    kGeneric = 0,
    kAvx2 = 1,        // AVX2, FMA, F16C
    kAvx512 = 2,      // + AVX-512 F BW CD DQ VL
    kAvx512Vnni = 3,  // + VNNI
    kAvx512Bf16 = 4,  // + VBMI, BF16
};

// The best level of this processor; of EDGEWISE_ISA ("generic", "avx2", …) when that is lower.
Isa host_isa();
const char* isa_name(Isa isa);

}  // namespace ew
