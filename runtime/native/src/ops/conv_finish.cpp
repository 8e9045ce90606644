#include "conv_finish.h"

#include <algorithm>
#include <cmath>

namespace ew {
namespace {

constexpr Function kActivations[] = {Function::kNone,      Function::kRelu, Function::kClip,     Function::kGelu,
                                     Function::kGeluTanh,  Function::kSilu, Function::kSigmoid,  Function::kHardSigmoid,
                                     Function::kHardSwish, Function::kTanh, Function::kLeakyRelu};

constexpr float kCoarseStep = 1.0f / 512;  // of y, from which on GELU need not be exact

bool is_byte(DType dtype) { return dtype == EW_U8 || dtype == EW_S8; }

// A clamp has no factor: it could not be done on the bytes of y.
bool takes_factor(Function activation) {
    return activation != Function::kNone && activation != Function::kRelu && activation != Function::kClip;
}

// float32 as it is, 8 bits in fours.
bool fits(const Tensor& tensor) { return tensor.layout == (tensor.dtype == EW_F32 ? Layout::kPlain : Layout::kC4); }

Status read_vector(const Setup& setup, const char* what, const Tensor* tensor, int64_t count, float absent,
                   std::vector<float>* to) {
    to->assign(static_cast<size_t>(count + 2 * kLine), 0.0f);
    if (!tensor) {
        std::fill_n(to->begin(), count, absent);
        return {};
    }
    if (tensor->dtype != EW_F32 || tensor->layout != Layout::kPlain || !tensor->constant || tensor->count() != count) {
        return setup.refuse("wants %s as constant float32 per output", what);
    }
    std::copy_n(tensor->as<float>(), count, to->begin());
    return {};
}

// One row, or two: see read_finish().
Status read_scales(const Setup& setup, int64_t outputs, Function activation, ConvScales* scales) {
    const Tensor* given = setup.input(2);
    scales->factor_at = 0;
    if (!given || given->rank != 2) return read_vector(setup, "scale", given, outputs, 1.0f, &scales->scale);
    if (given->dims[0] != 2 || given->dims[1] != outputs || !takes_factor(activation))
        return setup.refuse("has factors that nothing takes");
    EW_TRY(read_vector(setup, "scale", given, 2 * outputs, 1.0f, &scales->scale));
    const auto factors = scales->scale.begin() + outputs;
    std::copy_backward(factors, factors + outputs, factors + outputs + kLine);
    std::fill_n(factors, kLine, 0.0f);
    scales->factor_at = outputs + kLine;
    return {};
}

Status read_quantization(const Setup& setup, const char* scale_key, const char* zero_key, DType dtype, float* scale,
                         int64_t* zero_point) {
    *scale = setup.attributes.real(scale_key, 0);
    *zero_point = setup.attributes.integer(zero_key, 0);
    const int64_t low = dtype == EW_S8 ? -128 : 0;
    if (!(*scale > 0) || !std::isfinite(*scale) || !std::isfinite(1 / *scale))
        return setup.refuse("%s is not a positive number", scale_key);
    if (*zero_point < low || *zero_point > low + 255) return setup.refuse("%s is out of range", zero_key);
    return {};
}

Status read_residual(const Setup& setup, const Tensor& residual, const Tensor& y, ConvFinish* finish) {
    bool same = residual.rank == y.rank && (residual.dtype == EW_F32 || is_byte(residual.dtype)) && fits(residual);
    for (int32_t i = 0; same && i < y.rank; ++i) same = residual.dims[i] == y.dims[i];
    if (!same) return setup.refuse("wants a residual like y");
    finish->residual = residual.dtype;
    finish->residual_first = setup.attributes.integer("residual_first", 0) == 1;
    finish->gated = setup.attributes.integer("gated", 0) == 1;
    if (finish->gated && (residual.dtype != EW_F32 || finish->residual_first)) return setup.refuse("wants a gate in float32, last");
    if (residual.dtype == EW_F32) return {};
    int64_t zero_point = 0;
    EW_TRY(read_quantization(setup, "residual_scale", "residual_zero_point", residual.dtype, &finish->residual_scale,
                             &zero_point));
    finish->residual_zero_point = static_cast<float>(zero_point);
    return {};
}

// The rounding before the residual, which has been read.
Status read_inner(const Setup& setup, ConvFinish* finish) {
    if (!setup.attributes.find("inner_scale", AttributeKind::kFloat)) return {};
    const float scale = setup.attributes.real("inner_scale", 0);
    const int64_t low = setup.attributes.integer("inner_low", -255), high = setup.attributes.integer("inner_high", 255);
    if (!setup.input(4) || finish->residual_first || finish->gated) return setup.refuse("rounds before a residual, but has none after it");
    if (!(scale > 0) || !std::isfinite(scale) || !std::isfinite(1 / scale))
        return setup.refuse("inner_scale is not a positive number");
    if (low > high || low < -255 || high > 255) return setup.refuse("inner_low and inner_high are out of range");
    finish->rounds = true;
    finish->inner_scale = scale;
    finish->inner_inverse_scale = 1 / scale;
    finish->inner_low = static_cast<float>(low), finish->inner_high = static_cast<float>(high);
    return {};
}

Status read_y(const Setup& setup, const Tensor& y, ConvFinish* finish) {
    if (!(y.dtype == EW_F32 || is_byte(y.dtype)) || !fits(y)) return setup.refuse("gives plain float32, or 8 bits in C4");
    finish->y = y.dtype;
    if (y.dtype == EW_F32) return {};
    float scale = 1;
    int64_t zero_point = 0;
    EW_TRY(read_quantization(setup, "y_scale", "y_zero_point", y.dtype, &scale, &zero_point));
    finish->y_inverse_scale = 1 / scale;
    finish->coarse = scale > kCoarseStep;
    finish->y_zero_point = static_cast<int32_t>(zero_point);
    finish->low = y.dtype == EW_S8 ? -128 : 0;
    finish->high = finish->low + 255;
    return {};
}

// Whether sums times scale plus bias fit an int32 with room to spare, whatever x is.
bool bounded(const ConvScales& scales, bool integer, int64_t products) {
    if (!integer) return false;
    const double most = 255.0 * 128.0 * static_cast<double>(products);
    for (size_t i = 0; i < scales.bias.size(); ++i) {
        if (!(std::fabs(scales.scale[i]) * most + std::fabs(scales.bias[i]) < 1e9)) return false;
    }
    return true;
}

// Puts the zero point of the residual into what is added to each value, in a finish that is to be direct.
void shift_residual(bool residual, ConvFinish* finish, ConvScales* scales) {
    if (!residual || finish->residual == EW_F32) return;
    const float shift = finish->residual_zero_point * finish->residual_scale;
    finish->residual_zero_point = 0;
    if (finish->rounds) {
        finish->inner_shift -= shift;
    } else {
        for (float& bias : scales->bias) bias -= shift;
    }
}

// Puts the quantization of y into scale and bias, and a clamp into the bounds of its bytes.
void quantize_directly(bool residual, int64_t products, ConvFinish* finish, ConvScales* scales) {
    ConvScales direct = *scales;
    const float inverse = finish->rounds ? finish->inner_inverse_scale : finish->y_inverse_scale;
    const float zero_point = static_cast<float>(finish->y_zero_point);
    for (float& scale : direct.scale) scale *= inverse;
    for (float& bias : direct.bias) bias = bias * inverse + (finish->rounds ? 0 : zero_point);
    if (!bounded(direct, finish->integer, products)) return;
    // What a float32 residual may be is not known.
    if (residual && (finish->residual == EW_F32 || !(finish->residual_scale * finish->y_inverse_scale < 1e6f))) return;
    if (finish->rounds && !(finish->inner_scale * finish->y_inverse_scale < 1e6f)) return;
    finish->residual_scale *= finish->y_inverse_scale;
    finish->inner_scale *= finish->y_inverse_scale;
    finish->inner_inverse_scale = 1;
    finish->inner_shift = zero_point;
    const auto byte_of = [&](float value) {
        const float level = std::nearbyint(value * finish->y_inverse_scale) + static_cast<float>(finish->y_zero_point);
        return static_cast<int32_t>(
            std::fmin(std::fmax(level, static_cast<float>(finish->low)), static_cast<float>(finish->high)));
    };
    if (finish->activation != Function::kNone) {
        finish->clamps = true;
        const int32_t low = byte_of(finish->alpha), high = byte_of(finish->beta);
        finish->low = low, finish->high = high;
    }
    *scales = std::move(direct);
    shift_residual(residual, finish, scales);
    finish->direct = true;
}

// What kernels can do in registers; see ConvFinish::direct.
void choose_direct(bool residual, int64_t products, ConvFinish* finish, ConvScales* scales) {
    if (finish->gated) return;
    if (finish->activation == Function::kRelu) finish->alpha = 0, finish->beta = HUGE_VALF;
    const bool clamp = finish->activation == Function::kRelu || finish->activation == Function::kClip;
    if (finish->activation != Function::kNone && !(clamp && finish->alpha <= finish->beta)) return;
    if (residual && clamp && !finish->residual_first) return;
    if (finish->y != EW_F32) return quantize_directly(residual, products, finish, scales);
    if (finish->rounds) {
        for (float& scale : scales->scale) scale *= finish->inner_inverse_scale;
        for (float& bias : scales->bias) bias *= finish->inner_inverse_scale;
        finish->inner_inverse_scale = 1;
    }
    shift_residual(residual, finish, scales);
    finish->clamps = clamp;
    finish->direct = true;
}

}  // namespace

Status read_finish(const Setup& setup, bool integer, int64_t products, ConvFinish* finish, ConvScales* scales) {
    const Tensor& y = *setup.outputs[0];
    *finish = ConvFinish();
    finish->integer = integer;
    const auto name = setup.attributes.text("activation", "");
    const bool known = find_function(name, &finish->activation);
    if (!known || std::find(std::begin(kActivations), std::end(kActivations), finish->activation) == std::end(kActivations)) {
        return setup.refuse("has no activation %.*s", static_cast<int>(std::min<size_t>(name.size(), 40)), name.data());
    }
    finish->alpha = setup.attributes.real("activation_alpha", 0);
    finish->beta = setup.attributes.real("activation_beta", 0);
    EW_TRY(read_y(setup, y, finish));
    if (const Tensor* residual = setup.input(4)) EW_TRY(read_residual(setup, *residual, y, finish));
    EW_TRY(read_inner(setup, finish));
    if (integer && !setup.input(2)) return setup.refuse("wants a scale for 8-bit weights");
    EW_TRY(read_scales(setup, y.dims[1], finish->activation, scales));
    EW_TRY(read_vector(setup, "bias", setup.input(3), y.dims[1], 0.0f, &scales->bias));
    for (int64_t o = 0; scales->factor_at > 0 && o < y.dims[1]; ++o)
        finish->coarse &= std::fabs(scales->scale[static_cast<size_t>(scales->factor_at + o)]) * kCoarseStep < 1 / finish->y_inverse_scale;
    choose_direct(setup.input(4) != nullptr, products, finish, scales);
    return {};
}

}  // namespace ew
