// The readable version of conv's kernels, and the table that picks one.
#include <algorithm>
#include <cstring>

#include "conv_pack.h"
#include "conv_table.h"
#include "dynamic_block.h"

namespace ew {
namespace {

struct Scalar {
    static constexpr int kLanes = 1, kVectors = 1, kSpare = 0, kColumns = 1, kLines = 1;
    static constexpr int kChunk = 0, kTogether = 1;
    static constexpr int kSpreads = 0;
    static constexpr bool kPairs = false;
    using Float = F32x1;

    static void load_bytes(const uint8_t* from, bool is_signed, Float (&values)[4], int64_t) {
        for (int o = 0; o < 4; ++o) values[o].v = is_signed ? static_cast<int8_t>(from[o]) : from[o];
    }
    static constexpr int wide(int) { return 4; }
    template <bool kDirect>
    static void store_bytes(uint8_t* to, const Float (&values)[4], const ConvFinish& finish, int64_t) {
        const bool clamps = kDirect && finish.clamps;
        const int32_t low = clamps ? finish.low : finish.y == EW_S8 ? -128 : 0, high = clamps ? finish.high : low + 255;
        for (int o = 0; o < 4; ++o) {
            const Float byte = kDirect ? values[o] : round(values[o]) + Float::all(static_cast<float>(finish.y_zero_point));
            to[o] = static_cast<uint8_t>(
                min(Float::all(static_cast<float>(high)), max(byte, Float::all(static_cast<float>(low)))).to_int().v);
        }
    }
};

struct ScalarFloat;

struct ScalarInt : Scalar {
    using Ends = ScalarFloat;
    using Sum = uint32_t;  // wraps, as the vector instructions do
    struct X {
        uint8_t at[4];
    };
    struct W {
        int8_t at[4];
    };

    static X load_x(const uint8_t* from) {
        X x;
        std::memcpy(x.at, from, 4);
        return x;
    }
    static X broadcast_x(const uint8_t* from) { return load_x(from); }
    static W load_w(const uint8_t* from) {
        W w;
        std::memcpy(w.at, from, 4);
        return w;
    }
    static W broadcast_w(const uint8_t* from) { return load_w(from); }
    static Sum zero() { return 0; }
    static Sum add(Sum a, Sum b) { return a + b; }
    static Sum multiply_add(Sum sum, X x, W w) {
        for (int i = 0; i < 4; ++i) sum += static_cast<uint32_t>(x.at[i] * w.at[i]);
        return sum;
    }
    static void store_sum(uint8_t* to, Sum sum) { std::memcpy(to, &sum, 4); }
    static Sum load_sum(const uint8_t* from) {
        Sum sum;
        std::memcpy(&sum, from, 4);
        return sum;
    }
    static Float to_float(Sum sum) { return {static_cast<float>(static_cast<int32_t>(sum))}; }
};

struct ScalarFloat : Scalar {
    using Sum = float;
    using X = float;
    using W = float;

    static float load_x(const uint8_t* from) {
        float value;
        std::memcpy(&value, from, 4);
        return value;
    }
    static X broadcast_x(const uint8_t* from) { return load_x(from); }
    static W load_w(const uint8_t* from) { return load_x(from); }
    static W broadcast_w(const uint8_t* from) { return load_x(from); }
    static Sum zero() { return 0; }
    static Sum add(Sum a, Sum b) { return a + b; }
    static Sum multiply_add(Sum sum, X x, W w) { return sum + x * w; }
    static void store_sum(uint8_t* to, Sum sum) { std::memcpy(to, &sum, 4); }
    static Sum load_sum(const uint8_t* from) { return load_x(from); }
    static Float to_float(Sum sum) { return {sum}; }
};

constexpr ConvKernel kInt = kernel_of<ScalarInt>("s8_generic", pack_generic, fill_generic);
constexpr ConvKernel kFloat = kernel_of<ScalarFloat>("f32_generic", pack_generic, fill_generic);
constexpr DynamicKernel kDynamic = dynamic_kernel_of<ScalarInt, kFloat>("dynamic_generic");

}  // namespace

#if defined(__x86_64__)
extern const ConvKernel kConvBf16Avx512, kConvS8Avx512Vnni, kConvF32Avx512, kConvS8Avx2, kConvS8WideAvx2, kConvF32Avx2;
#elif defined(__aarch64__)
extern const ConvKernel kConvS8NeonI8mm, kConvS8NeonDotprod, kConvS8Neon, kConvF32Neon;
#elif defined(EDGEWISE_VEC4)
extern const ConvKernel kConvS8Vec4, kConvF32Vec4;
#endif

const ConvKernel& conv_kernel(Isa isa, bool integer, bool safe_pairs) {
    (void)isa, (void)safe_pairs;
#if defined(__x86_64__)
    if (integer && isa >= Isa::kAvx512Vnni) return kConvS8Avx512Vnni;
    if (!integer && isa >= Isa::kAvx512) return kConvF32Avx512;
    if (isa >= Isa::kAvx2) return !integer ? kConvF32Avx2 : safe_pairs ? kConvS8Avx2 : kConvS8WideAvx2;
#elif defined(__aarch64__)
    if (integer && isa >= Isa::kNeonI8mm) return kConvS8NeonI8mm;
    if (integer && isa >= Isa::kNeonDotprod) return kConvS8NeonDotprod;
    if (isa >= Isa::kNeon) return integer ? kConvS8Neon : kConvF32Neon;
#elif defined(EDGEWISE_VEC4)
    if (isa >= Isa::kVec4) return integer ? kConvS8Vec4 : kConvF32Vec4;
#endif
    return integer ? kInt : kFloat;
}

const ConvKernel* brain_kernel(Isa isa) {
#if defined(__x86_64__)
    if (isa >= Isa::kAvx512Bf16) return &kConvBf16Avx512;
#endif
    (void)isa;
    return nullptr;
}

#if defined(__x86_64__)
extern const DynamicKernel kDynamicAvx512Vnni, kDynamicAvx2;
#elif defined(__aarch64__)
extern const DynamicKernel kDynamicNeonI8mm, kDynamicNeonDotprod, kDynamicNeon;
#elif defined(EDGEWISE_VEC4)
extern const DynamicKernel kDynamicVec4;
#endif

const DynamicKernel& dynamic_kernel(Isa isa) {
    (void)isa;
#if defined(__x86_64__)
    if (isa >= Isa::kAvx512Vnni) return kDynamicAvx512Vnni;
    if (isa >= Isa::kAvx2) return kDynamicAvx2;
#elif defined(__aarch64__)
    if (isa >= Isa::kNeonI8mm) return kDynamicNeonI8mm;
    if (isa >= Isa::kNeonDotprod) return kDynamicNeonDotprod;
    if (isa >= Isa::kNeon) return kDynamicNeon;
#elif defined(EDGEWISE_VEC4)
    if (isa >= Isa::kVec4) return kDynamicVec4;
#endif
    return kDynamic;
}

}  // namespace ew
