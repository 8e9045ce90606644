/* endurance ENGINE RUNS: runs a network so many times and prints, as JSON, how often memory was asked for before the first run ended and
 * after it, and how much of it was resident then and at the end. malloc is this program's own, so that every call is counted. */
#define _POSIX_C_SOURCE 200112L
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "edgewise.h"

#define POOL_BYTES ((size_t)256 << 20)
#define HEAD_BYTES 64

static unsigned char pool[POOL_BYTES] __attribute__((aligned(64)));
static size_t taken;
static long calls;

/* Nothing is given back: what is asked for again and again would end the program. */
static void* take(size_t alignment, size_t bytes) {
    const size_t step = alignment > HEAD_BYTES ? alignment : HEAD_BYTES;
    const size_t at = __atomic_fetch_add(&taken, (bytes + 2 * step) / step * step, __ATOMIC_SEQ_CST) / step * step + step;
    __atomic_fetch_add(&calls, 1, __ATOMIC_SEQ_CST);
    if (bytes > POOL_BYTES || at + bytes > POOL_BYTES) return NULL;
    memcpy(pool + at - sizeof bytes, &bytes, sizeof bytes);
    return pool + at;
}

void* malloc(size_t bytes) { return take(HEAD_BYTES, bytes); }
void free(void* memory) { (void)memory; }
void* aligned_alloc(size_t alignment, size_t bytes) { return take(alignment, bytes); }
void* calloc(size_t count, size_t size) { return count && size > POOL_BYTES / count ? NULL : take(HEAD_BYTES, count * size); }
int posix_memalign(void** memory, size_t alignment, size_t bytes) {
    *memory = take(alignment, bytes);
    return *memory ? 0 : 12; /* ENOMEM */
}
void* realloc(void* memory, size_t bytes) {
    void* made = take(HEAD_BYTES, bytes);
    size_t before = 0;
    if (memory) memcpy(&before, (unsigned char*)memory - sizeof before, sizeof before);
    if (made && memory) memcpy(made, memory, before < bytes ? before : bytes);
    return made;
}

static long resident_kib(void) {
    char line[128];
    long kib = -1;
    FILE* file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file)) {
        if (strncmp(line, "VmRSS:", 6) == 0) kib = atol(line + 6);
    }
    if (file) fclose(file);
    return kib;
}

static double now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static int failed(ew_status status) { return status != EW_OK && fprintf(stderr, "endurance: %s\n", ew_last_error()) > 0; }

/* Zeros for every input, with 1 for each dim that is free. */
static int feed(const ew_engine* engine, ew_context* context) {
    static const size_t sizes[] = {4, 2, 2, 1, 1, 4, 8, 1}; /* by ew_dtype */
    for (int32_t i = 0; i < ew_input_count(engine); ++i) {
        ew_tensor_info info;
        if (failed(ew_input_info(engine, i, &info))) return 1;
        size_t bytes = sizes[info.dtype];
        for (int32_t k = 0; k < info.rank; ++k) {
            if (info.dims[k] < 0) info.dims[k] = 1;
            bytes *= (size_t)info.dims[k];
        }
        if (failed(ew_set_input_shape(context, i, info.dims, info.rank))) return 1;
        if (failed(ew_bind_input(context, i, calloc(bytes + 1, 1), bytes))) return 1;
    }
    return 0;
}

int main(int count, char** arguments) {
    ew_engine* engine = NULL;
    ew_context* context = NULL;
    const ew_options options = {.threads = 1};
    const long runs = count == 3 ? atol(arguments[2]) : 0;
    if (runs < 1) return fprintf(stderr, "usage: endurance ENGINE RUNS\n"), 2;
    if (failed(ew_open(arguments[1], &engine)) || failed(ew_context_create(engine, &options, &context))) return 1;
    if (feed(engine, context) || failed(ew_run(context))) return 1;
    resident_kib(); /* stdio's own memory is taken now */
    const long before = calls, early_kib = resident_kib(), seen = calls;
    const double start = now_s();
    for (long i = 0; i < runs; ++i) {
        if (failed(ew_run(context))) return 1;
    }
    const double seconds = now_s() - start;
    const long after = calls - seen;
    printf("{\"runs\": %ld, \"allocations_before\": %ld, \"allocations_after\": %ld, \"resident_kib_before\": %ld, \"resident_kib_after\": %ld, "
           "\"ns_per_run\": %.1f}\n", runs, before, after, early_kib, resident_kib(), seconds / (double)runs * 1e9);
    ew_context_close(context);
    ew_close(engine);
    return 0;
}
