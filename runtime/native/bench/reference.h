// Sample inputs and the outputs that belong to them, in the plain form that edgewise.runtime.devices.reference writes:
//
//   "EWREF\0\0\1"  u32 samples, then for each sample: u32 inputs, u32 outputs, and so many tensors:
//   u32 bytes of name, name, u32 ew_dtype, u32 rank, s64 dims[rank], u64 bytes of data, data.   All little-endian.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "failure.h"

namespace bench {

// Aligned as an engine likes it.
class Buffer {
public:
    explicit Buffer(size_t bytes);
    uint8_t* data() const { return memory_.get(); }
    size_t bytes() const { return bytes_; }

private:
    struct Free {
        void operator()(uint8_t* memory) const;
    };
    std::unique_ptr<uint8_t, Free> memory_;
    size_t bytes_;
};

struct Array {
    std::string name;
    ew_dtype dtype = EW_F32;
    std::vector<int64_t> dims;
    Buffer data{0};
};

struct Sample {
    std::vector<Array> inputs, outputs;
};

// What an output's errors add up to over all samples; the host makes SQNR and cosine of it (edgewise.runtime.compare).
struct Sums {
    std::string name;
    double signal = 0, noise = 0, energy = 0, dot = 0, largest = 0;
    int64_t rows = 0, agreeing = 0;
    bool broken = false;  // NaN or an infinity in one of the two alone
};

size_t size_of(ew_dtype dtype);
Failure read_reference(const char* path, std::vector<Sample>* samples);
void compare(const Array& want, const uint8_t* have, Sums* sums);

}  // namespace bench
