// Preprocessing of hostile images: every size, stride, form and table, in memory that is exactly as large as it said. A sanitizer sees what
// leaves it. That the numbers are right is tested from Python (tests/runtime/native/test_native_image.py).
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <random>

#include "edgewise_image.h"

namespace {

#define CHECK(condition)                                                                                            \
    do {                                                                                                            \
        if (!(condition)) {                                                                                         \
            std::fprintf(stderr, "%s:%d: not so: %s (%s)\n", __FILE__, __LINE__, #condition, ew_preprocess_error()); \
            std::exit(1);                                                                                           \
        }                                                                                                           \
    } while (0)

std::mt19937 random_bits(1);

int32_t drawn(int32_t least, int32_t most) { return std::uniform_int_distribution<int32_t>(least, most)(random_bits); }

// Mostly small, now and then far out.
int32_t drawn_size(int32_t least) {
    static const int32_t kFar[] = {-1, std::numeric_limits<int32_t>::min(), std::numeric_limits<int32_t>::max(), 65535, 65536};
    return drawn(0, 19) == 0 ? kFar[drawn(0, 4)] : drawn(least, 40);
}

ew_preprocess drawn_steps() {
    ew_preprocess steps{};
    if (drawn(0, 1)) steps.resize_height = drawn_size(1);
    if (steps.resize_height && drawn(0, 1)) steps.resize_width = drawn_size(1);
    if (drawn(0, 1)) steps.crop_height = drawn_size(1), steps.crop_width = drawn_size(1);
    steps.color = static_cast<ew_color>(drawn(0, 2));
    steps.scale = drawn(0, 30) ? 255.0f : std::numeric_limits<float>::quiet_NaN();
    for (float& value : steps.std) value = drawn(0, 90) ? 0.5f : 0.0f;
    return steps;
}

// Gives whether the image was taken.
bool one() {
    const ew_preprocess steps = drawn_steps();
    ew_image image{};
    image.width = drawn_size(1);
    image.height = drawn_size(1);
    image.pixels = static_cast<ew_pixels>(drawn(0, 4));
    static const int64_t kBytes[] = {1, 3, 3, 4, 4};
    const int64_t row = kBytes[image.pixels] * image.width;
    image.stride_bytes = drawn(0, 2) ? 0 : row + drawn(-1, 9);
    if (drawn(0, 60) == 0) image.stride_bytes = std::numeric_limits<int64_t>::max() - drawn(0, 1);
    const uint8_t none = 0;
    image.data = &none;
    ew_prepared prepared;
    if (ew_preprocess_plan(&steps, &image, &prepared) != EW_OK) {
        CHECK(*ew_preprocess_error());
        return false;
    }
    const int64_t stride = image.stride_bytes ? image.stride_bytes : row;
    if (stride * image.height > (1 << 22) || prepared.workspace_bytes + prepared.output_bytes > (64u << 20)) return false;
    const std::unique_ptr<uint8_t[]> pixels(new uint8_t[static_cast<size_t>(stride * (image.height - 1) + row)]);
    for (int64_t i = 0; i < stride * (image.height - 1) + row; ++i) pixels[static_cast<size_t>(i)] = static_cast<uint8_t>(random_bits());
    const std::unique_ptr<uint64_t[]> workspace(new uint64_t[(prepared.workspace_bytes + 7) / 8]);
    const std::unique_ptr<float[]> output(new float[prepared.output_bytes / sizeof(float)]);
    image.data = pixels.get();
    const auto run = [&](size_t bytes, void* space, size_t space_bytes) {
        return ew_preprocess_run(&steps, &image, output.get(), bytes, space, space_bytes);
    };
    CHECK(run(prepared.output_bytes, workspace.get(), prepared.workspace_bytes) == EW_OK);
    CHECK(run(prepared.output_bytes - 4, workspace.get(), prepared.workspace_bytes) == EW_INVALID_ARGUMENT);
    CHECK(run(prepared.output_bytes, workspace.get(), prepared.workspace_bytes - 1) == EW_INVALID_ARGUMENT);
    CHECK(run(prepared.output_bytes, reinterpret_cast<uint8_t*>(workspace.get()) + 1, prepared.workspace_bytes) == EW_INVALID_ARGUMENT);
    for (size_t i = 0; i < prepared.output_bytes / sizeof(float); ++i) CHECK(output[i] >= 0 && output[i] <= 2);
    return true;
}

}  // namespace

int main() {
    int taken = 0;
    for (int i = 0; i < 5000; ++i) taken += one();
    CHECK(taken > 500);
    ew_prepared prepared;
    const ew_preprocess steps{};
    CHECK(ew_preprocess_plan(&steps, nullptr, &prepared) == EW_INVALID_ARGUMENT);
    CHECK(ew_preprocess_plan(nullptr, nullptr, &prepared) == EW_INVALID_ARGUMENT);
    CHECK(ew_preprocess_plan(nullptr, nullptr, nullptr) == EW_INVALID_ARGUMENT);
    std::printf("image: %d of 5000 were taken\n", taken);
    return 0;
}
