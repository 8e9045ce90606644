/* classify ENGINE [RAW]: runs a network with one float32 output on RAW (the bytes of its first input; zeros without it), and prints
 * the class with the highest score and how long a run takes. */
#define _POSIX_C_SOURCE 199309L
#include <edgewise.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define RUNS 20

/* Every call of libedgewise gives a status; the sentence that belongs to it is ew_last_error(). */
static int failed(ew_status status, const char* what) {
    if (status != EW_OK) fprintf(stderr, "classify: %s: %s (status %d)\n", what, ew_last_error(), (int)status);
    return status != EW_OK;
}

static size_t size_of(ew_dtype dtype) {
    switch (dtype) {
        case EW_S64: return 8;
        case EW_F32:
        case EW_S32: return 4;
        case EW_F16:
        case EW_BF16: return 2;
        default: return 1;
    }
}

static double now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

/* Gives an input its shape, with 1 for each dim that is free, and its bytes: those of the file, or zeros. */
static int fill_input(const ew_engine* engine, ew_context* context, int32_t index, const char* file) {
    ew_tensor_info info;
    if (failed(ew_input_info(engine, index, &info), "input")) return 1;
    size_t bytes = size_of(info.dtype);
    for (int32_t i = 0; i < info.rank; ++i) {
        if (info.dims[i] < 0) info.dims[i] = 1;
        bytes *= (size_t)info.dims[i];
    }
    if (failed(ew_set_input_shape(context, index, info.dims, info.rank), "shape")) return 1;

    void* data = calloc(bytes ? bytes : 1, 1);
    if (!data) return 1;
    FILE* raw = file ? fopen(file, "rb") : NULL;
    int wrong = file != NULL && (raw == NULL || fread(data, 1, bytes, raw) != bytes || fgetc(raw) != EOF);
    if (raw) fclose(raw);
    if (wrong) fprintf(stderr, "classify: %s does not hold the %zu bytes of input %s\n", file, bytes, info.name);
    wrong = wrong || failed(ew_write_input(context, index, data, bytes), "writing the input");
    free(data);
    return wrong;
}

/* The class of the first sample. */
static int print_top(const ew_engine* engine, ew_context* context) {
    ew_tensor_info info;
    int64_t dims[EW_MAX_RANK];
    int32_t rank = 0;
    if (failed(ew_output_info(engine, 0, &info), "output") || failed(ew_output_shape(context, 0, dims, &rank), "output")) return 1;
    if (info.dtype != EW_F32 || rank < 1) {
        fprintf(stderr, "classify: output %s holds no scores in float32\n", info.name);
        return 1;
    }
    size_t count = 1;
    for (int32_t i = 0; i < rank; ++i) count *= (size_t)dims[i];
    float* scores = malloc(count ? count * sizeof(float) : 1);
    if (!scores) return 1;
    const int wrong = failed(ew_read_output(context, 0, scores, count * sizeof(float)), "reading the output");
    if (!wrong) {
        int64_t best = 0;
        for (int64_t i = 1; i < dims[rank - 1] && (size_t)i < count; ++i) {
            if (scores[i] > scores[best]) best = i;
        }
        if (count > 0) printf("class %lld, score %g\n", (long long)best, (double)scores[best]);
    }
    free(scores);
    return wrong;
}

static int run(const ew_engine* engine, ew_context* context, const char* file) {
    for (int32_t i = 0; i < ew_input_count(engine); ++i) {
        if (fill_input(engine, context, i, i == 0 ? file : NULL)) return 1;
    }
    double least = 0;
    for (int i = 0; i < RUNS; ++i) {
        const double start = now_ms();
        if (failed(ew_run(context), "running")) return 1;
        const double took = now_ms() - start;
        if (i == 0 || took < least) least = took;
    }
    if (print_top(engine, context)) return 1;
    ew_memory memory;
    if (failed(ew_memory_use(context, &memory), "memory")) return 1;
    printf("%.3f ms, the fastest of %d runs; %llu bytes of weights, %llu of activations\n", least, RUNS,
           (unsigned long long)memory.weights_bytes, (unsigned long long)memory.arena_bytes);
    return 0;
}

int main(int count, char** arguments) {
    if (count < 2 || count > 3) {
        fprintf(stderr, "usage: classify ENGINE [RAW]\n");
        return 2;
    }
    ew_engine* engine = NULL;
    ew_context* context = NULL;
    const ew_options options = {.threads = 1};
    int wrong = failed(ew_open(arguments[1], &engine), arguments[1]);
    wrong = wrong || failed(ew_context_create(engine, &options, &context), "context");
    wrong = wrong || run(engine, context, count == 3 ? arguments[2] : NULL);
    ew_context_close(context);
    ew_close(engine);
    return wrong;
}
