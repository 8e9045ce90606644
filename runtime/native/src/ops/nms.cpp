// nms, as ONNX's NonMaxSuppression: boxes f32 [B, N, 4], scores f32 [B, C, N] -> y (s64, room for [B * C * limit, 3]): image, class and box of
// the best ones, and count (s64, one element): how many rows there are. Attributes: limit for each class; center (1: boxes are x, y, width,
// height, else two corners y, x, y, x); iou_threshold; score_threshold (absent: none). A third input (s64), a fourth and a fifth (f32), one
// number each, are a limit, an iou_threshold and a score_threshold of the run's; the attribute limit bounds that of the run.
#include <algorithm>
#include <cstring>

#include "checks.h"

namespace ew {
namespace {

struct Box {
    float y0, x0, y1, x1;

    Box(const float* from, bool center) {
        if (center) {
            const float w = from[2] / 2, h = from[3] / 2;
            y0 = from[1] - h, x0 = from[0] - w, y1 = from[1] + h, x1 = from[0] + w;
        } else {
            y0 = std::min(from[0], from[2]), x0 = std::min(from[1], from[3]), y1 = std::max(from[0], from[2]), x1 = std::max(from[1], from[3]);
        }
    }
    float area() const { return (y1 - y0) * (x1 - x0); }
};

struct Choice {
    int64_t limit;
    float most, least;  // overlap, score
    bool chosen;        // by score
};

bool overlap(const Box& a, const Box& b, float most) {
    const float height = std::min(a.y1, b.y1) - std::max(a.y0, b.y0), width = std::min(a.x1, b.x1) - std::max(a.x0, b.x0);
    if (!(height > 0) || !(width > 0)) return false;
    const float shared = height * width, all = a.area() + b.area() - shared;
    return a.area() > 0 && b.area() > 0 && all > 0 && shared / all > most;
}

class Nms final : public Operator {
public:
    Status prepare(Setup& setup) override {
        if (setup.input_count < 2 || setup.input_count > 5 || !setup.input(0) || !setup.input(1) || setup.output_count != 2) {
            return setup.refuse("takes two to five inputs and gives two outputs");
        }
        for (int32_t i = 2; i < 5; ++i) {
            const Tensor* number = setup.input(i);
            if (number && (!is_plain(*number, i == 2 ? EW_S64 : EW_F32) || number->count() != 1)) return setup.refuse("wants one number as input %d", i);
            computed_[i - 2] = number != nullptr;
        }
        const Tensor &boxes = *setup.input(0), &scores = *setup.input(1), &y = *setup.outputs[0], &count = *setup.outputs[1];
        if (!is_plain(boxes, EW_F32) || !is_plain(scores, EW_F32) || boxes.rank != 3 || scores.rank != 3 || boxes.dims[2] != 4 ||
            boxes.dims[0] != scores.dims[0] || boxes.dims[1] != scores.dims[2]) {
            return setup.refuse("wants boxes [B, N, 4] and scores [B, C, N] in float32");
        }
        classes_ = scores.dims[1], boxes_ = scores.dims[2];
        if (boxes_ > INT32_MAX) return setup.refuse("takes fewer boxes");
        pairs_ = boxes_ == 0 ? 0 : scores.dims[0] * classes_;
        const std::vector<int64_t>& limit = setup.attributes.integers("limit");
        limit_ = limit.size() == 1 ? std::clamp<int64_t>(limit[0], 0, boxes_) : boxes_;
        if (!is_plain(y, EW_S64) || y.rank != 2 || y.dims[1] != 3 || y.dims[0] != pairs_ * limit_) return setup.refuse("wants room for rows of three s64");
        if (!is_plain(count, EW_S64) || count.count() != 1) return setup.refuse("counts in one s64");
        center_ = setup.attributes.integer("center", 0) != 0;
        fixed_ = {limit_, setup.attributes.real("iou_threshold", 0), setup.attributes.real("score_threshold", 0),
                  computed_[2] || setup.attributes.find("score_threshold", AttributeKind::kFloat) != nullptr};
        order_bytes_ = (static_cast<size_t>(boxes_) * 4 + 63) / 64 * 64;
        setup.scratch_bytes = uint64_t{order_bytes_} * static_cast<uint64_t>(setup.threads) + static_cast<uint64_t>(pairs_) * 8;
        return {};
    }

    void run(const Run& run) override {
        auto *y = run.outputs[0]->as<int64_t>(), *count = run.outputs[1]->as<int64_t>();
        Choice choice = fixed_;
        if (computed_[0]) choice.limit = std::clamp<int64_t>(*run.inputs[2]->as<int64_t>(), 0, limit_);
        if (computed_[1]) choice.most = *run.inputs[3]->as<float>();
        if (computed_[2]) choice.least = *run.inputs[4]->as<float>();
        auto* found = reinterpret_cast<int64_t*>(run.scratch + order_bytes_ * static_cast<size_t>(run.pool.threads()));
        run.pool.parallel(pairs_, 1, [&](int64_t begin, int64_t end, int32_t thread) {
            auto* order = reinterpret_cast<int32_t*>(run.scratch + order_bytes_ * static_cast<size_t>(thread));
            for (int64_t pair = begin; pair < end; ++pair) {
                found[pair] = choose(run.inputs[0]->as<float>() + pair / classes_ * boxes_ * 4, run.inputs[1]->as<float>() + pair * boxes_, pair, choice, order,
                                     y + pair * limit_ * 3);
            }
        });
        *count = 0;
        for (int64_t pair = 0; pair < pairs_; ++pair) {  // each class left room behind its rows
            std::memmove(y + *count * 3, y + pair * limit_ * 3, static_cast<size_t>(found[pair]) * 24);
            *count += found[pair];
        }
    }

private:
    // The rows of one class of one image.
    int64_t choose(const float* boxes, const float* scores, int64_t pair, const Choice& choice, int32_t* order, int64_t* rows) const {
        int32_t left = 0;
        for (int32_t i = 0; i < boxes_; ++i) {  // NaN is no score: it has no place in an order
            if (choice.chosen ? scores[i] > choice.least : scores[i] == scores[i]) order[left++] = i;
        }
        const auto worse = [&](int32_t a, int32_t b) { return scores[a] < scores[b] || (scores[a] == scores[b] && a > b); };
        std::make_heap(order, order + left, worse);
        int64_t kept = 0;
        while (left > 0 && kept < choice.limit) {
            std::pop_heap(order, order + left, worse);
            const int64_t next = order[--left];
            const Box box(boxes + next * 4, center_);
            bool clear = true;
            for (int64_t i = 0; i < kept && clear; ++i) clear = !overlap(Box(boxes + rows[i * 3 + 2] * 4, center_), box, choice.most);
            if (!clear) continue;
            int64_t* row = rows + kept++ * 3;
            row[0] = pair / classes_, row[1] = pair % classes_, row[2] = next;
        }
        return kept;
    }

    int64_t classes_ = 0, boxes_ = 0, pairs_ = 0, limit_ = 0;
    bool center_ = false, computed_[3] = {};
    Choice fixed_{};
    size_t order_bytes_ = 0;
};

}  // namespace

Operator* make_nms() { return new (std::nothrow) Nms; }

}  // namespace ew
