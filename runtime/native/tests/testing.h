// A check that fails loudly, and small engine files made byte by byte (docs/native-format.md).
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "../src/checksum.h"
#include "edgewise.h"

#define CHECK(condition)                                                                                              \
    do {                                                                                                              \
        if (!(condition)) {                                                                                           \
            std::fprintf(stderr, "%s:%d: not so: %s (last error: %s)\n", __FILE__, __LINE__, #condition, ew_last_error()); \
            std::exit(1);                                                                                             \
        }                                                                                                             \
    } while (0)
#define CHECK_STATUS(call, status) CHECK((call) == (status))
// For what a sanitizer looks up by name in the program.
#define SEEN_BY_SANITIZERS extern "C" __attribute__((visibility("default")))
// The call fails with this status, and its message holds this text.
#define CHECK_FAILS(call, status, text)                         \
    do {                                                        \
        CHECK_STATUS(call, status);                             \
        CHECK(std::strstr(ew_last_error(), text) != nullptr);   \
    } while (0)

namespace testing {

inline size_t size_of_element(ew_dtype dtype) {
    switch (dtype) {
        case EW_S64:
        case EW_F64: return 8;
        case EW_F32:
        case EW_S32: return 4;
        case EW_U8:
        case EW_S8:
        case EW_BOOL: return 1;
        default: return 2;
    }
}

struct Free {
    void operator()(uint8_t* memory) const { std::free(memory); }
};

// Bytes at an address that an engine can be opened at, and not one more: a read beyond them is seen.
class Aligned {
public:
    explicit Aligned(const std::vector<uint8_t>& bytes) : size_(bytes.size()) {
        void* memory = nullptr;
        if (posix_memalign(&memory, 64, bytes.empty() ? 1 : bytes.size()) != 0) std::abort();
        memory_.reset(static_cast<uint8_t*>(memory));
        if (!bytes.empty()) std::memcpy(memory, bytes.data(), bytes.size());
    }
    const uint8_t* data() const { return memory_.get(); }
    size_t size() const { return size_; }

private:
    std::unique_ptr<uint8_t, Free> memory_;
    size_t size_;
};

class Bytes {
public:
    std::vector<uint8_t> all;

    template <typename T>
    Bytes& number(T value) {
        const auto* from = reinterpret_cast<const uint8_t*>(&value);
        all.insert(all.end(), from, from + sizeof value);
        return *this;
    }
    Bytes& u8(uint8_t value) { return number(value); }
    Bytes& u32(uint32_t value) { return number(value); }
    Bytes& s64(int64_t value) { return number(value); }
    Bytes& text(const char* value) {
        u32(static_cast<uint32_t>(std::strlen(value)));
        all.insert(all.end(), value, value + std::strlen(value));
        return *this;
    }
    Bytes& expression(uint8_t kind, int64_t a, int64_t b = 0) { return u8(kind).s64(a).s64(b); }
    // A plain tensor of one dim at the start of a storage; expression 0 must be the constant 0.
    Bytes& tensor(const char* name, uint32_t dim, uint32_t storage, ew_dtype dtype = EW_F32) {
        text(name).u8(static_cast<uint8_t>(dtype)).u8(0).u8(0).u32(1).u32(dim);
        return number<uint64_t>(0).number<uint64_t>(0).u32(storage);
    }
    Bytes& binary(const char* name, const char* function, int32_t a, int32_t b, uint32_t y) {
        text("binary").text(name).u32(2).number(a).number(b).u32(1).u32(y);
        return u32(1).text("function").u8(2).text(function);
    }
};

constexpr size_t kPlanAt = 64, kIsaAt = 12, kVersionAt = 8, kSizeAt = 16, kPlanBytesAt = 32, kChecksumAt = 56;

template <typename T>
void put(std::vector<uint8_t>* file, size_t at, T value) {
    if (at + sizeof value <= file->size()) std::memcpy(file->data() + at, &value, sizeof value);
}

inline void seal(std::vector<uint8_t>* file) {
    uint64_t offset = 0, bytes = 0;
    if (file->size() < 64) return;
    std::memcpy(&offset, file->data() + 24, 8);
    std::memcpy(&bytes, file->data() + kPlanBytesAt, 8);
    if (offset > file->size() || bytes > file->size() - offset) return;
    put(file, kChecksumAt, ew::crc32(file->data() + offset, bytes));
}

inline std::vector<uint8_t> file_around(const Bytes& plan) {
    const size_t weights = (kPlanAt + plan.all.size() + 63) / 64 * 64;
    Bytes file;
    file.all.assign({'E', 'D', 'G', 'E', 'W', 'I', 'S', 'E'});
    file.u32(1).u32(0).number<uint64_t>(weights).number<uint64_t>(kPlanAt).number<uint64_t>(plan.all.size());
    file.number<uint64_t>(weights).number<uint64_t>(0).u32(0);
    file.all.resize(kPlanAt);
    file.all.insert(file.all.end(), plan.all.begin(), plan.all.end());
    file.all.resize(weights);
    seal(&file.all);
    return file.all;
}

// y = (a + b) · a; each has N elements (at most `most`, if that is not 0), or 5 where `fixed`.
inline std::vector<uint8_t> sum_engine(bool fixed = false, int64_t most = 0) {
    Bytes plan;
    plan.u32(fixed ? 0 : 1);
    if (!fixed) plan.text("N");
    plan.u32(4).expression(0, 0).expression(fixed ? 0 : 1, fixed ? 5 : 0, most).expression(0, 4).expression(4, 1, 2);
    plan.u32(4).u32(3).u32(3).u32(3).u32(3);
    plan.u32(4).tensor("a", 1, 0).tensor("b", 1, 1).tensor("s", 1, 2).tensor("y", 1, 3);
    plan.u32(2).u32(0).u32(1).u32(1).u32(3);
    plan.u32(2).binary("sum", "add", 0, 1, 2).binary("product", "mul", 2, 0, 3);
    return file_around(plan);
}

// y = the first n of 5 elements of x, as many as a copy of n says; `late`: which comes too late.
inline std::vector<uint8_t> counted_engine(bool late = false, ew_dtype dtype = EW_S64, int64_t tensor = 1) {
    Bytes plan, copy, slice;
    plan.u32(0).u32(6).expression(0, 0).expression(0, 5).expression(0, 20).expression(0, 1).expression(0, 8).expression(9, 1, tensor);
    plan.u32(4).u32(4).u32(4).u32(2).u32(2);
    plan.u32(4).tensor("n", 3, 0, dtype).tensor("c", 3, 1, dtype).tensor("x", 1, 2).tensor("y", 5, 3);
    plan.u32(2).u32(0).u32(2).u32(1).u32(3).u32(2);
    copy.text("copy").text("count").u32(1).number<int32_t>(0).u32(1).u32(1).u32(0);
    slice.text("slice").text("part").u32(1).number<int32_t>(2).u32(1).u32(3);
    slice.u32(2).text("starts").u8(3).u32(1).s64(0).text("steps").u8(3).u32(1).s64(1);
    for (const Bytes* op : {late ? &slice : &copy, late ? &copy : &slice}) plan.all.insert(plan.all.end(), op->all.begin(), op->all.end());
    return file_around(plan);
}

inline std::vector<uint8_t> read_file(const char* path) {
    std::vector<uint8_t> bytes;
    FILE* file = std::fopen(path, "rb");
    if (!file) return bytes;
    uint8_t buffer[4096];
    while (const size_t got = std::fread(buffer, 1, sizeof buffer, file)) bytes.insert(bytes.end(), buffer, buffer + got);
    std::fclose(file);
    return bytes;
}

}  // namespace testing
