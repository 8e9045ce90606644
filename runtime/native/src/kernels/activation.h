// Functions of one variable on vectors of float32 (simd.h), for `unary` and for the end of other kernels.
//
// Within 4 ulp of the true value wherever it is a normal float32, but gelu and gelu_tanh: within 4 ulp of x (their left tail
// is a difference). Infinities and NaN give what the definition gives in IEEE arithmetic. The polynomials and fractions were
// fitted for least relative error on the ranges named; tests/runtime/native/test_native_unary.py holds the bounds.
#pragma once

#include <type_traits>

#include "functions.h"
#include "simd.h"

namespace ew {
namespace {

template <typename V>
EW_INLINE V horner(V, float last) {
    return V::all(last);
}
// first + x * (second + x * …)
template <typename V, typename... More>
EW_INLINE V horner(V x, float first, More... more) {
    return fma(horner(x, more...), x, V::all(first));
}

// e^r - 1 on [-ln(2)/2, ln(2)/2], and the power of two n that x = n * ln(2) + r has. ln(2) in two parts: n times the first is exact.
template <typename V>
EW_INLINE V reduced_expm1(V x, V* n) {
    *n = round(x * V::all(1.44269504f));
    const V r = fma(*n, V::all(2.12194440e-4f), fma(*n, V::all(-0.693359375f), x));
    return fma(horner(r, 0.5f, 0.166665763f, 0.0416663736f, 0.00836317614f, 0.0013941112f), r * r, r);
}

template <typename V>
EW_INLINE V exp_of(V x) {
    V n;
    const V part = reduced_expm1(min(V::all(89.0f), max(V::all(-104.0f), x)), &n);
    return scale(part + V::all(1.0f), n);
}

// e^x - 1 without cancellation near 0.
template <typename V>
EW_INLINE V expm1_of(V x) {
    V n;
    const V part = reduced_expm1(min(V::all(88.0f), max(V::all(-104.0f), x)), &n), power = scale(V::all(1.0f), n);
    const V out = fma(part, power, power - V::all(1.0f));
    return select(V::all(88.0f) < x, exp_of(x), out);
}

template <typename V>
EW_INLINE V log_of(V x) {
    using Int = typename V::Int;
    const auto tiny = x < V::all(1.17549435e-38f);  // no normal number: bring its leading bit up
    const V normal = select(tiny, x * V::all(8388608.0f), x);
    const Int root = Int::all(0x3f3504f3);  // sqrt(1/2): the fraction lies from there to sqrt(2)
    const Int moved = normal.bits() - root;
    const V exponent = V::from_int(moved.template right<23>()) - select(tiny, V::all(23.0f), V::all(0.0f));
    const V f = V::from_bits((moved & Int::all(0x7fffff)) + root) - V::all(1.0f), square = f * f;
    const V series = horner(f, 0.333333254f, -0.250002801f, 0.200018793f, -0.166434884f, 0.141902372f, -0.129434198f, 0.127988979f, -0.0830537826f);
    V out = fma(series, square * f, exponent * V::all(-2.12194440e-4f));
    out = fma(square, V::all(-0.5f), out) + f;
    out = fma(exponent, V::all(0.693359375f), out);
    const V zero = V::all(0.0f), infinity = V::all(HUGE_VALF), none = V::all(NAN);
    out = select(zero < abs(x), out, zero - infinity);  // not beside a number so small that some processors take it for zero
    out = select(x < infinity, out, x);  // infinity and NaN are their own
    return select(x < zero, none, out);
}

// log(1 + x) for x >= 0.
template <typename V>
EW_INLINE V log1p_of(V x) {
    const V one = V::all(1.0f), whole = x + one;
    return log_of(whole) + (x - (whole - one)) / whole;
}

template <typename V>
EW_INLINE V erf_of(V x) {
    const V square = x * x;
    const V top = horner(square, 1.12837911f, 0.190773383f, 0.0527887084f, 0.00377910864f, 0.00028478881f, 2.04193998e-06f);
    const V bottom = horner(square, 1.0f, 0.502401233f, 0.114253029f, 0.0149964392f, 0.00116507546f, 3.80027195e-05f);
    const V out = x * top / bottom;
    return select(V::all(3.92f) < abs(x), copysign(V::all(1.0f), x), out);
}

template <typename V>
EW_INLINE V tanh_of(V x) {
    const V square = x * x;
    const V top = horner(square, 1.0f, 0.133796722f, 0.00349398027f, 2.05825727e-05f, 1.33178091e-08f);
    const V bottom = horner(square, 1.0f, 0.467129886f, 0.0258708689f, 0.000328300317f, 7.76150216e-07f);
    const V out = x * top / bottom;
    return select(V::all(9.01f) < abs(x), copysign(V::all(1.0f), x), out);
}

template <typename V>
EW_INLINE V sigmoid_of(V x) {
    const V one = V::all(1.0f), power = exp_of(V::all(0.0f) - abs(x));
    return select(x < V::all(0.0f), power, one) / (power + one);
}

template <typename V>
EW_INLINE V mish_of(V x) {  // tanh(log(1 + e^x)) = m / (m + 2) with m = e^x (e^x + 2)
    const V power = exp_of(min(V::all(20.0f), x)), m = power * (power + V::all(2.0f));
    return x * (m / (m + V::all(2.0f)));
}

// gelu within 5e-5 of the larger of 1 and x, and within 1.7e-4 below -4: for what is rounded to steps far larger than that.
template <typename V>
EW_INLINE V gelu_coarse(V x) {
    const V left = max(x, V::all(-4.0f)), near = min(left, V::all(4.0f)), square = near * near;
    const V series = horner(square, 0.398673356f, -0.0658877939f, 0.00950537622f, -0.00100648508f, 7.48543534e-05f,
                            -3.65708161e-06f, 1.04194065e-07f, -1.30126321e-09f);
    return left * fma(near, series, V::all(0.5f));
}

// alpha and beta are those of Function.
template <Function kFunction, typename V>
EW_INLINE V apply(V x, V alpha, V beta) {
    const V zero = V::all(0.0f), one = V::all(1.0f), half = V::all(0.5f);
    (void)alpha, (void)beta, (void)zero, (void)one, (void)half;
    switch (kFunction) {
        case Function::kRelu: return max(zero, x);
        case Function::kClip: return min(beta, max(alpha, x));
        case Function::kGelu: return x * fma(erf_of(x * V::all(0.707106781f)), half, half);
        case Function::kGeluTanh: {
            const V inner = x * fma(x * x, V::all(0.0713548163f), V::all(1.59576912f));  // 2 sqrt(2/pi) (x + 0.044715 x^3)
            return x * sigmoid_of(inner);
        }
        case Function::kSilu: return x * sigmoid_of(x);
        case Function::kSigmoid: return sigmoid_of(x);
        case Function::kHardSigmoid: return max(zero, min(one, fma(alpha, x, beta)));
        case Function::kHardSwish: return x * max(zero, min(one, fma(x, V::all(1.0f / 6.0f), half)));
        case Function::kTanh: return tanh_of(x);
        case Function::kElu: return select(x < zero, alpha * expm1_of(x), x);
        case Function::kLeakyRelu: return select(x < zero, alpha * x, x);
        case Function::kSoftplus: return max(zero, x) + log1p_of(exp_of(zero - abs(x)));
        case Function::kMish: return mish_of(x);
        case Function::kErf: return erf_of(x);
        case Function::kExp: return exp_of(x);
        case Function::kLog: return log_of(x);
        case Function::kSqrt: return sqrt(x);
        case Function::kRsqrt: return one / sqrt(x);
        case Function::kReciprocal: return one / x;
        case Function::kNeg: return V::all(-0.0f) - x;
        case Function::kAbs: return abs(x);
        case Function::kFloor: return floor(x);
        case Function::kCeil: return ceil(x);
        case Function::kRound: return round(x);
        case Function::kSign: return select(zero < abs(x), copysign(one, x), x);
        default: return x;  // kNone; sin and cos have no vector form
    }
}

// Calls call(std::integral_constant<Function, f>()): a switch outside of the loop, a template inside.
template <typename Call>
EW_INLINE void with_function(Function function, Call&& call) {
#define EW_CASE(f) \
    case Function::f: return call(std::integral_constant<Function, Function::f>())
    switch (function) {
        EW_CASE(kRelu);
        EW_CASE(kClip);
        EW_CASE(kGelu);
        EW_CASE(kGeluTanh);
        EW_CASE(kSilu);
        EW_CASE(kSigmoid);
        EW_CASE(kHardSigmoid);
        EW_CASE(kHardSwish);
        EW_CASE(kTanh);
        EW_CASE(kElu);
        EW_CASE(kLeakyRelu);
        EW_CASE(kSoftplus);
        EW_CASE(kMish);
        EW_CASE(kErf);
        EW_CASE(kExp);
        EW_CASE(kLog);
        EW_CASE(kSqrt);
        EW_CASE(kRsqrt);
        EW_CASE(kReciprocal);
        EW_CASE(kNeg);
        EW_CASE(kAbs);
        EW_CASE(kFloor);
        EW_CASE(kCeil);
        EW_CASE(kRound);
        EW_CASE(kSign);
        default: return call(std::integral_constant<Function, Function::kNone>());
    }
#undef EW_CASE
}

// The same to a few vectors in registers: for the end of a kernel whose function is only known at run time.
template <int kCount, typename V>
EW_INLINE void apply_all(Function function, V (&x)[kCount], V alpha, V beta) {
    if (function == Function::kNone) return;
    with_function(function, [&](auto f) {
        for (int i = 0; i < kCount; ++i) x[i] = apply<decltype(f)::value>(x[i], alpha, beta);
    });
}

}  // namespace
}  // namespace ew
