#include "attention_bytes.h"

namespace ew {

#if defined(__x86_64__)
extern const ByteAttention kByteAttentionAvx512Vnni;
#endif

const ByteAttention* byte_attention(Isa isa) {
#if defined(__x86_64__)
    if (isa >= Isa::kAvx512Vnni) return &kByteAttentionAvx512Vnni;
#endif
    (void)isa;
    return nullptr;
}

}  // namespace ew
