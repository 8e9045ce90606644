// Which inputs along an axis make an output, and with what weights: ONNX Resize.
#pragma once

#include <cstdint>

#include "../op.h"

namespace ew {

enum class Sampling : uint8_t { kNearest, kLinear, kCubic };

class ResizeAxis {
public:
    // Attributes function, coordinate, nearest_mode, cubic_coeff, exclude_outside; nothing is to be done where `copies()`.
    Status read(const Setup& setup, int64_t in, int64_t out, float scale);

    bool copies() const { return taps_ == 0; }
    int taps() const { return taps_ == 0 ? 1 : taps_; }
    int64_t out() const { return out_; }
    // Memory for fill(): indices, then weights.
    size_t table_bytes() const { return static_cast<size_t>(out_ * taps_) * 8; }
    void fill(uint8_t* table);

    int64_t index(int64_t at, int tap) const { return taps_ == 0 ? at : indices_[at * taps_ + tap]; }
    float weight(int64_t at, int tap) const { return taps_ == 0 ? 1.0f : weights_[at * taps_ + tap]; }

private:
    enum class Coordinate : uint8_t { kHalfPixel, kPytorchHalfPixel, kAlignCorners, kAsymmetric, kHalfPixelSymmetric };
    enum class Nearest : uint8_t { kPreferFloor, kPreferCeil, kFloor, kCeil };

    float source(int64_t at) const;
    int64_t clamped(float at) const;
    void fill_cubic(float at, int32_t* index, float* weight) const;

    Sampling sampling_ = Sampling::kNearest;
    Coordinate coordinate_ = Coordinate::kHalfPixel;
    Nearest nearest_ = Nearest::kPreferFloor;
    int64_t in_ = 1, out_ = 1;
    float scale_ = 1, cubic_ = -0.75f;
    bool exclude_ = false;
    int taps_ = 0;
    int32_t* indices_ = nullptr;
    float* weights_ = nullptr;
};

}  // namespace ew
