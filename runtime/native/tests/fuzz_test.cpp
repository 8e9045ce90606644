// Damaged engine files: opened, prepared and run, whatever they say. Built with sanitizers, a crash or a read outside is seen.
//   fuzz_test RUNS SEED [engine files]     without files: a small engine
#include <signal.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <random>

#include "testing.h"

using namespace testing;

SEEN_BY_SANITIZERS void __asan_on_error();

// In place of the C library's (-Wl,--wrap): large activations are not worth the time.
extern "C" void* __real_aligned_alloc(size_t alignment, size_t bytes);
extern "C" void* __wrap_aligned_alloc(size_t alignment, size_t bytes) {
    return bytes > (size_t{1} << 24) ? nullptr : __real_aligned_alloc(alignment, bytes);
}

namespace {

constexpr size_t kMostPort = size_t{1} << 22;

std::mt19937_64 randomness;
std::vector<uint8_t> present;  // what is being tried, and the file it was made of, for the report
const char* present_name = "";

uint64_t below(uint64_t limit) { return limit ? randomness() % limit : 0; }

void write_present(const char* why) {
    for (const char* text : {why, present_name, "\n"}) (void)!write(STDERR_FILENO, text, std::strlen(text));
    if (FILE* out = std::fopen("fuzz-failure.engine", "wb")) {
        std::fwrite(present.data(), 1, present.size(), out);
        std::fclose(out);
    }
}

void aborted(int) { __asan_on_error(); }

void too_long(int) {
    write_present("fuzz: a minute of processor time, or ten minutes, on one file; it is in fuzz-failure.engine, made of ");
    _exit(3);
}

// Processor time, because a busy machine is no failure; the clock as well, because a deadlock takes no processor time.
void limit_time(bool on) {
    const itimerval processor{{0, 0}, {on ? 60 : 0, 0}};
    (void)setitimer(ITIMER_PROF, &processor, nullptr);
    alarm(on ? 600 : 0);
}

int64_t interesting() {
    static const int64_t kValues[] = {0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 63, 64, 65, 127, 128, 255, 256, 1000, 4096, 65535, 65536, -1, -2, -4, -64,
                                      INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN, int64_t{1} << 31, int64_t{1} << 32, int64_t{1} << 46, int64_t{1} << 62};
    return kValues[below(sizeof kValues / sizeof *kValues)];
}

void mutate(std::vector<uint8_t>* file) {
    if (file->empty()) return;
    const size_t plan_end = std::min<size_t>(file->size(), 4096 + below(file->size()));
    const size_t at = below(plan_end);
    switch (below(9)) {
        case 0: (*file)[at] ^= static_cast<uint8_t>(1u << below(8)); break;
        case 1: (*file)[at] = static_cast<uint8_t>(randomness()); break;
        case 2: (*file)[at] = static_cast<uint8_t>(interesting()); break;
        case 3: put(file, at, static_cast<int32_t>(interesting())); break;
        case 4: put(file, at, interesting()); break;
        case 5: (*file)[at] = static_cast<uint8_t>((*file)[at] + (below(2) ? 1 : 255)); break;
        case 6: {  // one place's bytes at another
            const size_t bytes = std::min<size_t>(1 + below(24), file->size() - at), to = below(file->size() - bytes + 1);
            std::memmove(file->data() + to, file->data() + at, bytes);
            break;
        }
        case 7:
            if (below(8) == 0) file->resize(at);
            break;
        case 8: put(file, at, std::ldexp(1.0, static_cast<int>(below(80)) - 40) * (below(2) ? 1 : -1)); break;
    }
}

size_t size_of_element(ew_dtype dtype) {
    return dtype == EW_S64 ? 8 : dtype == EW_F32 || dtype == EW_S32 ? 4 : dtype == EW_F16 || dtype == EW_BF16 ? 2 : 1;
}

void set_shapes(const ew_engine* engine, ew_context* context, bool damaged, std::vector<size_t>* sizes) {
    const int64_t free_dim = !damaged ? 3 : below(20) == 0 ? interesting() : static_cast<int64_t>(below(5));
    for (int32_t i = 0; i < ew_input_count(engine); ++i) {
        ew_tensor_info info;
        CHECK_STATUS(ew_input_info(engine, i, &info), EW_OK);
        size_t bytes = size_of_element(info.dtype);
        for (int32_t d = 0; d < info.rank; ++d) {
            if (info.dims[d] < 0) info.dims[d] = damaged && below(30) == 0 ? interesting() : free_dim;
            if (__builtin_mul_overflow(bytes, static_cast<size_t>(info.dims[d]), &bytes)) bytes = SIZE_MAX;
        }
        sizes->push_back(bytes);
        (void)ew_set_input_shape(context, i, info.dims, info.rank);
    }
}

bool write_inputs(ew_context* context, const std::vector<size_t>& sizes) {
    for (size_t i = 0; i < sizes.size(); ++i) {
        if (sizes[i] > kMostPort) return false;
        std::vector<uint8_t> data(sizes[i]);
        const uint64_t kind = below(4);
        for (uint8_t& byte : data) byte = kind == 0 ? 0 : kind == 1 ? 255 : static_cast<uint8_t>(randomness());
        if (ew_write_input(context, static_cast<int32_t>(i), data.data(), data.size()) != EW_OK) return false;
    }
    return true;
}

void read_outputs(const ew_engine* engine, ew_context* context) {
    for (int32_t i = 0; i < ew_output_count(engine); ++i) {
        int64_t dims[EW_MAX_RANK];
        int32_t rank = 0;
        ew_tensor_info info;
        CHECK_STATUS(ew_output_shape(context, i, dims, &rank), EW_OK);
        CHECK_STATUS(ew_output_info(engine, i, &info), EW_OK);
        size_t bytes = size_of_element(info.dtype);
        for (int32_t d = 0; d < rank; ++d) bytes *= static_cast<size_t>(dims[d]);
        std::vector<uint8_t> data(bytes);
        CHECK_STATUS(ew_read_output(context, i, data.data(), bytes), EW_OK);
    }
}

// Whether it ran.
bool use(const std::vector<uint8_t>& bytes, bool damaged) {
    const Aligned file(bytes);
    ew_engine* engine = nullptr;
    ew_context* context = nullptr;
    bool ran = false;
    limit_time(true);
    const ew_options options{below(16) == 0 ? 2 : 1, 0, 0};
    if (ew_open_memory(file.data(), file.size(), &engine) == EW_OK && ew_context_create(engine, &options, &context) == EW_OK) {
        std::vector<size_t> sizes;
        set_shapes(engine, context, damaged, &sizes);
        if (write_inputs(context, sizes)) {
            ran = ew_run(context) == EW_OK;
            if (ran) read_outputs(engine, context);
        }
    }
    ew_context_close(context);
    ew_close(engine);
    limit_time(false);
    if (!ran && !damaged) std::fprintf(stderr, "fuzz: %s\n", ew_last_error());
    return ran;
}

void fuzz(const std::vector<uint8_t>& seed, const char* name, long runs) {
    long opened = 0;
    present = seed, present_name = name;
    CHECK(use(present, false));
    for (long i = 0; i < runs; ++i) {
        present = seed;
        for (uint64_t changes = 1 + below(below(4) == 0 ? 12 : 3); changes > 0; --changes) mutate(&present);
        if (below(16) != 0) {
            put<uint64_t>(&present, kSizeAt, present.size());
            seal(&present);
        }
        opened += use(present, true);
    }
    std::printf("fuzz: %s: %ld of %ld damaged files still ran\n", name, opened, runs);
}

}  // namespace

// AddressSanitizer calls this before it ends the process; UndefinedBehaviorSanitizer aborts.
SEEN_BY_SANITIZERS void __asan_on_error() { write_present("fuzz: the file is in fuzz-failure.engine, made of "); }
SEEN_BY_SANITIZERS const char* __asan_default_options() { return "allocator_may_return_null=1:max_allocation_size_mb=1024"; }
SEEN_BY_SANITIZERS const char* __ubsan_default_options() { return "abort_on_error=1:print_stacktrace=1"; }

int main(int count, char** arguments) {
    const long runs = count > 1 ? std::atol(arguments[1]) : 20000;
    const uint64_t seed = count > 2 ? std::strtoull(arguments[2], nullptr, 10) : 1;
    (void)signal(SIGALRM, too_long);
    (void)signal(SIGPROF, too_long);
    (void)signal(SIGABRT, aborted);
    if (count <= 3) {
        randomness.seed(seed);
        fuzz(sum_engine(), "sum", runs);
        fuzz(sum_engine(true), "sum of fixed shape", runs);
        fuzz(counted_engine(), "a count", runs);
    }
    for (int i = 3; i < count; ++i) {
        const std::vector<uint8_t> file = read_file(arguments[i]);
        // By its content: what is done to a file does not depend on which others there are.
        randomness.seed(seed + std::hash<std::string>()(std::string(file.begin(), file.end())));
        fuzz(file, arguments[i], runs);
    }
}
