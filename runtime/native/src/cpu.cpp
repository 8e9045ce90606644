#include "cpu.h"

#include <cstdlib>
#include <cstring>
#if defined(__x86_64__)
#include <cpuid.h>
#elif (defined(__aarch64__) || defined(EDGEWISE_VEC4)) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace ew {
namespace {

constexpr struct {
    Isa isa;
    const char* name;
} kLevels[] = {
    {Isa::kGeneric, "generic"},         {Isa::kAvx2, "avx2"}, {Isa::kAvx512, "avx512"},
    {Isa::kAvx512Vnni, "avx512vnni"},   {Isa::kAvx512Bf16, "avx512bf16"},
    {Isa::kNeon, "neon"},               {Isa::kNeonDotprod, "neon_dotprod"},
    {Isa::kNeonI8mm, "neon_i8mm"},      {Isa::kVec4, "vec4"},
};

int family(Isa isa) { return static_cast<int>(isa) / 16; }

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
#elif defined(__aarch64__) && defined(__linux__)
// The bits of Linux's arch/arm64/include/uapi/asm/hwcap.h, which an older libc's header may lack.
Isa detect() {
    constexpr unsigned long kDotprod = 1ul << 20, kI8mm = 1ul << 13;
    if (!(getauxval(AT_HWCAP) & kDotprod)) return Isa::kNeon;
    return getauxval(AT_HWCAP2) & kI8mm ? Isa::kNeonI8mm : Isa::kNeonDotprod;
}
#elif defined(__aarch64__)
Isa detect() { return Isa::kNeon; }
#elif defined(EDGEWISE_VEC4) && defined(__arm__)
Isa detect() { return getauxval(AT_HWCAP) & 1ul << 12 ? Isa::kVec4 : Isa::kGeneric; }  // HWCAP_NEON
#elif defined(EDGEWISE_VEC4) && defined(__riscv)
Isa detect() { return getauxval(AT_HWCAP) & 1ul << ('V' - 'A') ? Isa::kVec4 : Isa::kGeneric; }
#elif defined(EDGEWISE_VEC4)
Isa detect() { return Isa::kVec4; }  // every processor for which this was compiled
#else
Isa detect() { return Isa::kGeneric; }
#endif

Isa choose() {
    const Isa best = detect();
    if (const char* asked = std::getenv("EDGEWISE_ISA")) {
        for (const auto& level : kLevels) {
            if (std::strcmp(asked, level.name) == 0 && includes(best, level.isa)) return level.isa;
        }
    }
    return best;
}

}  // namespace

Isa host_isa() {
    static const Isa isa = choose();
    return isa;
}

const char* host_isas() {
    struct List {
        char text[64] = {};
        List() {
            for (const auto& level : kLevels) {
                if (!includes(host_isa(), level.isa)) continue;
                if (text[0] != '\0') std::strcat(text, " ");
                std::strcat(text, level.name);
            }
        }
    };
    static const List list;
    return list.text;
}

bool includes(Isa has, Isa wanted) { return wanted == Isa::kGeneric || (family(wanted) == family(has) && wanted <= has); }

bool known_isa(uint32_t number) {
    for (const auto& level : kLevels) {
        if (static_cast<uint32_t>(level.isa) == number) return true;
    }
    return false;
}

const char* isa_name(Isa isa) {
    for (const auto& level : kLevels) {
        if (level.isa == isa) return level.name;
    }
    return "";
}

}  // namespace ew
