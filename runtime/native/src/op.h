// The contract between the engine and an operator.
//
// prepare() runs whenever the shapes of a context are new. It must prove that run() stays inside its tensors, whatever an
// engine file says: ranks, dims, dtypes, layouts, attributes and the sizes of constants are all hostile until checked.
// run() then trusts what prepare() saw, allocates nothing and cannot fail.
#pragma once

#include <cstdint>
#include <memory>
#include <new>

#include "attributes.h"
#include "cpu.h"
#include "parallel.h"
#include "status.h"
#include "tensor.h"

namespace ew {

struct Setup {
    const char* op;
    const char* name;  // the layer, for messages
    const Attributes& attributes;
    const Tensor* const* inputs;  // nullptr where an optional input is left out
    int32_t input_count;
    const Tensor* const* outputs;
    int32_t output_count;
    Isa isa;           // the best instruction set of this processor: packed weights serve every one
    int32_t threads;

    // Set by prepare(): memory for each run, 64-byte aligned, not kept between runs.
    uint64_t scratch_bytes = 0;
    // Set by prepare(): what will compute, for the profile.
    const char* kernel = "generic";

    const Tensor* input(int32_t index) const { return index < input_count ? inputs[index] : nullptr; }

    template <typename... Arguments>
    Status refuse(const char* why, Arguments... arguments) const {
        char text[160];
        if constexpr (sizeof...(arguments) == 0) {
            std::snprintf(text, sizeof text, "%s", why);
        } else {
            std::snprintf(text, sizeof text, why, arguments...);
        }
        return Status::fail(EW_BAD_FILE, "%s %s: %s", op, name, text);
    }
};

struct Run {
    Tensor* const* inputs;
    Tensor* const* outputs;
    uint8_t* scratch;
    ThreadPool& pool;
};

class Operator {
public:
    virtual ~Operator() = default;
    virtual Status prepare(Setup& setup) = 0;
    virtual void run(const Run& run) = 0;
};

// By the name in the engine file; nullptr when this library has no such operator, or memory is out (`known` tells).
Operator* make_operator(const char* name, bool* known);

}  // namespace ew
