// Makes the table of a vector type; included once by each vectors_ISA.cpp.
#pragma once

#include "vectors.h"
#include "vectors_unary.h"

namespace ew {
namespace {

template <typename V>
constexpr VectorKernels make_table(const char* name) {
    VectorKernels table{};
    table.name = name;
    table.unary = unary<V>;
    return table;
}

}  // namespace
}  // namespace ew
