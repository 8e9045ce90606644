// Makes the table of a vector type; included once by each vectors_ISA.cpp.
#pragma once

#include "vectors.h"
#include "vectors_binary.h"
#include "vectors_bytes.h"
#include "vectors_unary.h"

namespace ew {
namespace {

template <typename V>
constexpr VectorKernels make_table(const char* name) {
    VectorKernels table{};
    table.name = name;
    table.unary = unary<V>;
    table.binary = binary<V>;
    table.binary_bytes = binary_bytes<V>;
    table.quantize = quantize<V>;
    table.dequantize = dequantize<V>;
    table.quantize_c4 = quantize_c4<V>;
    table.dequantize_c4 = dequantize_c4<V>;
    table.lut = lut;
    return table;
}

}  // namespace
}  // namespace ew
