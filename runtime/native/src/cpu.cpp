#include "cpu.h"

#include <cstdlib>
#include <cstring>

namespace ew {
namespace {

constexpr const char* kNames[] = {"generic", "avx2", "avx512", "avx512vnni", "avx512bf16"};
constexpr int kCount = sizeof kNames / sizeof *kNames;

Isa detect() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))) return Isa::kGeneric;
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512vl");
    if (!avx512) return Isa::kAvx2;
    if (!__builtin_cpu_supports("avx512vnni")) return Isa::kAvx512;
    const bool newest = __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512bf16");
    return newest ? Isa::kAvx512Bf16 : Isa::kAvx512Vnni;
#else
    return Isa::kGeneric;
#endif
}

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
