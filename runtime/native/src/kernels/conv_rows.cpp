#include "conv_rows.h"

namespace ew {

#if defined(__x86_64__)
extern const ConvRowKernel kConvRowAvx2, kConvRowAvx512;
#endif

const ConvRowKernel* conv_row_kernel(Isa isa) {
#if defined(__x86_64__)
    if (isa >= Isa::kAvx512) return &kConvRowAvx512;
    if (isa >= Isa::kAvx2) return &kConvRowAvx2;
#endif
    (void)isa;
    return nullptr;
}

}  // namespace ew
