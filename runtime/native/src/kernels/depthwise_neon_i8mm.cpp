// depthwise in 8 bits with dot products of mixed signs.
#if defined(__ARM_FEATURE_MATMUL_INT8)
#include "conv_neon_i8mm.h"
#include "depthwise_neon.h"

namespace ew {

extern const DepthwiseKernel kDepthwiseS8NeonI8mm;
const DepthwiseKernel kDepthwiseS8NeonI8mm{"s8_neon_i8mm", 4, sums_s8<NeonI8mm>, direct_s8<NeonI8mm>};

}  // namespace ew
#endif
