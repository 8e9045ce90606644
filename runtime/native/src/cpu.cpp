#include "cpu.h"

#include <cstdlib>
#include <cstring>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace ew {
namespace {

constexpr const char* kNames[] = {"generic", "avx2", "avx512", "avx512vnni", "avx512bf16"};
constexpr int kCount = sizeof kNames / sizeof *kNames;

#if defined(__x86_64__)
struct Registers {
    unsigned a = 0, b = 0, c = 0, d = 0;
};

// Zeros for a leaf that this processor does not have.
Registers cpuid(unsigned leaf, unsigned subleaf) {
    Registers told;
    if (!__get_cpuid_count(leaf, subleaf, &told.a, &told.b, &told.c, &told.d)) return {};
    return told;
}

// Which registers the system saves when it switches between threads: bits of XCR0.
unsigned saved_registers() {
    unsigned low, high;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

bool all(unsigned word, unsigned bits) { return (word & bits) == bits; }

// Not __builtin_cpu_supports: it asks a table of the compiler's own library, which Zig's leaves empty.
Isa detect() {
    constexpr unsigned kYmm = 0x6, kZmm = 0xe6;
    const Registers basic = cpuid(1, 0), wide = cpuid(7, 0), wider = cpuid(7, 1);
    constexpr unsigned kOsxsave = bit_OSXSAVE, kBasic = bit_FMA | bit_AVX | bit_F16C;
    if (!all(basic.c, kOsxsave | kBasic) || !all(wide.b, bit_AVX2)) return Isa::kGeneric;
    const unsigned saved = saved_registers();
    if (!all(saved, kYmm)) return Isa::kGeneric;
    constexpr unsigned kAvx512 = bit_AVX512F | bit_AVX512BW | bit_AVX512CD | bit_AVX512DQ | bit_AVX512VL;
    if (!all(saved, kZmm) || !all(wide.b, kAvx512)) return Isa::kAvx2;
    if (!all(wide.c, bit_AVX512VNNI)) return Isa::kAvx512;
    return all(wide.c, bit_AVX512VBMI) && all(wider.a, bit_AVX512BF16) ? Isa::kAvx512Bf16 : Isa::kAvx512Vnni;
}
#else
Isa detect() { return Isa::kGeneric; }
#endif

Isa choose() {
    const Isa best = detect();
    if (const char* asked = std::getenv("EDGEWISE_ISA")) {
        for (int i = 0; i < kCount; ++i) {
            if (std::strcmp(asked, kNames[i]) == 0 && static_cast<Isa>(i) < best) return static_cast<Isa>(i);
        }
    }
    return best;
}

}  // namespace

Isa host_isa() {
    static const Isa isa = choose();
    return isa;
}

const char* isa_name(Isa isa) { return kNames[static_cast<int>(isa)]; }

}  // namespace ew
