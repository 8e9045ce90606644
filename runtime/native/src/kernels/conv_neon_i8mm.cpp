// conv in 8 bits with dot products of mixed signs.
#if defined(__ARM_FEATURE_MATMUL_INT8)
#include "conv_neon_i8mm.h"
#include "conv_pack_neon.h"
#include "dynamic_block.h"

namespace ew {

extern const ConvKernel kConvS8NeonI8mm;
const ConvKernel kConvS8NeonI8mm = kernel_of<NeonI8mm>("s8_neon_i8mm", pack_generic, fill_neon<false>);

extern const ConvKernel kConvF32Neon;
extern const DynamicKernel kDynamicNeonI8mm;
const DynamicKernel kDynamicNeonI8mm = dynamic_kernel_of<NeonI8mm, kConvF32Neon>("dynamic_neon_i8mm");

}  // namespace ew
#endif
