// Makes the table of a vector type; included once by each vectors_ISA.cpp.
#pragma once

#include "vectors.h"
#include "vectors_attention.h"
#include "vectors_binary.h"
#include "vectors_bytes.h"
#include "vectors_fold.h"
#include "vectors_gates.h"
#include "vectors_matmul.h"
#include "vectors_norm.h"
#include "vectors_recurrence.h"
#include "vectors_softmax.h"
#include "vectors_unary.h"

namespace ew {
namespace {

template <typename V>
constexpr VectorKernels make_table(const char* name) {
    VectorKernels table{};
    table.name = name;
    table.lanes = V::kLanes;
    table.unary = unary<V>;
    table.binary = binary<V>;
    table.binary_bytes = binary_bytes<V>;
    table.quantize = quantize<V>;
    table.dequantize = dequantize<V>;
    table.quantize_c4 = quantize_c4<V>;
    table.dequantize_c4 = dequantize_c4<V>;
    table.decode = decode<V>;
    table.round_brain = round_brain<V>;
    table.lut = lut;
    table.softmax_row = softmax_row<V>;
    table.softmax_columns = softmax_columns<V>;
    table.norm_columns = norm_columns<V>;
    table.norm_row = norm_row<V>;
    table.moments = moments<V>;
    table.scale_shift = scale_shift<V>;
    table.add_scaled = add_scaled<V>;
    table.fold_row = fold_row<V>;
    table.fold_into = fold_into<V>;
    table.max_bytes = max_bytes;
    table.sum_c4 = sum_c4;
    table.every = every<V>;
    table.product_panel = product_panel<V>;
    table.attend = attend<V>;
    table.recur = recur<V>;
    table.gates = gates<V>;
    return table;
}

}  // namespace
}  // namespace ew
