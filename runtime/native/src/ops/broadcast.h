// Walks a row-major result together with operands that numpy would broadcast to it.
#pragma once

#include "checks.h"
#include "strided_copy.h"

namespace ew {

template <int kOperands>
class Broadcast {
public:
    // False where an operand does not broadcast to the result.
    bool set(const Tensor& result, const Tensor* const (&operands)[kOperands]) {
        int64_t strides[kOperands][EW_MAX_RANK];
        for (int k = 0; k < kOperands; ++k) {
            if (!align(result, *operands[k], strides[k])) return false;
        }
        rank_ = 0;
        for (int i = 0; i < result.rank; ++i) {
            if (result.dims[i] != 1) add(result.dims[i], strides, i);
        }
        if (rank_ == 0) {
            dims_[rank_++] = 1;
            for (int k = 0; k < kOperands; ++k) strides_[k][0] = 0;
        }
        rows_ = 1;
        for (int i = 0; i < rank_ - 1; ++i) rows_ *= dims_[i];
        if (dims_[rank_ - 1] == 0) rows_ = 0;
        return true;
    }

    int64_t rows() const { return rows_; }
    int64_t row() const { return dims_[rank_ - 1]; }
    int64_t step(int operand) const { return strides_[operand][rank_ - 1]; }  // within a row: 0 or 1

    // The first element of each operand that belongs to an element of the result.
    void locate(int64_t element, int64_t (&at)[kOperands]) const {
        for (int64_t& one : at) one = 0;
        for (int axis = rank_ - 1; axis >= 0; --axis) {
            const int64_t index = element % dims_[axis];
            element /= dims_[axis];
            for (int k = 0; k < kOperands; ++k) at[k] += index * strides_[k][axis];
        }
    }

    // Calls body(first element of the result, count, first element of each operand) over parts of rows.
    template <typename Body>
    void run(ThreadPool& pool, Body&& body) const {
        if (rows_ == 0) return;
        if (rows_ == 1) {
            pool.parallel(row(), kGrain, [&](int64_t begin, int64_t end, int32_t) {
                int64_t at[kOperands];
                for (int k = 0; k < kOperands; ++k) at[k] = begin * step(k);
                body(begin, end - begin, at);
            });
            return;
        }
        pool.parallel(rows_, row() >= kGrain ? 1 : kGrain / row() + 1, [&](int64_t begin, int64_t end, int32_t) {
            for (int64_t i = begin; i < end; ++i) {
                int64_t at[kOperands] = {}, rest = i;
                for (int axis = rank_ - 2; axis >= 0; --axis) {
                    const int64_t index = rest % dims_[axis];
                    rest /= dims_[axis];
                    for (int k = 0; k < kOperands; ++k) at[k] += index * strides_[k][axis];
                }
                body(i * row(), row(), at);
            }
        });
    }

private:
    static bool align(const Tensor& result, const Tensor& operand, int64_t* strides) {
        const int lead = result.rank - operand.rank;
        if (lead < 0) return false;
        int64_t own[EW_MAX_RANK];
        strides_of(operand.rank, operand.dims, own);
        for (int i = 0; i < result.rank; ++i) {
            const int64_t dim = i < lead ? 1 : operand.dims[i - lead];
            if (dim != result.dims[i] && dim != 1) return false;
            strides[i] = dim == 1 ? 0 : own[i - lead];
        }
        return true;
    }

    void add(int64_t dim, const int64_t (&strides)[kOperands][EW_MAX_RANK], int axis) {
        bool joins = rank_ > 0;
        for (int k = 0; k < kOperands && joins; ++k) joins = strides_[k][rank_ - 1] == strides[k][axis] * dim;
        if (!joins) dims_[rank_++] = 1;
        dims_[rank_ - 1] *= dim;
        for (int k = 0; k < kOperands; ++k) strides_[k][rank_ - 1] = strides[k][axis];
    }

    int rank_ = 0;
    int64_t dims_[EW_MAX_RANK] = {}, strides_[kOperands][EW_MAX_RANK] = {}, rows_ = 0;
};

}  // namespace ew
