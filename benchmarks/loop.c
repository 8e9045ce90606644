/* loop ENGINE RUNS: what an app does: opens an engine, binds zeros, runs it in a loop on one thread; prints the median of a run in ms. */
#define _POSIX_C_SOURCE 200112L
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "edgewise.h"

static int failed(ew_status status) { return status != EW_OK && fprintf(stderr, "loop: %s\n", ew_last_error()) > 0; }

static double now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

static int by_size(const void* a, const void* b) { return (*(const double*)a > *(const double*)b) - (*(const double*)a < *(const double*)b); }

int main(int count, char** arguments) {
    ew_engine* engine = NULL;
    ew_context* context = NULL;
    ew_tensor_info info;
    const ew_options options = {.threads = 1};
    const int runs = count == 3 ? atoi(arguments[2]) : 0, warm_up = runs / 4;
    if (runs < 1) return fprintf(stderr, "usage: loop ENGINE RUNS\n"), 2;
    if (failed(ew_open(arguments[1], &engine)) || failed(ew_context_create(engine, &options, &context))) return 1;
    if (failed(ew_input_info(engine, 0, &info))) return 1;
    size_t bytes = sizeof(float);
    for (int32_t i = 0; i < info.rank; ++i) bytes *= (size_t)info.dims[i];
    double* times = malloc(sizeof(double) * (size_t)runs);
    if (!times || failed(ew_bind_input(context, 0, calloc(1, bytes), bytes))) return 1;
    for (int i = -warm_up; i < runs; ++i) {
        const double start = now_ms();
        if (failed(ew_run(context))) return 1;
        if (i >= 0) times[i] = now_ms() - start;
    }
    qsort(times, (size_t)runs, sizeof(double), by_size);
    printf("%.6f\n", times[runs / 2]);
    ew_context_close(context);
    ew_close(engine);
    return 0;
}
