// conv on any aarch64: float32, and 8 bits without dot products.
#if defined(__aarch64__)
#include "conv_neon_wide.h"
#include "conv_pack_neon.h"
#include "dynamic_block.h"

namespace ew {

extern const ConvKernel kConvS8Neon, kConvF32Neon;
const ConvKernel kConvS8Neon = shifting(kernel_of<NeonWide>("s8_neon", pack_generic, fill_neon<true>));
const ConvKernel kConvF32Neon = kernel_of<NeonFloat>("f32_neon", pack_generic, fill_neon<false>);

extern const DynamicKernel kDynamicNeon;
const DynamicKernel kDynamicNeon = dynamic_kernel_of<NeonWide, kConvF32Neon>("dynamic_neon");

}  // namespace ew
#endif
