// Dims that are known only when an operator of the run has written them: what lies behind it is placed and prepared for them then.
#include <algorithm>

#include "context.h"

namespace ew {

// For another count than before, in the middle of a run.
Status Context::prepare_again(size_t index) {
    EW_TRY(prepare_step(index));
    const uint64_t bytes = steps_[index].scratch_bytes;
    if (bytes <= steps_[index].placed_bytes || bytes <= spare_bytes_) return {};
    spare_bytes_ = 0;
    spare_ = allocate(static_cast<size_t>(bytes));
    if (!spare_) return Status::fail(EW_OUT_OF_MEMORY, "no memory for %llu bytes of scratch", static_cast<unsigned long long>(bytes));
    spare_bytes_ = bytes;
    return {};
}

uint8_t* Context::scratch(const Step& step) const {
    return step.scratch_bytes > step.placed_bytes ? spare_.get() : arena_.get() + step.scratch_offset;
}

// What the operator that has just run has counted.
Status Context::read_counts(size_t step) {
    bool changed = false;
    for (size_t i = 0; i < counts_.size(); ++i) {
        if (plan_.counts[i].step != step) continue;
        const int64_t found = std::max<int64_t>(0, *tensors_[plan_.counts[i].tensor].as<int64_t>());
        changed = changed || found != counts_[i];
        counts_[i] = found;
    }
    return changed ? use_counts(step) : Status();
}

// Memory stays where it is: it was placed for the most.
Status Context::use_counts(size_t step) {
    EW_TRY(evaluate(plan_, symbols_, counts_, &values_));
    for (size_t i = 0; i < tensors_.size(); ++i) {
        if (plan_.tensors[i].counted) EW_TRY(place_tensor(plan_.tensors[i], &tensors_[i]));
    }
    set_pointers();
    for (size_t i = step + 1; i < steps_.size(); ++i) steps_[i].stale = steps_[i].stale || plan_.ops[i].counted;
    return {};
}

// A run that has stopped between two counts leaves operators prepared for neither: all is bound anew.
Status Context::unless_ready(Status status) {
    ready_ = status.ok();
    return status;
}

}  // namespace ew
