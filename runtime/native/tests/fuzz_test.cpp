// Damaged engine files: opened, prepared and run, whatever they say, under sanitizers. For libFuzzer, which knows what has been reached;
// the changes to numbers that mean something are ours.
//   fuzz_test -max_total_time=60 FOLDER    engine files to begin with; without a folder small ones
//   fuzz_test FILE                         one file again
#include <algorithm>
#include <cmath>
#include <functional>
#include <random>
#include <string_view>

#include "testing.h"

using namespace testing;

// In place of the C library's (-Wl,--wrap): large activations are not worth the time.
extern "C" void* __real_aligned_alloc(size_t alignment, size_t bytes);
extern "C" void* __wrap_aligned_alloc(size_t alignment, size_t bytes) {
    return bytes > (size_t{1} << 24) ? nullptr : __real_aligned_alloc(alignment, bytes);
}

namespace {

constexpr size_t kMostPort = size_t{1} << 22;

std::mt19937_64 randomness;
uint64_t below(uint64_t limit) { return limit ? randomness() % limit : 0; }

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

void set_shapes(const ew_engine* engine, ew_context* context, std::vector<size_t>* sizes) {
    const int64_t free_dim = below(20) == 0 ? interesting() : static_cast<int64_t>(below(5));
    for (int32_t i = 0; i < ew_input_count(engine); ++i) {
        ew_tensor_info info;
        CHECK_STATUS(ew_input_info(engine, i, &info), EW_OK);
        size_t bytes = size_of_element(info.dtype);
        for (int32_t d = 0; d < info.rank; ++d) {
            if (info.dims[d] < 0) info.dims[d] = below(30) == 0 ? interesting() : free_dim;
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

void use(const std::vector<uint8_t>& bytes) {
    const Aligned file(bytes);
    ew_engine* engine = nullptr;
    ew_context* context = nullptr;
    const ew_options options{below(16) == 0 ? 2 : 1, 0, 0};
    if (ew_open_memory(file.data(), file.size(), &engine) == EW_OK && ew_context_create(engine, &options, &context) == EW_OK) {
        for (int runs = below(4) == 0 ? 2 : 1; runs > 0; --runs) {  // other shapes in the same context
            std::vector<size_t> sizes;
            set_shapes(engine, context, &sizes);
            if (write_inputs(context, sizes) && ew_run(context) == EW_OK) read_outputs(engine, context);
        }
    }
    ew_context_close(context);
    ew_close(engine);
}

}  // namespace

SEEN_BY_SANITIZERS const char* __asan_default_options() { return "allocator_may_return_null=1:max_allocation_size_mb=1024"; }
SEEN_BY_SANITIZERS const char* __ubsan_default_options() { return "abort_on_error=1:print_stacktrace=1"; }


extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t most);

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    // What is done to a file does not depend on those before it, so that one alone shows the same.
    randomness.seed(std::hash<std::string_view>()(std::string_view(reinterpret_cast<const char*>(data), size)));
    use(std::vector<uint8_t>(data, data + size));
    return 0;
}

// Our changes to numbers that mean something, or libFuzzer's to any bytes; then mostly the size and the checksum that the reader wants.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t most, unsigned seed) {
    randomness.seed(seed);
    std::vector<uint8_t> file(data, data + size);
    if (size < kPlanAt) {  // nothing to begin with
        const uint64_t kind = below(4);
        file = kind == 0 ? sum_engine(true) : kind == 1 ? counted_engine() : sum_engine(false, kind == 2 ? 0 : 100);
        file.resize(std::min(file.size(), most));
    }
    if (below(2)) {
        for (uint64_t changes = 1 + below(3); changes > 0; --changes) mutate(&file);
    } else {
        const size_t used = file.size();
        file.resize(most);
        file.resize(LLVMFuzzerMutate(file.data(), used, most));
    }
    if (below(16) != 0 && file.size() >= kPlanAt) {
        put<uint64_t>(&file, kSizeAt, file.size());
        seal(&file);
    }
    std::copy(file.begin(), file.end(), data);
    return file.size();
}
