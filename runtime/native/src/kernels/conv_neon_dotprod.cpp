// conv in 8 bits with dot products.
#if defined(__ARM_FEATURE_DOTPROD)
#include "conv_neon_dotprod.h"
#include "conv_pack_neon.h"
#include "dynamic_block.h"

namespace ew {

extern const ConvKernel kConvS8NeonDotprod;
const ConvKernel kConvS8NeonDotprod = shifting(kernel_of<NeonDotprod>("s8_neon_dotprod", pack_generic, fill_neon<true>));

extern const ConvKernel kConvF32Neon;
extern const DynamicKernel kDynamicNeonDotprod;
const DynamicKernel kDynamicNeonDotprod = dynamic_kernel_of<NeonDotprod, kConvF32Neon>("dynamic_neon_dotprod");

}  // namespace ew
#endif
