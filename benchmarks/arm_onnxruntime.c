// Runs ONNX Runtime's library for aarch64 in qemu for arm_onnxruntime.py: MODEL INPUT OUTPUT ELEMENT DIMS..., several in a row.
//
//   arm_onnxruntime LIBRARY (MODEL INPUT OUTPUT ELEMENT CHANNELS SIZE)...
//
// Each network [N, channels, size, size] runs with one sample and with two, once to warm up and once between marks on stderr, where qemu
// logs a line per instruction. All else happens while stderr leads nowhere. Functions are named by their places in OrtApi, which
// ONNX Runtime keeps (onnxruntime_c_api.h: "functions will never be reordered").
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { kGetErrorMessage = 2, kCreateEnv = 3, kCreateSession = 7, kRun = 9, kCreateSessionOptions = 10, kSetIntraOpNumThreads = 24,
       kCreateTensorWithData = 49, kGetTensorMutableData = 51, kCreateCpuMemoryInfo = 69 };

typedef void* Handle;
struct Base {
    void* const* (*get_api)(uint32_t version);
};
static void* const* api;

static void check(Handle status) {
    if (!status) return;
    fprintf(stdout, "%s\n", ((const char* (*)(Handle))api[kGetErrorMessage])(status));
    exit(2);
}

static void mark(int log, const char* text) {
    dup2(log, 2);
    (void)!write(2, text, strlen(text));
}

int main(int count, char** words) {
    const int log = dup(2), nowhere = open("/dev/null", O_WRONLY);
    dup2(nowhere, 2);
    void* library = count > 1 ? dlopen(words[1], RTLD_NOW) : NULL;
    if (!library) return puts(dlerror()), 2;
    api = ((const struct Base* (*)(void))dlsym(library, "OrtGetApiBase"))()->get_api(16);
    Handle env, options, memory;
    check(((Handle(*)(int, const char*, Handle*))api[kCreateEnv])(3, "count", &env));
    check(((Handle(*)(Handle*))api[kCreateSessionOptions])(&options));
    check(((Handle(*)(Handle, int))api[kSetIntraOpNumThreads])(options, 1));
    check(((Handle(*)(int, int, Handle*))api[kCreateCpuMemoryInfo])(0, 0, &memory));
    for (char** job = words + 2; job + 6 <= words + count; job += 6) {
        Handle session;
        check(((Handle(*)(Handle, const char*, Handle, Handle*))api[kCreateSession])(env, job[0], options, &session));
        const int element = atoi(job[3]), channels = atoi(job[4]), size = atoi(job[5]);
        const size_t bytes = (size_t)channels * size * size * (element == 1 ? 4 : 1);
        char* data = malloc(2 * bytes);
        FILE* in = fopen(job[1], "rb");
        if (!in || fread(data, 1, 2 * bytes, in) != 2 * bytes) return puts(job[1]), 2;
        fclose(in);
        for (int64_t samples = 1; samples <= 2; ++samples) {
            const int64_t dims[4] = {samples, channels, size, size};
            Handle x, y = NULL;
            check(((Handle(*)(Handle, void*, size_t, const int64_t*, size_t, int, Handle*))api[kCreateTensorWithData])(
                memory, data, samples * bytes, dims, 4, element, &x));
            const char *from[] = {"x"}, *to[] = {"y"};
            Handle (*run)(Handle, Handle, const char* const*, const Handle*, size_t, const char* const*, size_t, Handle*) = (Handle)api[kRun];
            for (int round = 0; round < 2; ++round) {
                y = NULL;
                if (round) mark(log, "<<\n");
                const Handle failed = run(session, NULL, from, &x, 1, to, 1, &y);
                if (round) mark(log, ">>\n"), dup2(nowhere, 2);
                check(failed);
            }
            if (samples == 2) {
                void* result;
                check(((Handle(*)(Handle, void**))api[kGetTensorMutableData])(y, &result));
                FILE* out = fopen(job[2], "r+b");  // as long as the output
                if (!out) return puts(job[2]), 2;
                fseek(out, 0, SEEK_END);
                const long length = ftell(out);
                rewind(out);
                if (fwrite(result, 1, (size_t)length, out) != (size_t)length || fclose(out)) return puts(job[2]), 2;
            }
        }
        free(data);
    }
    return 0;
}
