/* What one core can do at most: independent multiply-adds in registers. Built by kernels.py with the system's C compiler. */
#include <immintrin.h>
#include <time.h>

#define REPEAT 2000
#define CHAINS 20

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#define EACH(V, REGISTERS, INSTRUCTION)                                                                     \
    do {                                                                                                    \
        V sums[REGISTERS] = {0};                                                                            \
        V one = {0};                                                                                        \
        for (int i = 0; i < REPEAT; ++i) {                                                                  \
            _Pragma("GCC unroll 32") for (int j = 0; j < REGISTERS; ++j)                                    \
                __asm__ volatile(INSTRUCTION " %1, %1, %0" : "+v"(sums[j]) : "v"(one));                     \
        }                                                                                                   \
    } while (0)

__attribute__((target("avx512f,avx512vnni"))) static void dot512(void) { EACH(__m512i, 20, "vpdpbusd"); }
__attribute__((target("avx512f"))) static void fma512(void) { EACH(__m512, 20, "vfmadd231ps"); }
__attribute__((target("avx512f"))) static void brain512(void) { EACH(__m512, 20, "vdpbf16ps"); }
__attribute__((target("avx2,fma"))) static void fma256(void) { EACH(__m256, 12, "vfmadd231ps"); }

/* Giga operations (a multiply and an add are two) a second. kind 0: u8 * s8 with VNNI; 1: float32 with AVX-512; 2: with AVX2;
   3: bfloat16. */
double peak(int kind) {
    static void (*const loops[])(void) = {dot512, fma512, fma256, brain512};
    static const double operations[] = {20 * 128.0, 20 * 32.0, 12 * 16.0, 20 * 64.0};
    double best = 1e9;
    for (int i = 0; i < 200; ++i) {
        const double begin = now();
        loops[kind]();
        const double time = now() - begin;
        if (time < best) best = time;
    }
    return operations[kind] * REPEAT / best / 1e9;
}
