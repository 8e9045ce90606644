// The functions of one variable, by name: what `unary` computes and what other operators apply to their result.
#pragma once

#include <cstdint>
#include <string_view>

namespace ew {

enum class Function : uint8_t {
    kNone,
    kRelu,
    kClip,  // from alpha to beta
    kGelu,
    kGeluTanh,
    kSilu,
    kSigmoid,
    kHardSigmoid,  // alpha * x + beta, from 0 to 1
    kHardSwish,
    kTanh,
    kElu,        // alpha
    kLeakyRelu,  // alpha
    kSoftplus,
    kMish,
    kErf,
    kExp,
    kLog,
    kSqrt,
    kRsqrt,
    kReciprocal,
    kNeg,
    kAbs,
    kFloor,
    kCeil,
    kRound,
    kSign,
    kSin,
    kCos,
    kCount
};

// False when there is none of this name. "" is kNone.
bool find_function(std::string_view name, Function* function);

}  // namespace ew
