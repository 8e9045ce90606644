#include "resize_taps.h"

#include <algorithm>
#include <cmath>
#include <iterator>

namespace ew {
namespace {

// The place of a name in a list; -1 when it is not there.
template <size_t kCount>
int place_of(std::string_view name, const std::string_view (&names)[kCount]) {
    const auto* found = std::find(std::begin(names), std::end(names), name);
    return found == std::end(names) ? -1 : static_cast<int>(found - names);
}

}  // namespace

Status ResizeAxis::read(const Setup& setup, int64_t in, int64_t out, float scale) {
    constexpr std::string_view kFunctions[] = {"nearest", "linear", "cubic"};
    constexpr std::string_view kCoordinates[] = {"half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric"};
    constexpr std::string_view kNearest[] = {"round_prefer_floor", "round_prefer_ceil", "floor", "ceil"};
    const int function = place_of(setup.attributes.text("function", "nearest"), kFunctions);
    const int coordinate = place_of(setup.attributes.text("coordinate", "half_pixel"), kCoordinates);
    const int nearest = place_of(setup.attributes.text("nearest_mode", "round_prefer_floor"), kNearest);
    if (function < 0 || coordinate < 0 || nearest < 0) return setup.refuse("has no such function, coordinate or nearest_mode");
    if (!(scale > 0) || !std::isfinite(scale)) return setup.refuse("wants scales above 0");
    if (in > INT32_MAX || (in == 0 && out > 0)) return setup.refuse("cannot resize an axis of %lld", static_cast<long long>(in));
    sampling_ = static_cast<Sampling>(function);
    coordinate_ = static_cast<Coordinate>(coordinate);
    nearest_ = static_cast<Nearest>(nearest);
    cubic_ = setup.attributes.real("cubic_coeff", -0.75f);
    exclude_ = setup.attributes.integer("exclude_outside", 0) != 0;
    in_ = in, out_ = out, scale_ = scale;
    taps_ = in == out && scale == 1.0f ? 0 : sampling_ == Sampling::kNearest ? 1 : sampling_ == Sampling::kLinear ? 2 : 4;
    return {};
}

// In float32, as ONNX Runtime computes it: what lies on an edge must fall to the same side.
float ResizeAxis::source(int64_t at) const {
    const auto x = static_cast<float>(at), in = static_cast<float>(in_), out = static_cast<float>(out_);
    switch (coordinate_) {
        case Coordinate::kHalfPixel: return (x + 0.5f) / scale_ - 0.5f;
        case Coordinate::kPytorchHalfPixel: return out_ > 1 ? (x + 0.5f) / scale_ - 0.5f : 0.0f;
        case Coordinate::kAlignCorners: return out_ == 1 ? 0.0f : x * (in - 1) / (out - 1);
        case Coordinate::kAsymmetric: return x / scale_;
        case Coordinate::kHalfPixelSymmetric: {
            const float adjustment = out / (scale_ * in), offset = in / 2 * (1 - adjustment);
            return offset + (x + 0.5f) / scale_ - 0.5f;
        }
    }
    return 0;
}

int64_t ResizeAxis::clamped(float at) const {
    if (!(at > 0)) return 0;
    return at >= static_cast<float>(in_ - 1) ? in_ - 1 : static_cast<int64_t>(at);
}

void ResizeAxis::fill_cubic(float at, int32_t* index, float* weight) const {
    const float place = std::min(std::max(at, -2.0f), static_cast<float>(in_) + 1), low = std::floor(place), t = place - low, a = cubic_;
    const float distances[] = {1 + t, t, 1 - t, 2 - t};
    float total = 0;
    for (int i = 0; i < 4; ++i) {
        const float d = distances[i], from = low - 1 + static_cast<float>(i);
        weight[i] = d <= 1 ? ((a + 2) * d - (a + 3)) * d * d + 1 : ((a * d - 5 * a) * d + 8 * a) * d - 4 * a;
        if (exclude_ && (from < 0 || from >= static_cast<float>(in_))) weight[i] = 0;
        total += weight[i];
        index[i] = static_cast<int32_t>(clamped(from));
    }
    for (int i = 0; i < 4 && exclude_; ++i) weight[i] /= total;
}

void ResizeAxis::fill(uint8_t* table) {
    if (taps_ == 0) return;
    indices_ = reinterpret_cast<int32_t*>(table);
    weights_ = reinterpret_cast<float*>(table) + out_ * taps_;
    for (int64_t i = 0; i < out_; ++i) {
        int32_t* index = indices_ + i * taps_;
        float* weight = weights_ + i * taps_;
        const float at = source(i), down = std::floor(at);
        if (sampling_ == Sampling::kCubic) {
            fill_cubic(at, index, weight);
        } else if (sampling_ == Sampling::kLinear) {
            const float inside = std::min(at > 0 ? at : 0.0f, static_cast<float>(in_ - 1));
            index[0] = static_cast<int32_t>(clamped(inside));
            index[1] = static_cast<int32_t>(std::min(index[0] + int64_t{1}, in_ - 1));
            weight[1] = inside - static_cast<float>(index[0]);
            weight[0] = 1 - weight[1];
        } else {
            const bool half = at - down == 0.5f, up = half ? nearest_ == Nearest::kPreferCeil : at - down > 0.5f;
            const float rounded = nearest_ == Nearest::kFloor ? down : nearest_ == Nearest::kCeil ? std::ceil(at) : up ? down + 1 : down;
            index[0] = static_cast<int32_t>(clamped(rounded));
            weight[0] = 1;
        }
    }
}

}  // namespace ew
