// What many operators ask of their operands before they run.
#pragma once

#include "../op.h"

namespace ew {

inline bool is_8_bit(const Tensor& tensor) { return tensor.dtype == EW_U8 || tensor.dtype == EW_S8; }
inline bool is_plain(const Tensor& tensor) { return tensor.layout == Layout::kPlain; }
inline bool is_plain(const Tensor& tensor, DType dtype) { return is_plain(tensor) && tensor.dtype == dtype; }

inline bool same_dims(const Tensor& a, const Tensor& b) {
    if (a.rank != b.rank) return false;
    for (int32_t i = 0; i < a.rank; ++i) {
        if (a.dims[i] != b.dims[i]) return false;
    }
    return true;
}

// Elements that lie in memory: with C4, those of channels beyond C too.
inline int64_t stored_count(const Tensor& tensor) {
    if (is_plain(tensor)) return tensor.count();
    return tensor.dims[0] * ((tensor.dims[1] + 3) / 4 * 4) * tensor.count(2, tensor.rank);
}

// So many inputs, none of them left out before `needed`, and one output.
inline Status check_operands(const Setup& setup, int32_t needed, int32_t most) {
    if (setup.input_count < needed || setup.input_count > most) return setup.refuse("takes %d inputs, not %d", needed, setup.input_count);
    for (int32_t i = 0; i < needed; ++i) {
        if (!setup.inputs[i]) return setup.refuse("lacks input %d", i);
    }
    if (setup.output_count != 1) return setup.refuse("gives one output, not %d", setup.output_count);
    return {};
}

// Work per piece that is worth another thread, in elements.
constexpr int64_t kGrain = 8192;

}  // namespace ew
