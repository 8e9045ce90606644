// roi_align, as ONNX's: x f32 [N, C, H, W], boxes f32 [R, 4] (x, y of two corners), images (s64 or s32 [R]) -> y [R, C, h, w]: averages (or, with
// function max, the largest) of places between pixels in each cell of a box. Attributes: scale; ratio (places along each side of a cell; 0:
// as many as it has pixels, rounded up); half_pixel.
#include <algorithm>
#include <cmath>

#include "checks.h"

namespace ew {
namespace {

constexpr int64_t kMostRatio = 64;  // detectors take 2: a file of bytes must not ask for minutes

// A place along one axis: two pixels, and how much of each.
struct Place {
    int32_t low, high;
    float of_low, of_high;
};

// One axis of a box: the places of every cell that are not outside of the image, one cell after the other.
class Side {
public:
    // `places` has room for most(); `ends`, one for each cell, gets where its places end.
    void fill(float start, float end, bool half, int64_t cells, int64_t ratio, int64_t size, Place* places, int32_t* ends) {
        float span = end - start;
        if (!half) span = std::max(span, 1.0f);
        const float cell = span / static_cast<float>(cells);
        const double wanted = ratio > 0 ? static_cast<double>(ratio) : std::ceil(static_cast<double>(cell));
        each_ = wanted >= 1 && wanted < 1e15 ? wanted : wanted >= 1 ? 1e15 : 0;
        const double step = each_ > 0 ? static_cast<double>(cell) / each_ : 0.0;
        int32_t used = 0;
        const auto room = static_cast<int32_t>(most(cells, ratio, size));
        for (int64_t c = 0; c < cells; ++c) {
            const double begin = static_cast<double>(start + static_cast<float>(c) * cell);
            // The first place that may be inside: a box may be far larger than the image.
            const double outside = step > 0 ? std::floor((-1.0 - begin) / step - 1.0) : 0.0;
            for (double i = std::max(0.0, outside); i < each_ && used < room; ++i) {
                const double at = begin + (i + 0.5) * step;
                if (step > 0 && !(at <= static_cast<double>(size))) break;  // NaN ends it too
                if (at >= -1.0 && at <= static_cast<double>(size)) places[used++] = place(static_cast<float>(at), size);
            }
            ends[c] = used;
        }
    }

    double each() const { return each_; }

    // Places at most, cells together: without a ratio they are at least half a pixel apart, or one for each cell.
    static int64_t most(int64_t cells, int64_t ratio, int64_t size) { return ratio > 0 ? cells * ratio : 2 * size + 2 * cells + 8; }

private:
    static Place place(float at, int64_t size) {
        const float inside = std::max(at, 0.0f);
        const auto low = static_cast<int32_t>(std::min<int64_t>(static_cast<int64_t>(inside), size - 1));
        if (low == size - 1) return {low, low, 1, 0};
        const float part = inside - static_cast<float>(low);
        return {low, low + 1, 1 - part, part};
    }

    double each_ = 0;
};

class RoiAlign final : public Operator {
public:
    Status prepare(Setup& setup) override {
        EW_TRY(check_operands(setup, 3, 3));
        const Tensor &x = *setup.input(0), &boxes = *setup.input(1), &images = *setup.input(2), &y = *setup.outputs[0];
        if (!is_plain(x, EW_F32) || !is_plain(y, EW_F32) || !is_plain(boxes, EW_F32) || x.rank != 4 || y.rank != 4 || boxes.rank != 2) {
            return setup.refuse("wants plain float32 [N, C, H, W] and boxes [R, 4]");
        }
        if (!(is_plain(images, EW_S64) || is_plain(images, EW_S32)) || images.count() != y.dims[0]) return setup.refuse("wants the image of each box");
        if (boxes.dims[0] != y.dims[0] || boxes.dims[1] != 4 || y.dims[1] != x.dims[1]) return setup.refuse("has a y of another size");
        constexpr int64_t kSide = 1 << 20;
        if (y.count() > 0 && (x.count() == 0 || x.dims[2] > kSide || x.dims[3] > kSide || y.dims[2] > kSide || y.dims[3] > kSide)) {
            return setup.refuse("has sides of other sizes than it takes");
        }
        ratio_ = setup.attributes.integer("ratio", 0);
        scale_ = setup.attributes.real("scale", 1);
        half_ = setup.attributes.integer("half_pixel", 0) != 0;
        largest_ = setup.attributes.text("function", "average") == "max";
        if (ratio_ < 0 || ratio_ > kMostRatio) return setup.refuse("wants a ratio of at most %lld", static_cast<long long>(kMostRatio));
        bytes_ = 0;
        if (y.count() == 0) return {};
        for (int axis = 2; axis < 4; ++axis) {
            places_[axis - 2] = bytes_;
            bytes_ += static_cast<size_t>(Side::most(y.dims[axis], ratio_, x.dims[axis])) * sizeof(Place);
            ends_[axis - 2] = bytes_;
            bytes_ += static_cast<size_t>(y.dims[axis]) * 4;
        }
        bytes_ = (bytes_ + 63) / 64 * 64;
        setup.scratch_bytes = uint64_t{bytes_} * static_cast<uint64_t>(setup.threads);
        return {};
    }

    void run(const Run& run) override {
        const Tensor& y = *run.outputs[0];
        run.pool.parallel(y.dims[0], 1, [&](int64_t begin, int64_t end, int32_t thread) {
            for (int64_t box = begin; box < end; ++box) align(run, box, run.scratch + bytes_ * static_cast<size_t>(thread));
        });
    }

private:
    void align(const Run& run, int64_t box, uint8_t* scratch) const {
        const Tensor &x = *run.inputs[0], &images = *run.inputs[2], &y = *run.outputs[0];
        const float* corners = run.inputs[1]->as<float>() + box * 4;
        const float shift = half_ ? 0.5f : 0.0f;
        const Place* places[2];
        const int32_t* ends[2];
        double each = 1;
        for (int axis = 0; axis < 2; ++axis) {
            auto* to = reinterpret_cast<Place*>(scratch + places_[axis]);
            auto* last = reinterpret_cast<int32_t*>(scratch + ends_[axis]);
            Side side;
            side.fill(corners[1 - axis] * scale_ - shift, corners[3 - axis] * scale_ - shift, half_, y.dims[axis + 2], ratio_, x.dims[axis + 2], to, last);
            each *= side.each();
            places[axis] = to, ends[axis] = last;
        }
        const int64_t given = images.dtype == EW_S64 ? images.as<int64_t>()[box] : images.as<int32_t>()[box];
        const int64_t image = std::clamp<int64_t>(given, 0, x.dims[0] - 1);  // what a run reads cannot be checked before
        const int64_t plane = x.dims[2] * x.dims[3], cells = y.dims[2] * y.dims[3];
        const auto all = static_cast<float>(std::max(each, 1.0));
        for (int64_t channel = 0; channel < x.dims[1]; ++channel) {
            const float* from = x.as<float>() + (image * x.dims[1] + channel) * plane;
            float* to = y.as<float>() + (box * x.dims[1] + channel) * cells;
            for (int64_t row = 0; row < y.dims[2]; ++row) {
                for (int64_t column = 0; column < y.dims[3]; ++column) {
                    *to++ = cell(from, x.dims[3], places[0] + (row ? ends[0][row - 1] : 0), places[0] + ends[0][row],
                                 places[1] + (column ? ends[1][column - 1] : 0), places[1] + ends[1][column], all);
                }
            }
        }
    }

    float cell(const float* x, int64_t width, const Place* top, const Place* bottom, const Place* left, const Place* right, float all) const {
        const auto inside = static_cast<float>((bottom - top) * (right - left));
        bool any = inside < all;  // places outside of the image are zeros
        float total = 0, most = 0;
        for (const Place* v = top; v < bottom; ++v) {
            const float *above = x + v->low * width, *below = x + v->high * width;
            for (const Place* h = left; h < right; ++h) {
                const float a = v->of_low * h->of_low * above[h->low], b = v->of_low * h->of_high * above[h->high];
                const float c = v->of_high * h->of_low * below[h->low], d = v->of_high * h->of_high * below[h->high];
                total += a + b + c + d;
                const float greatest = std::max(std::max(a, b), std::max(c, d));
                most = any ? std::max(most, greatest) : greatest;
                any = true;
            }
        }
        return largest_ ? most : total / all;
    }

    int64_t ratio_ = 0;
    float scale_ = 1;
    bool half_ = false, largest_ = false;
    size_t bytes_ = 0, places_[2] = {}, ends_[2] = {};
};

}  // namespace

Operator* make_roi_align() { return new (std::nothrow) RoiAlign; }

}  // namespace ew
