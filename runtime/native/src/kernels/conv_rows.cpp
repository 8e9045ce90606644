#include "conv_rows.h"

namespace ew {

ConvRowFunction conv_row_function(Isa isa) {
#if defined(__x86_64__)
    if (isa >= Isa::kAvx512) return conv_row_avx512;
#endif
    (void)isa;
    return nullptr;
}

}  // namespace ew
