// attention: softmax(scale * q^T k + mask) v for each head, without the whole matrix of scores in memory. Attributes heads, scale,
// mask_transposed, and p_… of a softmax that is rounded; operands in attention.h.
#include "attention.h"

#include <algorithm>

#include "quantization.h"

namespace ew {
namespace {

class Attention final : public Operator {
public:
    Status prepare(Setup& setup) override {
        EW_TRY(check_operands(setup, 3, 4));
        const bool bytes = is_8_bit(*setup.input(0));
        bytes_.reset(bytes ? make_attention_bytes() : nullptr);
        if (bytes) return bytes_ ? bytes_->prepare(setup) : Status::fail(EW_OUT_OF_MEMORY, "no memory for %.100s", setup.name);
        for (int i = 0; i < 3; ++i) {
            if (!is_plain(*setup.input(i), EW_F32)) return setup.refuse("wants plain float32 q, k and v");
        }
        if (!is_plain(*setup.outputs[0], EW_F32)) return setup.refuse("gives plain float32");
        masked_ = setup.input(3) != nullptr;
        EW_TRY(shape_.read(setup));
        EW_TRY(shape_.read_steps(setup));
        kernels_ = &vector_kernels(setup.isa);
        setup.kernel = kernels_->name;
        shape_.tile(kernels_->lanes, kernels_->lanes == 16 ? 4 : 2);
        scratch_floats_ = static_cast<size_t>(shape_.head.depth + shape_.head.keys) * static_cast<size_t>(shape_.width);
        scratch_floats_ = (scratch_floats_ + 15) / 16 * 16;
        setup.scratch_bytes = uint64_t{scratch_floats_} * 4 * static_cast<uint64_t>(setup.threads);
        return {};
    }

    void run(const Run& run) override {
        if (bytes_) return bytes_->run(run);
        const Heads& h = shape_.head;
        run.pool.parallel(shape_.items(), 1, [&](int64_t begin, int64_t end, int32_t thread) {
            float* queries = reinterpret_cast<float*>(run.scratch) + scratch_floats_ * static_cast<size_t>(thread);
            float* scores = queries + h.depth * shape_.width;
            for (int64_t i = begin; i < end; ++i) {
                const int64_t tile = i % shape_.tiles, one = i / shape_.tiles;
                const int64_t first = shape_.begin(tile), some = std::min(shape_.begin(tile + 1), h.queries) - first;
                const int64_t row = (some + kernels_->lanes - 1) / kernels_->lanes * kernels_->lanes;
                shape_.start_scores(masked_ ? run.inputs[3] : nullptr, one / shape_.heads, one % shape_.heads, first, some, row, scores);
                kernels_->attend(h, run.inputs[0]->as<float>() + one * h.depth * h.queries + first,
                                 run.inputs[1]->as<float>() + one * h.depth * h.keys, run.inputs[2]->as<float>() + one * h.value_depth * h.keys,
                                 run.outputs[0]->as<float>() + one * h.value_depth * h.queries + first, queries, scores, some);
            }
        });
    }

private:
    std::unique_ptr<Operator> bytes_;
    AttentionShape shape_;
    bool masked_ = false;
    size_t scratch_floats_ = 0;
    const VectorKernels* kernels_ = nullptr;
};

}  // namespace

Status AttentionShape::read(const Setup& setup) {
    const Tensor &q = *setup.input(0), &k = *setup.input(1), &v = *setup.input(2), &y = *setup.outputs[0];
    for (const Tensor* tensor : {&q, &k, &v, &y}) {
        if (tensor->rank < 2 || tensor->dims[0] != q.dims[0]) return setup.refuse("wants [B, heads * depth, tokens] of one B");
    }
    batches = q.dims[0];
    heads = setup.attributes.integer("heads", 1);
    if (heads < 1 || q.dims[1] % heads != 0 || v.dims[1] % heads != 0) return setup.refuse("has heads that do not divide its channels");
    head.depth = q.dims[1] / heads;
    head.value_depth = v.dims[1] / heads;
    head.queries = q.count(2, q.rank);
    head.keys = k.count(2, k.rank);
    head.scale = setup.attributes.real("scale", 1.0f);
    if (k.dims[1] != q.dims[1] || v.count(2, v.rank) != head.keys || y.dims[1] != v.dims[1] || y.count(2, y.rank) != head.queries) {
        return setup.refuse("has q, k, v and y that do not fit");
    }
    if (y.count() == 0) {  // nothing to do: sizes that nothing stands behind are of no use
        batches = 0;
        head.depth = head.value_depth = head.queries = head.keys = 0;
        return {};
    }
    if (head.keys == 0) return setup.refuse("has no keys");
    const Tensor* mask = setup.input(3);
    if (!mask) return {};
    if (!is_plain(*mask, EW_F32) || mask->rank != 4) return setup.refuse("wants a plain float32 mask of rank 4");
    const bool transposed = setup.attributes.integer("mask_transposed", 0) != 0;
    const int order[] = {0, 1, transposed ? 3 : 2, transposed ? 2 : 3};
    const int64_t wanted[] = {batches, heads, head.queries, head.keys};
    for (int i = 0; i < 4; ++i) {
        const int64_t dim = mask->dims[order[i]];
        const bool fits = dim == 1 || dim == wanted[i] || (i == 0 && dim > 0 && batches % dim == 0);
        if (!fits) return setup.refuse("has a mask that does not fit");
        mask_dims_[i] = dim;
        mask_strides_[i] = dim == 1 ? 0 : mask->count(order[i] + 1, 4);
    }
    return {};
}

Status AttentionShape::read_steps(const Setup& setup) {
    if (!setup.attributes.find("p_scale", AttributeKind::kFloat)) return {};
    Tensor like;
    like.dtype = setup.attributes.integer("p_signed", 0) != 0 ? EW_S8 : EW_U8;
    Quantization p;
    EW_TRY(read_quantization(setup, "p_", like, &p));
    head.p_scale = p.scale;
    head.p_top = static_cast<float>(p.highest() - p.zero);
    return {};
}

void AttentionShape::tile(int lanes, int most) {
    lanes_ = lanes;
    vectors_ = (head.queries + lanes - 1) / lanes;
    tiles = (vectors_ + most - 1) / most;
    width = tiles == 0 ? 0 : (vectors_ + tiles - 1) / tiles * lanes;
}

void AttentionShape::start_scores(const Tensor* mask, int64_t batch, int64_t one_head, int64_t first, int64_t some, int64_t row, float* scores) const {
    if (!mask) {
        std::fill(scores, scores + head.keys * row, 0.0f);
        return;
    }
    const float* from = mask->as<float>() + batch % mask_dims_[0] * mask_strides_[0] + one_head * mask_strides_[1] + first * mask_strides_[2];
    for (int64_t key = 0; key < head.keys; ++key) {
        const float* at = from + key * mask_strides_[3];
        float* to = scores + key * row;
        for (int64_t i = 0; i < some; ++i) to[i] = at[i * mask_strides_[2]];
        std::fill(to + some, to + row, 0.0f);
    }
}

Operator* make_attention() { return new (std::nothrow) Attention; }

}  // namespace ew
