// Williams, Waterman, Patterson: Roofline (2009). The loops use the widest instructions that libedgewise would, by ew_isas().
#include "peak.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "edgewise.h"
#include "machine.h"

namespace bench {
namespace {

constexpr int kRepeat = 1000, kRounds = 3;
constexpr double kWindowS = 0.03, kTickS = 1e-9;

// `macs` are those of one call, on one thread.
struct Loop {
    const char* isa;
    void (*run)();
    double macs;
};

#define EIGHT(I) I("0") I("1") I("2") I("3") I("4") I("5") I("6") I("7")
#define TWELVE(I) EIGHT(I) I("8") I("9") I("10") I("11")
#define TWENTY(I) TWELVE(I) I("12") I("13") I("14") I("15") I("16") I("17") I("18") I("19")
#define TIMES(INSTRUCTIONS, ...) \
    for (int i = 0; i < kRepeat; ++i) asm volatile(INSTRUCTIONS ::: __VA_ARGS__)

#if defined(__x86_64__)
#define LOW "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11"
#define HIGH "xmm12", "xmm13", "xmm14", "xmm15", "xmm16", "xmm17", "xmm18", "xmm19"
#define FMA512(N) "vfmadd231ps %%zmm31, %%zmm31, %%zmm" N "\n"
#define BF16(N) "vdpbf16ps %%zmm31, %%zmm31, %%zmm" N "\n"
#define VNNI(N) "vpdpbusd %%zmm31, %%zmm31, %%zmm" N "\n"
#define PAIRS512(N) "vpmaddubsw %%zmm31, %%zmm31, %%zmm30\nvpmaddwd %%zmm30, %%zmm31, %%zmm30\nvpaddd %%zmm30, %%zmm" N ", %%zmm" N "\n"
#define FMA256(N) "vfmadd231ps %%ymm15, %%ymm15, %%ymm" N "\n"
#define PAIRS256(N) "vpmaddubsw %%ymm15, %%ymm15, %%ymm14\nvpmaddwd %%ymm14, %%ymm15, %%ymm14\nvpaddd %%ymm14, %%ymm" N ", %%ymm" N "\n"
#define SSE(N) "mulps %%xmm15, %%xmm" N "\naddps %%xmm15, %%xmm" N "\n"
#define WIDE __attribute__((target("avx512f,avx512bw,avx512vl")))
#define MIDDLE __attribute__((target("avx2,fma")))

// The factors are zero: sums of others could become infinite.
WIDE void f32_avx512() { asm volatile("vpxord %%zmm31, %%zmm31, %%zmm31" ::: "xmm31"); TIMES(TWENTY(FMA512), LOW, HIGH); }
WIDE void bf16_avx512() { asm volatile("vpxord %%zmm31, %%zmm31, %%zmm31" ::: "xmm31"); TIMES(TWENTY(BF16), LOW, HIGH); }
WIDE void s8_avx512vnni() { asm volatile("vpxord %%zmm31, %%zmm31, %%zmm31" ::: "xmm31"); TIMES(TWENTY(VNNI), LOW, HIGH); }
WIDE void s8_avx512() { asm volatile("vpxord %%zmm31, %%zmm31, %%zmm31" ::: "xmm31"); TIMES(TWENTY(PAIRS512), LOW, HIGH, "xmm30"); }
MIDDLE void f32_avx2() { asm volatile("vpxor %%ymm15, %%ymm15, %%ymm15" ::: "xmm15"); TIMES(TWELVE(FMA256), LOW, "xmm15"); }
MIDDLE void s8_avx2() { asm volatile("vpxor %%ymm15, %%ymm15, %%ymm15" ::: "xmm15"); TIMES(TWELVE(PAIRS256), LOW, "xmm14", "xmm15"); }
void f32_sse() { asm volatile("xorps %%xmm15, %%xmm15" ::: "xmm15"); TIMES(TWELVE(SSE), LOW, "xmm15"); }

const Loop kF32[] = {{"avx512", f32_avx512, 20 * 16.0 * kRepeat}, {"avx2", f32_avx2, 12 * 8.0 * kRepeat}, {"generic", f32_sse, 12 * 4.0 * kRepeat}};
const Loop kBf16[] = {{"avx512bf16", bf16_avx512, 20 * 32.0 * kRepeat}};
#define INT8_LOOPS {"avx512vnni", s8_avx512vnni, 20 * 64.0 * kRepeat}, {"avx512", s8_avx512, 20 * 64.0 * kRepeat}, {"avx2", s8_avx2, 12 * 32.0 * kRepeat},
#elif defined(__aarch64__)
#define LOW "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11"
#define HIGH "v12", "v13", "v14", "v15", "v16", "v17", "v18", "v19"
#define FMLA(N) "fmla v" N ".4s, v31.4s, v31.4s\n"
#define SMMLA(N) "smmla v" N ".4s, v31.16b, v31.16b\n"
#define SDOT(N) "sdot v" N ".4s, v31.16b, v31.16b\n"
#define SMULL(N) "smull v30.8h, v31.8b, v31.8b\nsadalp v" N ".4s, v30.8h\n"

void f32_neon() { TIMES("movi v31.16b, #0\n" TWENTY(FMLA), LOW, HIGH, "v31"); }
void s8_i8mm() { TIMES(".arch armv8.2-a+i8mm\nmovi v31.16b, #0\n" TWENTY(SMMLA), LOW, HIGH, "v31"); }
void s8_dotprod() { TIMES(".arch_extension dotprod\nmovi v31.16b, #0\n" TWENTY(SDOT), LOW, HIGH, "v31"); }
void s8_neon() { TIMES("movi v31.16b, #0\n" TWENTY(SMULL), LOW, HIGH, "v30", "v31"); }

const Loop kF32[] = {{"generic", f32_neon, 20 * 4.0 * kRepeat}};
const Loop kBf16[] = {{"none", nullptr, 0}};
#define INT8_LOOPS {"neon_i8mm", s8_i8mm, 20 * 32.0 * kRepeat}, {"neon_dotprod", s8_dotprod, 20 * 16.0 * kRepeat}, {"neon", s8_neon, 20 * 8.0 * kRepeat},
#else
#define INT8_LOOPS
// What the compiler makes of it, as it does of the reference kernels.
void f32_plain() {
    float sums[8] = {}, one = 0;
    for (int i = 0; i < kRepeat; ++i) {
        asm volatile("" : "+m"(one) : : "memory");
        for (float& sum : sums) sum += one * one;
    }
    asm volatile("" : : "r"(sums) : "memory");
}

const Loop kF32[] = {{"generic", f32_plain, 8.0 * kRepeat}};
const Loop kBf16[] = {{"none", nullptr, 0}};
#endif

void s8_plain() {
    int32_t sums[8] = {};
    int8_t one = 0;
    for (int i = 0; i < kRepeat; ++i) {
        asm volatile("" : "+m"(one) : : "memory");
        for (int32_t& sum : sums) sum += one * one;
    }
    asm volatile("" : : "r"(sums) : "memory");
}

const Loop kInt8[] = {INT8_LOOPS{"generic", s8_plain, 8.0 * kRepeat}};

bool has(const char* isa) {
    const std::string all = std::string(" ") + ew_isas() + " ";
    return all.find(std::string(" ") + isa + " ") != std::string::npos;
}

// Calls work(thread) on so many threads at once, again and again for a while: calls per second of all of them, by the fastest call of
// each, since what else runs on the machine is no property of the processor.
template <typename Work>
double rate(int threads, const Work& work) {
    double best = 0;
    for (int round = 0; round < kRounds; ++round) {
        std::atomic<int> ready{0};
        std::vector<double> rates(static_cast<size_t>(threads));
        const auto loop = [&](int index) {
            work(index);
            ready.fetch_add(1);
            while (ready.load() < threads) std::this_thread::yield();
            const double begin = now_s();
            double fastest_s = INFINITY;
            for (double from = begin, now; from - begin < kWindowS; from = now) {
                work(index);
                now = now_s();
                fastest_s = std::min(fastest_s, now - from);
            }
            rates[static_cast<size_t>(index)] = 1 / std::max(fastest_s, kTickS);
        };
        std::vector<std::thread> others;
        for (int i = 1; i < threads; ++i) others.emplace_back(loop, i);
        loop(0);
        for (std::thread& other : others) other.join();
        double sum = 0;
        for (const double one : rates) sum += one;
        best = std::max(best, sum);
    }
    return best;
}

template <size_t N>
double gmacs(const Loop (&loops)[N], int threads) {
    for (const Loop& loop : loops) {
        if (loop.run && has(loop.isa)) return rate(threads, [&](int) { loop.run(); }) * loop.macs * 1e-9;
    }
    return NAN;
}

typedef uint64_t Vector __attribute__((vector_size(16), may_alias));

void read_all(const Vector* memory, size_t count) {
    Vector a{}, b{}, c{}, d{};  // in registers: no loop that a compiler leaves rolled up
    for (size_t i = 0; i + 4 <= count; i += 4) {
        a ^= memory[i], b ^= memory[i + 1], c ^= memory[i + 2], d ^= memory[i + 3];
    }
    const Vector all = a ^ b ^ c ^ d;
    asm volatile("" : : "m"(all));
}

// Each thread reads a part of its own, together so many bytes and never more than a sixteenth of the memory.
double memory_gb_per_s(int threads, size_t bytes) {
    const double all = static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE));
    const size_t total = std::min(bytes, static_cast<size_t>(all / 16));
    const size_t part = total / static_cast<size_t>(threads) / 4096 * 4096;
    void* memory = nullptr;
    if (part == 0 || posix_memalign(&memory, 4096, part * static_cast<size_t>(threads)) != 0) return NAN;
    std::memset(memory, 1, part * static_cast<size_t>(threads));
    const auto* from = static_cast<const Vector*>(memory);
    const size_t count = part / sizeof(Vector);
    const double calls = rate(threads, [&](int index) { read_all(from + static_cast<size_t>(index) * count, count); });
    std::free(memory);
    return calls * static_cast<double>(part) * 1e-9;
}

}  // namespace

void write_peaks(Json* json, int threads, size_t bytes) {
    json->integer("threads", threads).integer("memory_bytes_read", static_cast<int64_t>(bytes)).text("isas", ew_isas());
    json->number("f32_gmacs_per_s", gmacs(kF32, threads)).number("bf16_gmacs_per_s", gmacs(kBf16, threads));
    json->number("int8_gmacs_per_s", gmacs(kInt8, threads)).number("memory_gb_per_s", memory_gb_per_s(threads, bytes));
}

}  // namespace bench
