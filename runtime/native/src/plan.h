// What an engine file holds, read and checked. docs/native-format.md describes the bytes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "attributes.h"
#include "cpu.h"
#include "status.h"
#include "tensor.h"

namespace ew {

constexpr uint32_t kFormatVersion = 1;
constexpr size_t kAlignment = 64;

// A number that may depend on the inputs' shapes. Arguments are earlier expressions, so a pass in order evaluates all. A counted one
// is known when an operator of the run has written it, and until then the most that it can be: memory is placed for that.
struct Expression {
    enum Kind : uint8_t { kConstant, kSymbol, kAdd, kSubtract, kMultiply, kFloorDivide, kCeilDivide, kMinimum, kMaximum, kCounted };
    Kind kind;
    int64_t a;  // the constant, the symbol's index, or an expression's index
    int64_t b;  // an expression's index; of kCounted the tensor that will hold it; of kSymbol the most that it may be, 0 where that is open
};

// A counted expression, in their order.
struct Count {
    uint32_t tensor;
    uint32_t step;  // the operator that writes it
};

struct PlanTensor {
    std::string name;  // owned and null-terminated: handed to C
    DType dtype;
    Layout layout;
    std::vector<uint32_t> dims;  // expressions
    bool constant;
    uint64_t offset;             // constant: bytes from the start of the weights; else the expression of the bytes into the storage
    uint64_t bytes;              // of a constant
    uint32_t storage;
    bool counted = false;        // its dims or its place depend on a count
};

struct PlanOp {
    std::string op;
    std::string name;
    std::vector<int32_t> inputs;  // tensors; -1 where an optional one is left out
    std::vector<uint32_t> outputs;
    Attributes attributes;
    bool counted = false;  // an operand or attribute depends on a count
};

struct Plan {
    Isa isa = Isa::kGeneric;
    std::vector<std::string> symbols;
    std::vector<int64_t> limits;  // of the symbols; 0 where there is none
    std::vector<Expression> expressions;
    std::vector<uint32_t> storages;  // expressions of their sizes in bytes
    std::vector<PlanTensor> tensors;
    std::vector<uint32_t> inputs;   // tensors
    std::vector<uint32_t> outputs;  // tensors
    std::vector<PlanOp> ops;
    std::vector<Count> counts;
    const uint8_t* weights = nullptr;
    uint64_t weights_bytes = 0;
};

// Strings in `plan` are copies; weights and attribute texts point into `data`.
Status read_plan(const uint8_t* data, size_t bytes, Plan* plan);

// Whose fault impossible dims are: the app's, where it chooses shapes, otherwise the file's.
inline ew_status shape_error(const Plan& plan) { return plan.symbols.empty() ? EW_BAD_FILE : EW_INVALID_ARGUMENT; }

// Values of all expressions for these symbols and counts (-1: not known yet). Refuses overflow and division by what is not positive.
Status evaluate(const Plan& plan, const std::vector<int64_t>& symbols, const std::vector<int64_t>& counts, std::vector<int64_t>* values);

}  // namespace ew
