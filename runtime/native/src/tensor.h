// A tensor as an operator sees it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "edgewise.h"

namespace ew {

using DType = ew_dtype;

// Elements or bytes: far above any memory, far below overflow; on 32 bits a quarter of what can be addressed.
constexpr int64_t kMost = int64_t{1} << (sizeof(void*) == 8 ? 46 : 30);

// PLAIN: row-major. C4, 8-bit tensors only: dims [N, C, spatial...] stored as [N][ceil(C/4)][spatial...][4], so that four
// channels of a pixel (or token) are one 32-bit lane and neighbouring pixels are neighbouring lanes. What lies in the lanes
// of channels beyond C is not defined.
enum class Layout : uint8_t { kPlain = 0, kC4 = 1 };

inline size_t size_of(DType dtype) {
    switch (dtype) {
        case EW_F32:
        case EW_S32: return 4;
        case EW_F16:
        case EW_BF16:
        case EW_S16:
        case EW_U16: return 2;
        case EW_F64:
        case EW_S64: return 8;
        case EW_U8:
        case EW_S8:
        case EW_BOOL: return 1;
    }
    return 0;
}

// When an operator is prepared, no dim is negative and the product of all dims, those of 0 left out, times the size of an element
// is at most kMost: products of any of them cannot overflow.
struct Tensor {
    const char* name = "";
    DType dtype = EW_F32;
    Layout layout = Layout::kPlain;
    int32_t rank = 0;
    int64_t dims[EW_MAX_RANK] = {};
    bool constant = false;      // its data is there while the operator is prepared
    size_t bytes = 0;           // how much memory is behind `data`; at least what dims and layout say
    uint8_t* data = nullptr;    // set before run; constants are set before prepare

    int64_t count() const {
        int64_t n = 1;
        for (int32_t i = 0; i < rank; ++i) n *= dims[i];
        return n;
    }
    // The product of dims[first, last).
    int64_t count(int32_t first, int32_t last) const {
        int64_t n = 1;
        for (int32_t i = first; i < last; ++i) n *= dims[i];
        return n;
    }
    template <typename T>
    T* as() const {
        return reinterpret_cast<T*>(data);
    }
};

}  // namespace ew
