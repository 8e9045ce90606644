// depthwise in 8 bits with dot products.
#if defined(__ARM_FEATURE_DOTPROD)
#include "conv_neon_dotprod.h"
#include "depthwise_neon.h"

namespace ew {

extern const DepthwiseKernel kDepthwiseS8NeonDotprod;
const DepthwiseKernel kDepthwiseS8NeonDotprod{"s8_neon_dotprod", 4, sums_s8<NeonDotprod>, direct_s8<NeonDotprod>};

}  // namespace ew
#endif
