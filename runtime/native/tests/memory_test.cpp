// Every allocation of opening, preparing and running an engine is made to fail once: a status, no crash, no leak, and the same
// context is well again afterwards. A second run allocates nothing. Arguments: engine files; without any, a small one.
#include <pthread.h>

#include <atomic>
#include <new>

#include "testing.h"

namespace {

std::atomic<long> until_failure{-1};  // -1: none fails
std::atomic<long> allocations{0};

bool fails_now() {
    ++allocations;
    long left = until_failure.load();
    while (left >= 0 && !until_failure.compare_exchange_weak(left, left - 1)) {
    }
    return left == 0;
}

}  // namespace

// Linked with -Wl,--wrap, so that these take the place of the C library's.
extern "C" {
void* __real_aligned_alloc(size_t alignment, size_t bytes);
void* __wrap_aligned_alloc(size_t alignment, size_t bytes) { return fails_now() ? nullptr : __real_aligned_alloc(alignment, bytes); }
int __real_pthread_create(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
int __wrap_pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*start)(void*), void* argument) {
    return fails_now() ? 11 /* EAGAIN */ : __real_pthread_create(thread, attributes, start, argument);
}
}

// All forms: a sanitizer has its own of each.
void* operator new(size_t bytes, const std::nothrow_t&) noexcept { return fails_now() ? nullptr : std::malloc(bytes ? bytes : 1); }
void* operator new(size_t bytes, std::align_val_t alignment, const std::nothrow_t&) noexcept {
    void* memory = nullptr;
    return fails_now() || posix_memalign(&memory, static_cast<size_t>(alignment), bytes) != 0 ? nullptr : memory;
}
void* operator new(size_t bytes) {
    if (void* memory = operator new(bytes, std::nothrow)) return memory;
    throw std::bad_alloc();
}
void* operator new(size_t bytes, std::align_val_t alignment) {
    if (void* memory = operator new(bytes, alignment, std::nothrow)) return memory;
    throw std::bad_alloc();
}
void* operator new[](size_t bytes) { return operator new(bytes); }
void* operator new[](size_t bytes, const std::nothrow_t&) noexcept { return operator new(bytes, std::nothrow); }
void* operator new[](size_t bytes, std::align_val_t alignment) { return operator new(bytes, alignment); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory, size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, size_t, std::align_val_t) noexcept { std::free(memory); }

namespace {

using namespace testing;

// Sets shapes (each free dim is 3), writes zeros, runs, reads.
ew_status use(const ew_engine* engine, ew_context* context) {
    static uint8_t data[1 << 20];
    for (int32_t i = 0; i < ew_input_count(engine); ++i) {
        ew_tensor_info info;
        if (const ew_status status = ew_input_info(engine, i, &info)) return status;
        size_t bytes = size_of_element(info.dtype);
        for (int32_t d = 0; d < info.rank; ++d) bytes *= static_cast<size_t>(info.dims[d] = info.dims[d] < 0 ? 3 : info.dims[d]);
        if (const ew_status status = ew_set_input_shape(context, i, info.dims, info.rank)) return status;
        CHECK(bytes <= sizeof data);
    }
    for (int32_t i = 0; i < ew_input_count(engine); ++i) {
        ew_tensor_info info;
        if (const ew_status status = ew_input_info(engine, i, &info)) return status;
        size_t bytes = size_of_element(info.dtype);
        for (int32_t d = 0; d < info.rank; ++d) bytes *= static_cast<size_t>(info.dims[d] < 0 ? 3 : info.dims[d]);
        if (const ew_status status = ew_write_input(context, i, data, bytes)) return status;
    }
    return ew_run(context);
}

// What the nth allocation's failure (none when negative) leads to.
ew_status attempt(const Aligned& file, long nth, int32_t threads) {
    ew_engine* engine = nullptr;
    ew_context* context = nullptr;
    until_failure = nth;
    ew_status status = ew_open_memory(file.data(), file.size(), &engine);
    const ew_options options{threads, 0, 1};
    if (status == EW_OK) status = ew_context_create(engine, &options, &context);
    if (status == EW_OK) status = use(engine, context);
    until_failure = -1;
    if (context && status != EW_OK) CHECK_STATUS(use(engine, context), EW_OK);
    ew_close(engine);
    ew_context_close(context);
    return status;
}

// With the same shapes and inputs as before a run takes no memory.
void run_again(const Aligned& file, int32_t threads) {
    ew_engine* engine = nullptr;
    ew_context* context = nullptr;
    const ew_options options{threads, 0, 1};
    CHECK_STATUS(ew_open_memory(file.data(), file.size(), &engine), EW_OK);
    CHECK_STATUS(ew_context_create(engine, &options, &context), EW_OK);
    CHECK_STATUS(use(engine, context), EW_OK);
    const long before = allocations;
    CHECK(before > 10);
    CHECK_STATUS(ew_run(context), EW_OK);
    CHECK(allocations == before);
    ew_context_close(context);
    ew_close(engine);
}

void fail_each(const std::vector<uint8_t>& bytes, const char* name, int32_t threads) {
    const Aligned file(bytes);
    CHECK_STATUS(attempt(file, -1, threads), EW_OK);
    run_again(file, threads);
    long nth = 0, failed = 0;
    for (int passed = 0; passed < 20; ++nth) {  // one that may fail without harm does not end it
        const ew_status status = attempt(file, nth, threads);
        CHECK(status == EW_OK || status == EW_OUT_OF_MEMORY);
        passed = status == EW_OK ? passed + 1 : 0;
        failed += status != EW_OK;
    }
    CHECK(failed > 10);
    std::printf("memory: %s, %d threads: %ld allocations, each made to fail\n", name, threads, failed);
}

}  // namespace

int main(int count, char** files) {
    for (const int32_t threads : {1, 3}) {
        fail_each(sum_engine(), "sum", threads);
        fail_each(counted_engine(), "a count", threads);
        for (int i = 1; i < count; ++i) fail_each(read_file(files[i]), files[i], threads);
    }
}
