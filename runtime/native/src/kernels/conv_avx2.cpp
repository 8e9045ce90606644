// conv with AVX2, in 8 bits and float32.
#if defined(__AVX2__)
#include "conv_avx2.h"
#include "conv_pack.h"
#include "dynamic_block.h"

namespace ew {
extern const ConvKernel kConvS8Avx2, kConvS8WideAvx2, kConvF32Avx2;
const ConvKernel kConvS8Avx2 = kernel_of<Pairs256>("s8_avx2", pack_avx2, fill_avx2);
const ConvKernel kConvS8WideAvx2 = kernel_of<Wide256>("s8_wide_avx2", pack_avx2, fill_avx2);
const ConvKernel kConvF32Avx2 = kernel_of<Float256>("f32_avx2", pack_avx2, fill_avx2);

extern const DynamicKernel kDynamicAvx2;
const DynamicKernel kDynamicAvx2 = dynamic_kernel_of<Wide256, kConvF32Avx2>("dynamic_avx2");

}  // namespace ew
#endif
