// Two tensors, element by element, with numpy's broadcasting. function: add sub mul div pow max min mod (fmod=1: C's), of f32, s64
// or s32; equal less greater lessequal greaterequal of any dtype to bool; and or xor of bool. 8-bit operands: binary_bytes.cpp.
#include "binary.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "broadcast.h"

namespace ew {
namespace {

using Loop = void (*)(const uint8_t* a, int64_t a_step, const uint8_t* b, int64_t b_step, uint8_t* y, int64_t count);

template <typename T, typename Y, typename F>
void loop(const uint8_t* a, int64_t a_step, const uint8_t* b, int64_t b_step, uint8_t* y, int64_t count) {
    const auto *left = reinterpret_cast<const T*>(a), *right = reinterpret_cast<const T*>(b);
    auto* to = reinterpret_cast<Y*>(y);
    for (int64_t i = 0; i < count; ++i) to[i] = static_cast<Y>(F()(left[i * a_step], right[i * b_step]));
}

// Integers wrap around, and a division by 0 gives 0: nothing here may stop the process.
template <typename T>
struct Whole {
    using U = std::make_unsigned_t<T>;
    static T divide(T a, T b) {
        if (b == 0) return 0;
        return b == -1 ? static_cast<T>(U{0} - static_cast<U>(a)) : a / b;
    }
    static T remainder(T a, T b) { return b == 0 || b == -1 ? 0 : a % b; }
    struct Add { T operator()(T a, T b) const { return static_cast<T>(static_cast<U>(a) + static_cast<U>(b)); } };
    struct Sub { T operator()(T a, T b) const { return static_cast<T>(static_cast<U>(a) - static_cast<U>(b)); } };
    struct Mul { T operator()(T a, T b) const { return static_cast<T>(static_cast<U>(a) * static_cast<U>(b)); } };
    struct Div { T operator()(T a, T b) const { return divide(a, b); } };
    struct Min { T operator()(T a, T b) const { return std::min(a, b); } };
    struct Max { T operator()(T a, T b) const { return std::max(a, b); } };
    struct Fmod { T operator()(T a, T b) const { return remainder(a, b); } };
    struct Mod {
        T operator()(T a, T b) const {
            const T rest = remainder(a, b);
            return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
        }
    };
    struct Pow {
        T operator()(T a, T b) const {
            if (b < 0) return a == 1 ? 1 : a == -1 ? (b % 2 == 0 ? 1 : -1) : 0;
            U power = 1, base = static_cast<U>(a);
            for (U left = static_cast<U>(b); left > 0; left >>= 1) {
                if (left & 1) power *= base;
                base *= base;
            }
            return static_cast<T>(power);
        }
    };
};

template <typename T>
Loop whole_loop(Pair pair) {
    using W = Whole<T>;
    switch (pair) {
        case Pair::kAdd: return loop<T, T, typename W::Add>;
        case Pair::kSub: return loop<T, T, typename W::Sub>;
        case Pair::kMul: return loop<T, T, typename W::Mul>;
        case Pair::kDiv: return loop<T, T, typename W::Div>;
        case Pair::kMin: return loop<T, T, typename W::Min>;
        case Pair::kMax: return loop<T, T, typename W::Max>;
        case Pair::kPow: return loop<T, T, typename W::Pow>;
        case Pair::kMod: return loop<T, T, typename W::Mod>;
        case Pair::kFmod: return loop<T, T, typename W::Fmod>;
    }
    return nullptr;
}

template <typename T>
Loop compare_loop(std::string_view function) {
    if (function == "equal") return loop<T, uint8_t, std::equal_to<T>>;
    if (function == "less") return loop<T, uint8_t, std::less<T>>;
    if (function == "greater") return loop<T, uint8_t, std::greater<T>>;
    if (function == "lessequal") return loop<T, uint8_t, std::less_equal<T>>;
    if (function == "greaterequal") return loop<T, uint8_t, std::greater_equal<T>>;
    return nullptr;
}

struct And { bool operator()(uint8_t a, uint8_t b) const { return a && b; } };
struct Or { bool operator()(uint8_t a, uint8_t b) const { return a || b; } };
struct Xor { bool operator()(uint8_t a, uint8_t b) const { return !a != !b; } };

Loop bool_loop(std::string_view function) {
    if (function == "and") return loop<uint8_t, uint8_t, And>;
    if (function == "or") return loop<uint8_t, uint8_t, Or>;
    if (function == "xor") return loop<uint8_t, uint8_t, Xor>;
    return compare_loop<uint8_t>(function);
}

class Binary final : public Operator {
public:
    Status prepare(Setup& setup) override {
        EW_TRY(check_operands(setup, 2, 2));
        const Tensor &a = *setup.input(0), &b = *setup.input(1), &y = *setup.outputs[0];
        const bool bytes = is_8_bit(a) || is_8_bit(b) || is_8_bit(y);
        bytes_.reset(bytes ? make_binary_bytes() : nullptr);
        if (bytes) return bytes_ ? bytes_->prepare(setup) : Status::fail(EW_OUT_OF_MEMORY, "no memory for %.100s", setup.name);
        if (a.dtype != b.dtype || !is_plain(a) || !is_plain(b) || !is_plain(y)) return setup.refuse("wants plain tensors of one dtype");
        const Tensor* const operands[] = {&a, &b};
        if (!loops_.set(y, operands)) return setup.refuse("cannot broadcast its inputs to y");
        element_ = static_cast<int64_t>(size_of(a.dtype));
        y_element_ = static_cast<int64_t>(size_of(y.dtype));
        return choose(setup, a.dtype, y.dtype);
    }

    void run(const Run& run) override {
        if (bytes_) return bytes_->run(run);
        const uint8_t *a = run.inputs[0]->data, *b = run.inputs[1]->data;
        uint8_t* y = run.outputs[0]->data;
        loops_.run(run.pool, [&](int64_t first, int64_t count, const int64_t* at) {
            if (loop_) {
                loop_(a + at[0] * element_, loops_.step(0), b + at[1] * element_, loops_.step(1), y + first * y_element_, count);
            } else {
                floats(reinterpret_cast<const float*>(a) + at[0], reinterpret_cast<const float*>(b) + at[1], reinterpret_cast<float*>(y) + first, count);
            }
        });
    }

private:
    Status choose(Setup& setup, DType from, DType to) {
        const auto name = setup.attributes.text("function", "");
        EW_TRY(activation_.read(setup));
        loop_ = nullptr;
        if (from == EW_F32 && to == EW_F32) {
            if (!find_pair(name, setup.attributes.integer("fmod", 0) != 0, &pair_)) return setup.refuse("has no such function");
            kernels_ = &vector_kernels(setup.isa);
            setup.kernel = kernels_->name;
            return {};
        }
        if (activation_.function != Function::kNone) return setup.refuse("has an activation only for float32");
        if (to == EW_BOOL) {
            if (from == EW_F32) loop_ = compare_loop<float>(name);
            if (from == EW_S64) loop_ = compare_loop<int64_t>(name);
            if (from == EW_S32) loop_ = compare_loop<int32_t>(name);
            if (from == EW_BOOL) loop_ = bool_loop(name);
        } else if (from == to && find_pair(name, setup.attributes.integer("fmod", 0) != 0, &pair_)) {
            if (from == EW_S64) loop_ = whole_loop<int64_t>(pair_);
            if (from == EW_S32) loop_ = whole_loop<int32_t>(pair_);
        }
        if (!loop_) return setup.refuse("has no such function for these dtypes");
        return {};
    }

    // In parts that stay in the nearest cache for the activation.
    void floats(const float* a, const float* b, float* y, int64_t count) const {
        constexpr int64_t kPart = 2048;
        const int64_t a_step = loops_.step(0), b_step = loops_.step(1);
        for (int64_t i = 0; i < count; i += kPart) {
            const int64_t some = std::min(kPart, count - i);
            kernels_->binary(pair_, a + i * a_step, a_step, b + i * b_step, b_step, y + i, some);
            activation_.apply(*kernels_, y + i, some);
        }
    }

    std::unique_ptr<Operator> bytes_;
    Broadcast<2> loops_;
    int64_t element_ = 1, y_element_ = 1;
    Loop loop_ = nullptr;
    Pair pair_ = Pair::kAdd;
    Activation activation_;
    const VectorKernels* kernels_ = nullptr;
};

}  // namespace

bool find_pair(std::string_view name, bool c_mod, Pair* pair) {
    constexpr std::string_view kNames[] = {"add", "sub", "mul", "div", "min", "max", "pow", "mod"};
    const auto* found = std::find(std::begin(kNames), std::end(kNames), name);
    if (found == std::end(kNames)) return false;
    *pair = static_cast<Pair>(found - kNames);
    if (*pair == Pair::kMod && c_mod) *pair = Pair::kFmod;
    return true;
}

Status Activation::read(const Setup& setup) {
    if (!find_function(setup.attributes.text("activation", ""), &function)) return setup.refuse("has no such activation");
    alpha = setup.attributes.real("activation_alpha", 0.0f);
    beta = setup.attributes.real("activation_beta", 0.0f);
    return {};
}

Operator* make_binary() { return new (std::nothrow) Binary; }

}  // namespace ew
