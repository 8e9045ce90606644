#include "functions.h"

namespace ew {
namespace {

// In the order of Function.
constexpr std::string_view kNames[] = {"",         "relu",      "clip", "gelu", "gelu_tanh", "silu", "sigmoid", "hardsigmoid", "hardswish", "tanh",
                                       "elu",      "leakyrelu", "softplus", "mish", "erf",   "exp",  "log",     "sqrt",        "rsqrt",
                                       "reciprocal", "neg",     "abs",  "floor", "ceil",     "round", "sign",   "sin",         "cos"};
static_assert(sizeof kNames / sizeof *kNames == static_cast<size_t>(Function::kCount), "a name for each function");

}  // namespace

bool find_function(std::string_view name, Function* function) {
    for (uint8_t i = 0; i < static_cast<uint8_t>(Function::kCount); ++i) {
        if (kNames[i] == name) {
            *function = static_cast<Function>(i);
            return true;
        }
    }
    return false;
}

}  // namespace ew
