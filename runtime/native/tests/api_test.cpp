// The C interface, used wrongly: every call gives a status and a message.
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <random>
#include <thread>

#include "testing.h"

using namespace testing;

namespace {

struct Opened {
    Aligned bytes;
    ew_engine* engine = nullptr;
    ew_context* context = nullptr;

    explicit Opened(const std::vector<uint8_t>& file, int32_t threads = 1, int32_t profile = 0) : bytes(file) {
        CHECK_STATUS(ew_open_memory(bytes.data(), bytes.size(), &engine), EW_OK);
        const ew_options options{threads, 0, profile};
        CHECK_STATUS(ew_context_create(engine, &options, &context), EW_OK);
    }
    ~Opened() {
        ew_context_close(context);
        ew_close(engine);
    }
    void shape(int64_t n) {
        CHECK_STATUS(ew_set_input_shape(context, 0, &n, 1), EW_OK);
        CHECK_STATUS(ew_set_input_shape(context, 1, &n, 1), EW_OK);
    }
    void write(int64_t n, float a, float b) {
        const std::vector<float> as(static_cast<size_t>(n), a), bs(static_cast<size_t>(n), b);
        CHECK_STATUS(ew_write_input(context, 0, as.data(), as.size() * 4), EW_OK);
        CHECK_STATUS(ew_write_input(context, 1, bs.data(), bs.size() * 4), EW_OK);
    }
    std::vector<float> read(int64_t n) {
        std::vector<float> y(static_cast<size_t>(n));
        CHECK_STATUS(ew_read_output(context, 0, y.data(), y.size() * 4), EW_OK);
        return y;
    }
};

ew_status open_bytes(const std::vector<uint8_t>& file) {
    const Aligned bytes(file);
    ew_engine* engine = nullptr;
    const ew_status status = ew_open_memory(bytes.data(), bytes.size(), &engine);
    CHECK((status == EW_OK) == (engine != nullptr));
    ew_close(engine);
    return status;
}

void null_pointers() {
    Opened one(sum_engine(true));
    ew_engine* engine = nullptr;
    ew_context* context = nullptr;
    ew_tensor_info info;
    ew_memory memory;
    ew_profile_entry entry;
    int64_t dims[EW_MAX_RANK] = {};
    int32_t rank = 0;
    float y[5];
    for (const ew_status status :
         {ew_open(nullptr, &engine), ew_open("x", nullptr), ew_open_memory(nullptr, 64, &engine), ew_open_memory(one.bytes.data(), 64, nullptr),
          ew_input_info(nullptr, 0, &info), ew_input_info(one.engine, 0, nullptr), ew_output_info(nullptr, 0, &info),
          ew_output_info(one.engine, 0, nullptr), ew_context_create(nullptr, nullptr, &context), ew_context_create(one.engine, nullptr, nullptr),
          ew_set_input_shape(nullptr, 0, dims, 1), ew_set_input_shape(one.context, 0, nullptr, 1), ew_output_shape(nullptr, 0, dims, &rank),
          ew_output_shape(one.context, 0, nullptr, &rank), ew_output_shape(one.context, 0, dims, nullptr), ew_write_input(nullptr, 0, y, 20),
          ew_write_input(one.context, 0, nullptr, 20), ew_read_output(nullptr, 0, y, 20), ew_read_output(one.context, 0, nullptr, 20),
          ew_bind_input(nullptr, 0, y, 20), ew_bind_output(nullptr, 0, y, 20), ew_run(nullptr), ew_memory_use(nullptr, &memory),
          ew_memory_use(one.context, nullptr), ew_profile_get(nullptr, 0, &entry), ew_profile_get(one.context, 0, nullptr),
          ew_observe(nullptr, nullptr, nullptr)}) {
        CHECK(status == EW_INVALID_ARGUMENT);
    }
    CHECK(std::strstr(ew_last_error(), "null pointer") != nullptr);
    CHECK(ew_input_count(nullptr) == 0 && ew_output_count(nullptr) == 0 && ew_profile_count(nullptr) == 0);
    ew_close(nullptr);
    ew_context_close(nullptr);
}

void wrong_indices_and_sizes() {
    Opened one(sum_engine(true));
    ew_tensor_info info;
    ew_profile_entry entry;
    int64_t dims[EW_MAX_RANK] = {5};
    int32_t rank = 0;
    float y[6] = {};
    for (const int32_t index : {-1, 2, INT32_MAX, INT32_MIN}) {
        CHECK_FAILS(ew_input_info(one.engine, index, &info), EW_INVALID_ARGUMENT, "there is no entry");
        CHECK_STATUS(ew_output_info(one.engine, index, &info), EW_INVALID_ARGUMENT);
        CHECK_STATUS(ew_set_input_shape(one.context, index, dims, 1), EW_INVALID_ARGUMENT);
        CHECK_STATUS(ew_output_shape(one.context, index, dims, &rank), EW_INVALID_ARGUMENT);
        CHECK_STATUS(ew_write_input(one.context, index, y, 20), EW_INVALID_ARGUMENT);
        CHECK_STATUS(ew_read_output(one.context, index, y, 20), EW_INVALID_ARGUMENT);
        CHECK_STATUS(ew_bind_input(one.context, index, y, 20), EW_INVALID_ARGUMENT);
        CHECK_STATUS(ew_bind_output(one.context, index, y, 20), EW_INVALID_ARGUMENT);
        CHECK_STATUS(ew_profile_get(one.context, index, &entry), EW_INVALID_ARGUMENT);
    }
    for (const size_t bytes : {size_t{0}, size_t{19}, size_t{21}, SIZE_MAX}) {
        CHECK_FAILS(ew_write_input(one.context, 0, y, bytes), EW_INVALID_ARGUMENT, "a has 20 bytes");
        CHECK_STATUS(ew_read_output(one.context, 0, y, bytes), EW_INVALID_ARGUMENT);
        CHECK_STATUS(ew_bind_input(one.context, 0, y, bytes), EW_INVALID_ARGUMENT);
        CHECK_STATUS(ew_bind_output(one.context, 0, y, bytes), EW_INVALID_ARGUMENT);
    }
    CHECK_FAILS(ew_bind_input(one.context, 0, reinterpret_cast<char*>(y) + 1, 20), EW_INVALID_ARGUMENT, "not aligned");
    CHECK_FAILS(ew_set_input_shape(one.context, 0, dims, 2), EW_INVALID_ARGUMENT, "has 1 dims, not 2");
    CHECK_STATUS(ew_set_input_shape(one.context, 0, dims, -1), EW_INVALID_ARGUMENT);
    dims[0] = 6;
    CHECK_FAILS(ew_set_input_shape(one.context, 0, dims, 1), EW_INVALID_ARGUMENT, "is 5, not 6");
    for (const int32_t threads : {-1, 1025, INT32_MIN}) {
        const ew_options options{threads, 0, 0};
        ew_context* context = nullptr;
        CHECK_FAILS(ew_context_create(one.engine, &options, &context), EW_INVALID_ARGUMENT, "threads");
        CHECK(context == nullptr);
    }
}

void bounds() {
    for (const int64_t none : {int64_t{-1}, INT64_MIN, INT64_MAX}) {
        const Aligned file(sum_engine(false, none));
        ew_engine* engine = nullptr;
        CHECK_FAILS(ew_open_memory(file.data(), file.size(), &engine), EW_BAD_FILE, "a bound that is none");
    }
    Opened one(sum_engine(false, 1000));
    ew_memory planned, used;
    CHECK_STATUS(ew_memory_use(one.context, &planned), EW_OK);  // before any shape is known
    CHECK(planned.arena_bytes >= 3 * 4000 && planned.least_arena_bytes >= 3 * 4000);
    CHECK_FAILS(ew_run(one.context), EW_INVALID_ARGUMENT, "no input has said how large N is");
    for (const int64_t n : {int64_t{7}, int64_t{1000}, int64_t{0}, int64_t{999}}) {
        one.shape(n);
        one.write(n, 2, 3);
        CHECK_STATUS(ew_run(one.context), EW_OK);
        for (const float y : one.read(n)) CHECK(y == 10);
        CHECK_STATUS(ew_memory_use(one.context, &used), EW_OK);
        CHECK(used.arena_bytes == planned.arena_bytes);
    }
    const int64_t above = 1001;
    CHECK_FAILS(ew_set_input_shape(one.context, 1, &above, 1), EW_INVALID_ARGUMENT, "dim 0 (N) of input b is 1001, and the engine was built for at most 1000");
    one.write(999, 2, 3);  // the shapes from before hold
    CHECK_STATUS(ew_run(one.context), EW_OK);
    const Aligned file(sum_engine(false, int64_t{1} << (sizeof(void*) == 8 ? 43 : 29)));
    ew_engine* engine = nullptr;
    ew_context* context = nullptr;
    CHECK_STATUS(ew_open_memory(file.data(), file.size(), &engine), EW_OK);
    CHECK_STATUS(ew_context_create(engine, nullptr, &context), EW_OUT_OF_MEMORY);
    ew_close(engine);
}

void shapes() {
    Opened one(sum_engine());
    int64_t dims[EW_MAX_RANK] = {3};
    int32_t rank = 0;
    ew_tensor_info info;
    CHECK_STATUS(ew_input_info(one.engine, 1, &info), EW_OK);
    CHECK(info.rank == 1 && info.dims[0] == -1 && std::strcmp(info.dim_names[0], "N") == 0 && std::strcmp(info.name, "b") == 0);
    CHECK_FAILS(ew_run(one.context), EW_INVALID_ARGUMENT, "no input has said how large N is");
    CHECK_STATUS(ew_set_input_shape(one.context, 0, dims, 1), EW_OK);
    CHECK_STATUS(ew_output_shape(one.context, 0, dims, &rank), EW_OK);
    CHECK(rank == 1 && dims[0] == 3);
    CHECK_FAILS(ew_run(one.context), EW_INVALID_ARGUMENT, "input a has no data");
    dims[0] = 4;
    CHECK_STATUS(ew_set_input_shape(one.context, 1, dims, 1), EW_OK);
    CHECK_FAILS(ew_run(one.context), EW_INVALID_ARGUMENT, "N is 3 in input a and 4 in input b");
    for (const int64_t n : {int64_t{1}, int64_t{0}, int64_t{100000}, int64_t{7}}) {
        one.shape(n);
        one.write(n, 2, 3);
        CHECK_STATUS(ew_run(one.context), EW_OK);
        for (const float y : one.read(n)) CHECK(y == 10);
    }
    dims[0] = -1;
    CHECK_FAILS(ew_set_input_shape(one.context, 0, dims, 1), EW_INVALID_ARGUMENT, "cannot be -1");
    dims[0] = INT64_MAX;
    CHECK_STATUS(ew_set_input_shape(one.context, 0, dims, 1), EW_INVALID_ARGUMENT);
    constexpr bool kWide = sizeof(void*) == 8;
    one.shape(int64_t{1} << (kWide ? 46 : 30));  // a tensor of 4 times as many bytes
    CHECK_FAILS(ew_run(one.context), EW_OUT_OF_MEMORY, "too large for any memory");
    one.shape(int64_t{1} << (kWide ? 41 : 28));  // each fits, all together do not
    CHECK_FAILS(ew_run(one.context), EW_OUT_OF_MEMORY, kWide ? "no memory for" : "too large for any memory");
    if (!kWide) CHECK_FAILS(ew_set_input_shape(one.context, 0, &(dims[0] = (int64_t{1} << 32) + 4), 1), EW_INVALID_ARGUMENT, "cannot be 4294967300");
    one.shape(2);  // and it is well again
    one.write(2, 1, 1);
    CHECK_STATUS(ew_run(one.context), EW_OK);
    CHECK(one.read(2)[1] == 2);
}

void binding() {
    Opened one(sum_engine());
    std::vector<float> a(4, 2), b(4, 5), y(4, 0);
    one.shape(4);
    CHECK_STATUS(ew_bind_input(one.context, 0, a.data(), 16), EW_OK);
    CHECK_STATUS(ew_bind_input(one.context, 1, b.data(), 16), EW_OK);
    CHECK_STATUS(ew_bind_output(one.context, 0, y.data(), 16), EW_OK);
    CHECK_STATUS(ew_run(one.context), EW_OK);
    CHECK(y[3] == 14 && one.read(4)[3] == 14);
    CHECK_STATUS(ew_read_output(one.context, 0, y.data(), 16), EW_OK);  // onto itself
    one.shape(1000);  // what is bound is too small now, and must not be touched
    CHECK_FAILS(ew_run(one.context), EW_INVALID_ARGUMENT, "a has 4000 bytes now, but is bound to 16");
    one.write(1000, 1, 1);  // unbinds
    CHECK_FAILS(ew_run(one.context), EW_INVALID_ARGUMENT, "y has 4000 bytes now");
    CHECK_STATUS(ew_bind_output(one.context, 0, nullptr, 0), EW_OK);
    CHECK_STATUS(ew_run(one.context), EW_OK);
    CHECK(one.read(1000)[999] == 2);
    CHECK(a[0] == 2 && b[0] == 5);
    one.shape(4);
    CHECK_STATUS(ew_bind_input(one.context, 0, a.data(), 16), EW_OK);
    CHECK_STATUS(ew_bind_input(one.context, 0, nullptr, 0), EW_OK);
    CHECK_FAILS(ew_run(one.context), EW_INVALID_ARGUMENT, "has no data");
}

// A dim that a run finds out: the shape before is the largest, after that of the result; memory is always for the largest.
void counts() {
    Opened one(counted_engine());
    const std::vector<float> x{1, 2, 3, 4, 5};
    std::vector<float> y(5, 0);
    int64_t dims[EW_MAX_RANK];
    int32_t rank = 0;
    ew_tensor_info info;
    CHECK_STATUS(ew_output_info(one.engine, 0, &info), EW_OK);
    CHECK(info.rank == 1 && info.dims[0] == -1 && info.dim_names[0] == nullptr);
    CHECK_STATUS(ew_output_shape(one.context, 0, dims, &rank), EW_OK);
    CHECK(rank == 1 && dims[0] == 5);
    CHECK_STATUS(ew_write_input(one.context, 1, x.data(), 20), EW_OK);
    for (const int64_t n : {int64_t{3}, int64_t{0}, int64_t{5}, INT64_MAX, int64_t{1}, int64_t{1}, int64_t{-1}, INT64_MIN, int64_t{2}}) {
        CHECK_STATUS(ew_write_input(one.context, 0, &n, 8), EW_OK);
        CHECK_STATUS(ew_run(one.context), EW_OK);
        CHECK_STATUS(ew_output_shape(one.context, 0, dims, &rank), EW_OK);
        const int64_t wanted = n < 0 ? 0 : n > 5 ? 5 : n;
        CHECK(dims[0] == wanted && one.read(wanted) == std::vector<float>(x.begin(), x.begin() + wanted));
        CHECK_FAILS(ew_read_output(one.context, 0, y.data(), static_cast<size_t>(wanted) * 4 + 4), EW_INVALID_ARGUMENT, "y has ");
    }
    CHECK_FAILS(ew_bind_output(one.context, 0, y.data(), 8), EW_INVALID_ARGUMENT, "y has 20 bytes, not 8");
    CHECK_STATUS(ew_bind_output(one.context, 0, y.data(), 20), EW_OK);
    for (const int64_t n : {int64_t{4}, int64_t{1}}) {
        CHECK_STATUS(ew_write_input(one.context, 0, &n, 8), EW_OK);
        CHECK_STATUS(ew_run(one.context), EW_OK);
    }
    CHECK(y == std::vector<float>({1, 2, 3, 4, 0}));
    CHECK(open_bytes(counted_engine(true)) == EW_BAD_FILE && std::strstr(ew_last_error(), "needs a count that is not there yet"));
    CHECK(open_bytes(counted_engine(false, EW_F32)) == EW_BAD_FILE && std::strstr(ew_last_error(), "a count that is no number"));
    CHECK(open_bytes(counted_engine(false, EW_S64, 9)) == EW_BAD_FILE && std::strstr(ew_last_error(), "a count that is no number"));
    CHECK(open_bytes(counted_engine(false, EW_S64, 0)) == EW_BAD_FILE && std::strstr(ew_last_error(), "a count that no operator writes"));
}

void headers() {
    auto file = sum_engine();
    put<uint32_t>(&file, kVersionAt, 2);
    CHECK(open_bytes(file) == EW_BAD_FILE && std::strstr(ew_last_error(), "format version 2, this library reads 1"));
    file = sum_engine();
    put<uint32_t>(&file, kIsaAt, 4);  // the test runs with EDGEWISE_ISA=generic
    CHECK(open_bytes(file) == EW_UNSUPPORTED && std::strstr(ew_last_error(), "built for avx512bf16, this processor has generic"));
    put<uint32_t>(&file, kIsaAt, 77);
    CHECK(open_bytes(file) == EW_BAD_FILE);
    file = sum_engine();
    file[kPlanAt + 5] ^= 1;
    CHECK(open_bytes(file) == EW_BAD_FILE && std::strstr(ew_last_error(), "checksum"));
    for (size_t size = 0; size < file.size(); ++size) {
        auto cut = sum_engine();
        cut.resize(size);
        CHECK(open_bytes(cut) == EW_BAD_FILE);
        put<uint64_t>(&cut, kSizeAt, size);
        seal(&cut);
        CHECK(open_bytes(cut) != EW_OK || size >= kPlanAt);
    }
    const Aligned odd(sum_engine());
    ew_engine* engine = nullptr;
    CHECK_FAILS(ew_open_memory(odd.data() + 1, odd.size() - 1, &engine), EW_INVALID_ARGUMENT, "not aligned to 64");
    CHECK_FAILS(ew_open("/nothing/of/this/name", &engine), EW_IO_ERROR, "No such file");
    CHECK_STATUS(ew_open("/", &engine), EW_IO_ERROR);
    CHECK_STATUS(ew_open("/dev/null", &engine), EW_IO_ERROR);
}

// An operator that is not there, one that writes into an input, and the like.
void plans() {
    const auto with = [](const char* op, int32_t a, uint32_t y, uint32_t storage_of_y, uint32_t bytes) {
        Bytes plan;
        plan.u32(0).u32(3).expression(0, 0).expression(0, 5).expression(0, bytes).u32(2).u32(2).u32(2);
        plan.u32(3).tensor("a", 1, 0).tensor("y", 1, storage_of_y).tensor("z", 1, 0);
        plan.u32(1).u32(0).u32(1).u32(1);
        plan.u32(1).text(op).text("one").u32(2).number(a).number(a).u32(1).u32(y).u32(1).text("function").u8(2).text("add");
        return file_around(plan);
    };
    CHECK(open_bytes(with("binary", 0, 1, 1, 20)) == EW_OK);
    CHECK(open_bytes(with("binary", 0, 2, 1, 20)) == EW_BAD_FILE && std::strstr(ew_last_error(), "writes into an input"));
    CHECK(open_bytes(with("binary", 0, 1, 0, 20)) == EW_BAD_FILE && std::strstr(ew_last_error(), "in one storage"));
    CHECK(open_bytes(with("binary", 7, 1, 1, 20)) == EW_BAD_FILE);
    CHECK(open_bytes(with("binary", 0, 9, 1, 20)) == EW_BAD_FILE);
    CHECK(open_bytes(with("binary", 0, 1, 9, 20)) == EW_BAD_FILE);
    for (const uint32_t bytes : {19u, 24u, 0u}) {
        const Aligned file(with("binary", 0, 1, 1, bytes));
        ew_engine* engine = nullptr;
        ew_context* context = nullptr;
        CHECK_STATUS(ew_open_memory(file.data(), file.size(), &engine), EW_OK);
        CHECK_STATUS(ew_context_create(engine, nullptr, &context), EW_BAD_FILE);
        ew_close(engine);
    }
    const Aligned file(with("nonesuch", 0, 1, 1, 20));
    ew_engine* engine = nullptr;
    ew_context* context = nullptr;
    CHECK_STATUS(ew_open_memory(file.data(), file.size(), &engine), EW_OK);
    CHECK_FAILS(ew_context_create(engine, nullptr, &context), EW_UNSUPPORTED, "no operator nonesuch");
    ew_close(engine);
}

void threads_and_lifetimes() {
    Opened one(sum_engine(), 2, 1);
    // Each of the threads gets its turn or EW_BUSY, and nothing else.
    one.shape(200000);
    one.write(200000, 1, 2);
    std::atomic<int> busy{0}, done{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
        threads.emplace_back([&] {
            for (int run = 0; run < 50; ++run) {
                const ew_status status = ew_run(one.context);
                CHECK(status == EW_OK || status == EW_BUSY);
                (status == EW_OK ? done : busy)++;
                ew_profile_entry entry;
                const ew_status got = ew_profile_get(one.context, 0, &entry);
                CHECK(got == EW_OK || got == EW_BUSY);
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(done > 0 && done + busy == 200);
    ew_profile_entry entry;
    CHECK_STATUS(ew_profile_get(one.context, 1, &entry), EW_OK);
    CHECK(entry.runs == static_cast<uint64_t>(done) && std::strcmp(entry.op, "binary") == 0 && entry.total_ns > 0);
    ew_memory memory;
    CHECK_STATUS(ew_memory_use(one.context, &memory), EW_OK);
    CHECK(memory.arena_bytes >= 3 * 800000 && memory.weights_bytes == 0);
    CHECK(memory.least_arena_bytes >= 3 * 800000 && memory.least_arena_bytes <= memory.arena_bytes);

    // A context outlives its engine's handle; many contexts, more threads than cores.
    Opened other(sum_engine(), 5);
    ew_close(other.engine);
    other.engine = nullptr;
    threads.clear();
    threads.emplace_back([&] {
        other.shape(30000);
        for (int run = 0; run < 100; ++run) {
            other.write(30000, 2, static_cast<float>(run));
            CHECK_STATUS(ew_run(other.context), EW_OK);
            CHECK(other.read(30000)[29999] == 4 + 2 * static_cast<float>(run));
        }
    });
    for (int i = 0; i < 3; ++i) {
        threads.emplace_back([&one, i] {
            ew_context* context = nullptr;
            const ew_options options{i + 1, 1, 0};
            const std::vector<float> ones(9000, 1);
            const int64_t n = 9000;
            std::vector<float> y(9000);
            CHECK_STATUS(ew_context_create(one.engine, &options, &context), EW_OK);
            CHECK_STATUS(ew_set_input_shape(context, 0, &n, 1), EW_OK);
            for (int32_t port = 0; port < 2; ++port) CHECK_STATUS(ew_write_input(context, port, ones.data(), 36000), EW_OK);
            for (int run = 0; run < 100; ++run) CHECK_STATUS(ew_run(context), EW_OK);
            CHECK_STATUS(ew_read_output(context, 0, y.data(), 36000), EW_OK);
            CHECK(y[8999] == 2);
            ew_context_close(context);
        });
    }
    for (std::thread& thread : threads) thread.join();
}

struct Seen {
    ew_context* context;
    std::vector<std::vector<float>> values;
};

// Calls in any order with any numbers, on one context: a status each, and the context computes the same as ever between them.
void random_calls() {
    Opened one(sum_engine());
    alignas(64) static uint8_t memory[1 << 16];
    std::mt19937 draw(7);
    const auto pick = [&](std::initializer_list<int64_t> numbers) { return numbers.begin()[draw() % numbers.size()]; };
    int64_t runs = 0;
    for (int call = 0; call < 20000; ++call) {
        const auto index = static_cast<int32_t>(pick({-1, 0, 0, 1, 1, 2, INT32_MAX}));
        const auto bytes = static_cast<size_t>(pick({0, 4, 12, 12, 13, 4000, 1 << 16}));
        uint8_t* data = pick({0, 1, 1, 1}) ? memory + pick({0, 0, 0, 4, 1}) : nullptr;
        const size_t room = data ? std::min(bytes, static_cast<size_t>(memory + sizeof memory - data)) : bytes;
        int64_t dims[16];
        for (int64_t& dim : dims) dim = pick({1, 3, 3, 3, 1000, 0, -1, INT64_MIN, INT64_MAX, int64_t{1} << 40, int64_t{1} << 61});
        auto rank = static_cast<int32_t>(pick({1, 1, 1, 1, 0, 2, 9, -1, INT32_MAX}));
        ew_tensor_info info;
        ew_memory use;
        ew_profile_entry entry;
        ew_status status = EW_OK;
        switch (draw() % 9) {
            case 0:
            case 1: status = ew_set_input_shape(one.context, index, dims, rank); break;
            case 2: status = ew_write_input(one.context, index, data, room); break;
            case 3: status = ew_read_output(one.context, index, data, room); break;
            case 4: status = ew_bind_input(one.context, index, data, room); break;
            case 5: status = ew_bind_output(one.context, index, data, room); break;
            case 6: runs += (status = ew_run(one.context)) == EW_OK; break;
            case 7: status = ew_output_shape(one.context, index, dims, &rank); break;
            default:
                status = std::max(ew_input_info(one.engine, index, &info), ew_profile_get(one.context, index, &entry));
                CHECK_STATUS(ew_memory_use(one.context, &use), ew_memory_use(one.context, &use));
        }
        CHECK(status >= EW_OK && (status == EW_OK || ew_last_error()[0] != '\0'));
    }
    CHECK(runs > 10);
    one.shape(3);
    CHECK_STATUS(ew_bind_output(one.context, 0, nullptr, 0), EW_OK);
    one.write(3, 1, 2);
    CHECK_STATUS(ew_run(one.context), EW_OK);
    CHECK(one.read(3) == std::vector<float>(3, 3));
}

void look(void* user, const ew_result* result) {
    auto* seen = static_cast<Seen*>(user);
    CHECK(ew_run(seen->context) == EW_BUSY && ew_observe(seen->context, nullptr, nullptr) == EW_BUSY);
    CHECK(result->op == static_cast<int32_t>(seen->values.size()) && result->output == 0 && result->dtype == EW_F32 && result->quads == 0);
    CHECK(result->rank == 1 && result->dims[0] == 5 && result->bytes == 20);
    const auto* data = static_cast<const float*>(result->data);
    seen->values.emplace_back(data, data + 5);
}

// The sum, and its product with the first input.
void observing() {
    Opened one(sum_engine(true));
    one.write(5, 2, 3);
    Seen seen{one.context, {}};
    CHECK_STATUS(ew_observe(one.context, &look, &seen), EW_OK);
    CHECK_STATUS(ew_run(one.context), EW_OK);
    CHECK(seen.values.size() == 2 && seen.values[0] == std::vector<float>(5, 5) && seen.values[1] == std::vector<float>(5, 10));
    CHECK(seen.values[1] == one.read(5));
    CHECK_STATUS(ew_observe(one.context, nullptr, nullptr), EW_OK);
    CHECK_STATUS(ew_run(one.context), EW_OK);
    CHECK(seen.values.size() == 2);
}

}  // namespace

// Too much memory is asked for on purpose.
SEEN_BY_SANITIZERS const char* __asan_default_options() { return "allocator_may_return_null=1"; }
SEEN_BY_SANITIZERS const char* __tsan_default_options() { return "allocator_may_return_null=1"; }

int main() {
    setenv("EDGEWISE_ISA", "generic", 1);
    CHECK(std::strcmp(ew_isas(), "generic") == 0 && ew_version()[0] != '\0');
    null_pointers();
    wrong_indices_and_sizes();
    shapes();
    bounds();
    binding();
    counts();
    observing();
    random_calls();
    headers();
    plans();
    threads_and_lifetimes();
    std::puts("api: all well");
}
